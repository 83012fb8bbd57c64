"""The nginx push stream module and gogin: their publishers, statistics, subscribers, and pushstream.js."""

from __future__ import annotations

from typing import Final

from router.common.store_kinds import Shape
from router.dialects import DialectSpec
from router.dialects.pushstream.protocol import NAME, TABLES, PushStreamOptions

SPEC: Final = DialectSpec(
    name=NAME,
    on=False,
    sections=(PushStreamOptions,),
    answers=TABLES,
    needs=frozenset((Shape.TABLE, Shape.LOG)),
)
