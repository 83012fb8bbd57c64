"""The protocols that devices speak. Each kind of device is one module here and a `Protocol`; `protocol_of` makes one by
its name.

A protocol is pure: the load process hands it a device's number and a payload, and it says what that means and what to
send. It keeps nothing for a device, so a device costs the load process a few bytes whatever it speaks.
"""

from collections.abc import Callable
from typing import Any, Final

from bench.load.protocols.bare import Bare
from bench.load.protocols.base import Protocol, Scenario
from bench.load.protocols.nats import Nats
from bench.load.protocols.pusher import Pusher
from bench.load.protocols.simplepush import SimplePush
from bench.load.protocols.subscribe import Subscribe
from bench.load.protocols.webpush import WebPush

PROTOCOLS: Final[dict[str, Callable[..., Protocol]]] = {
    "simplepush": SimplePush,
    "webpush": WebPush,
    "bare": Bare,
    "subscribe": Subscribe,
    "nats": Nats,
    "pusher": Pusher,
}


def protocol_of(name: str, scenario: Scenario, arguments: dict[str, Any]) -> Protocol:
    """The protocol with this name.

    Raises:
      ValueError: there is none, it does not know an argument, or it can't do what `scenario` asks for.
    """
    if name not in PROTOCOLS:
        raise ValueError(f"no protocol {name!r}: one of {', '.join(PROTOCOLS)}")
    try:
        return PROTOCOLS[name](scenario, **arguments)
    except TypeError as error:
        raise ValueError(f"protocol {name!r}: {error}") from None
