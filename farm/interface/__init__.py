"""What the device side of a dialect is made of. It is imported from `farm.dialects`."""
