"""The commands of `farm`: one module each, found by being here, with its click command as `command`.

A module imports only click, the flags and how a command ends; what it needs besides (trio, zmq, rich) is imported
inside the command, so that `farm --help` and shell completion are quick. A folder here has the commands of a dialect.
"""

from __future__ import annotations

import pkgutil


def found() -> dict[str, str]:
    """The names of all commands, in order, each with its module."""
    commands: dict[str, str] = {}
    for module in pkgutil.iter_modules(__path__, f"{__name__}."):
        inside = [f"{folder}/{module.name.rpartition('.')[2]}" for folder in __path__]
        of_dialect = pkgutil.iter_modules(inside, f"{module.name}.") if module.ispkg else (module,)
        commands |= {one.name.rpartition(".")[2].replace("_", "-"): one.name for one in of_dialect}
    return dict(sorted(commands.items()))
