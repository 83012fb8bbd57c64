"""The protocols that devices and app servers speak. Each is one module here, with some of these names:

    PROTOCOL  how its devices speak: a `Protocol`
    WIRES     how its app servers push: a `Wire` for each kind of push port, by name
    DIALECT   what else there is to know of a dialect of the farm whose pushes go to single devices
    FAN_OUT   and of one whose events go to many subscribers

The name of a protocol is that of its module. What has no PROTOCOL is shared by several.

A protocol is pure: the load process hands it a device's number and a payload, and it returns what that means and what
to send. It keeps nothing for a device, so a device costs the load process a few bytes whatever it speaks."""

import importlib
import pkgutil
from collections.abc import Callable
from typing import Any, Final

from bench.load.dialect import Dialect, FanOut
from bench.load.protocols.base import Protocol, Scenario
from bench.load.wires import Wire

PROTOCOLS: Final[dict[str, Callable[..., Protocol]]] = {}
WIRES: Final[dict[str, type[Wire]]] = {}
DIALECTS: Final[dict[str, Dialect]] = {}
"""The reference first."""
FAN_OUTS: Final[dict[str, FanOut]] = {}
"""The same."""


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


def _find() -> None:
    dialects: list[Dialect] = []
    fan_outs: list[FanOut] = []
    for name in sorted(info.name for info in pkgutil.iter_modules(__path__)):
        module = importlib.import_module(f"{__name__}.{name}")
        if hasattr(module, "PROTOCOL"):
            PROTOCOLS[name] = module.PROTOCOL
            WIRES.update(getattr(module, "WIRES", {}))
        if hasattr(module, "DIALECT"):
            dialects.append(module.DIALECT)
        if hasattr(module, "FAN_OUT"):
            fan_outs.append(module.FAN_OUT)
    dialects.sort(key=lambda dialect: not dialect.reference)
    DIALECTS.update((dialect.name, dialect) for dialect in dialects)
    fan_outs.sort(key=lambda fan_out: not fan_out.reference)
    FAN_OUTS.update((fan_out.name, fan_out) for fan_out in fan_outs)


_find()
REFERENCE: Final = next(iter(DIALECTS.values()))
"""What is spoken if nothing else is asked for, and what the other dialects are compared with."""
