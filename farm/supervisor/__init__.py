"""The supervisor: it starts, watches and replaces router and workers, and serves the admin port."""
