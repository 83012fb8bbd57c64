"""What is fuzzed, by name."""

from __future__ import annotations

from fuzz.dialects import MODULES
from fuzz.engine import Target
from fuzz.targets import authorisation, link, stores, texts, wire

TARGETS: dict[str, Target] = {
    target.name: target for module in (wire, *MODULES, texts, link, stores, authorisation) for target in module.TARGETS
}
