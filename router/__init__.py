"""The router of the connection farm, and what the workers share with it.

`router` is the lower of the two layers: it owns the vocabulary between worker and router, the settings machinery,
the store and the app servers' HTTP port. It never imports `farm`.
"""

__version__ = "1.0.0"
"""Of the release; the only place where it stands. See CONTRIBUTING.md."""
