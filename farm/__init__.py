"""The connection farm: supervisor, workers (device side) and the command line. See README.md."""
