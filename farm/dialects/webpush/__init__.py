"""WebPush, device side: hello, register, unregister, ack, nack, broadcast_subscribe, ping, notification.

Source: autopush-rs 1.83 and the push client of Firefox, which judges where they differ. What a device may not say ends
the connection with 1008 and a reason (autopush: 1011, which says that the server failed); there are no error replies
but to register, unregister and urgency. Members that are not known here are passed over, and null stands for nothing.
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
