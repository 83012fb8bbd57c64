"""Pusher Channels (protocol 7), device side: subscriptions, presence, client events, signing in, liveness.

A connection is closed with a code of the protocol: 40xx, do not come back; 4100, come back after a second; 4201, come
back at once. There is no 43xx among them, since pusher-js takes those for "do not come back".
"""

from __future__ import annotations

from typing import Final

from farm.dialects import DeviceSide
from farm.dialects.pusher.dialect import PusherDialect
from router.dialects.pusher import SPEC

SIDE: Final = DeviceSide(
    spec=SPEC,
    make=PusherDialect,
    paths=("/app/*",),
    rank=10,
)
