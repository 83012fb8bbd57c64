"""A farm under traffic and faults, and a checker that knows nothing of how the farm works: `make torture`."""
