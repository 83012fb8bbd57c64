"""One module for each measurement, and what they share: load processes, the devices of a run, its books."""
