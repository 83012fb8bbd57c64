"""The application of the Pusher dialect in whose name events are sent."""

import json
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench.errors import BenchError
from bench.machine import leftovers


@dataclass(frozen=True, slots=True)
class Application:
    """An application of the Pusher dialect."""

    id: str
    key: str
    secret: str = field(repr=False)


OURS: Final = Application("1", "bench-key", "bench-secret")
"""What a farm that is started here has."""


def application_in(path: str) -> Application:
    """The first application of a file as `pusher.apps` names it.

    Raises:
      BenchError: there is none.
    """
    try:
        first = json.loads(Path(path).read_bytes())["applications"][0]
        return Application(str(first.get("id") or first["name"]), str(first["key"]), str(first["secret"]))
    except OSError as error:
        raise BenchError(f"--apps {path}: {error.strerror}") from None
    except (ValueError, LookupError, TypeError, AttributeError):
        raise BenchError(f"--apps {path}: no application with id or name, key and secret") from None


def settings_for(stack: ExitStack) -> tuple[str, ...]:
    """The settings of a farm that has our application, whose file is there as long as the stack is open."""
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix=leftovers.name("apps-")))
    file = Path(folder, "apps.json")
    ours = {"id": OURS.id, "name": "bench", "key": OURS.key, "secret": OURS.secret}
    file.write_text(json.dumps({"applications": [ours]}))
    return (f"pusher.apps={file}",)
