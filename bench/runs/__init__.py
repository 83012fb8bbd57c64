"""One module for each measurement, and what they share: load processes, devices, what became of pushes."""
