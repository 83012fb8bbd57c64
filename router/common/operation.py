"""What an app server's request or a device asks for, as a small struct: what the owner of its key is to do. Pure.

A dialect defines its operations beside its protocol and registers at start what performs each of them
(`router.core.operations`). They are encoded where they leave their process: for another router, or from a worker as
the arguments of an INVOKE.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

import msgspec

from router.common.messages import Invoke


class Operation(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """One of a dialect's operations. Each has a `tag` of its own in the dialect. It holds plain values, so what a field
    cannot hold is refused where it is decoded."""

    REPLY: ClassVar[Any] = None
    """Type of what the one who asked gets with the status; None: nothing."""
    SETTLED: ClassVar[bool] = False
    """Whether it is about subscribers or members: a router that is new performs it only when it knows of all workers
    what they hold (`router.core.settling`)."""


encoded: Final = msgspec.msgpack.Encoder().encode
"""An operation, or the reply to one, as it leaves its process."""


def invoke(dialect: str, key: bytes, operation: Operation) -> Invoke:
    """What a device side calls its app-server side with. The reply's payload is the operation's REPLY, encoded; or None
    where the router does not speak the dialect."""
    return Invoke(dialect, key, encoded(operation))
