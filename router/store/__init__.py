"""Stores: what keeps accepted messages. `base` says what every store must do."""
