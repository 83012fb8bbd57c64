"""Devices over the admin port's API: found, shown, pushed to, emptied, disconnected, forgotten, with real clients."""

from __future__ import annotations

