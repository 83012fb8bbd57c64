"""gopush2, device side."""

from __future__ import annotations

from typing import Final

from farm.dialects import DeviceSide, FurtherListener
from farm.dialects.gopush2.dialect import Gopush2Dialect
from farm.dialects.gopush2.tcp import GOPUSH_TCP
from router.dialects.gopush2 import SPEC
from router.dialects.gopush2.protocol import CLIENT_PATH, SUB_PATH, Gopush2Options

SIDE: Final = DeviceSide(
    spec=SPEC,
    make=Gopush2Dialect,
    paths=(SUB_PATH, CLIENT_PATH),
    listeners=(
        FurtherListener("gopush2.tcp_port", lambda settings: settings.get(Gopush2Options).tcp_port, GOPUSH_TCP),
    ),
)
