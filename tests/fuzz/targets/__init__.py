"""What is fuzzed, by name."""

from __future__ import annotations

from fuzz.dialects import MODULES as DIALECTS
from fuzz.engine import Target
from fuzz.targets import authorisation, link, memcached, proxies, stores, texts, wire

MODULES = (wire, *DIALECTS, texts, link, stores, memcached, authorisation, proxies)
TARGETS: dict[str, Target] = {target.name: target for module in MODULES for target in module.TARGETS}
