"""The router's pure core: no socket, no clock of its own."""
