"""What devices say. Each kind of device is one module here and a `Speech`; `speech_of` makes one by its name.

A speech is pure: the load process hands it a device's number and a payload, and it says what that means and what to
send. It keeps nothing for a device, so a device costs the load process a few bytes whatever it speaks.
"""

from collections.abc import Callable
from typing import Any, Final

from bench.load.speech.bare import Bare
from bench.load.speech.base import Manner, Speech
from bench.load.speech.nats import Nats
from bench.load.speech.pusher import Pusher
from bench.load.speech.simplepush import SimplePush
from bench.load.speech.subscribe import Subscribe
from bench.load.speech.webpush import WebPush

SPEECHES: Final[dict[str, Callable[..., Speech]]] = {
    "simplepush": SimplePush,
    "webpush": WebPush,
    "bare": Bare,
    "subscribe": Subscribe,
    "nats": Nats,
    "pusher": Pusher,
}


def speech_of(name: str, manner: Manner, arguments: dict[str, Any]) -> Speech:
    """The speech with this name.

    Raises:
      ValueError: there is none, it does not know an argument, or it can't do what `manner` asks for.
    """
    if name not in SPEECHES:
        raise ValueError(f"no speech {name!r}: one of {', '.join(SPEECHES)}")
    try:
        return SPEECHES[name](manner, **arguments)
    except TypeError as error:
        raise ValueError(f"speech {name!r}: {error}") from None
