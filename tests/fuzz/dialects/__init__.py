"""The dialects that are there, each a module with

TARGETS            what is fuzzed of it alone
SETTINGS           changes of the settings, as `settings_with` takes them, for requests to its routes
REQUESTS           such requests: [method, path, query, headers, body]
prepare(rig, keys) puts into a hub what the requests need; returns what stands for names in them
"""

from __future__ import annotations

import importlib
import pkgutil

MODULES = [importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)]
