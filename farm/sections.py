"""All sections of the settings."""

from __future__ import annotations

from farm.dialects import specs
from farm.settings import OWN_SECTIONS
from router.common.options import Section
from router.common.settings import SECTIONS
from router.dialects import switches


def all_sections() -> tuple[type[Section], ...]:
    """The whole tree: the router's sections, ours, the dialects' and the dialects' switches."""
    known = specs()
    own = [section for spec in known for section in spec.sections]
    return (*SECTIONS, *OWN_SECTIONS, *own, switches(known))
