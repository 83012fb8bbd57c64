"""WebPush, device side: hello, register, unregister, ack, nack, broadcast_subscribe, ping, notification.

Source: autopush-rs 1.83 and the push client of Firefox, which decides where they differ. A command that is not allowed
ends the connection with 1008 and a reason (autopush: 1011, which means that the server failed); only register,
unregister and urgency have error replies. Unknown members are ignored, and null counts as absent.
"""

from __future__ import annotations

from typing import Final

from farm.dialects import DeviceSide
from farm.dialects.webpush.dialect import WebPushDialect
from router.dialects.webpush import SPEC

SIDE: Final = DeviceSide(
    spec=SPEC,
    make=WebPushDialect,
    paths=("/",),
    rank=10,
)
