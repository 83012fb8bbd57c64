"""Inputs made by chance and by coverage, for everything that reads what others wrote: `make fuzz`."""
