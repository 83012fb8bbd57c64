"""SimplePush, device side: hello, register, unregister, ack, ping, purge, notification.

Source: PushGo 1.5.0 and its stand-alone test suite, which decides where they differ. JSON keys are matched without
regard to case, and null counts as absent; replies carry the messageType in lower case. Every error is answered with
the request's own object plus `status`, `error` and `reason`, and then closes the connection. Only a register beyond
`max_channels` is refused and nothing else, because the device is to go on with the channels that it has.
"""

from __future__ import annotations

from typing import Final

from farm.dialects import DeviceSide
from farm.dialects.simplepush.dialect import SimplePushDialect
from router.dialects.simplepush import SPEC

SIDE: Final = DeviceSide(
    spec=SPEC,
    make=SimplePushDialect,
    paths=("/",),
    rank=100,  # it takes what no other dialect on its path claims
)
