"""nginx push stream and gogin, device side: subscribers over WebSocket, EventSource, HTTP streams and polls.

| path | how messages come |
|---|---|
| `/ws/..`, `/subscribe/..` | WebSocket |
| `/ev/..` | EventSource |
| `/lp/..` | long polling; polling with the header X-Nginx-PushStream-Mode |
| `/sub/..` | a stream; or either kind of polling with that header |

The rest of the path, or the argument `channels`, names the channels (`router.dialects.pushstream.channels`).
"""

from __future__ import annotations

from typing import Final

from farm.dialects import DeviceSide
from farm.dialects.pushstream.dialect import PushStreamDialect
from farm.dialects.pushstream.requests import PATHS
from router.dialects.pushstream import SPEC

SIDE: Final = DeviceSide(spec=SPEC, make=PushStreamDialect, paths=PATHS)
