"""What tests of a farm with several routers have in common: connections of app servers to each of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from support.farm_fixture import Farm, Raw

LIVE = b"GET /live HTTP/1.1\r\nHost: push\r\n\r\n"


def pids(farm: Farm) -> list[int]:
    """Of the routers."""
    return [row["pid"] for row in farm.status()["routers"]]


def asks(raw: Raw) -> None:
    """A request on an app server's connection, which stays open."""
    raw.send(LIVE)
    (answer,) = raw.answers(1)
    assert answer.status == 200


@contextmanager
def connected(farm: Farm) -> Iterator[list[Raw]]:
    """An app server's connection to each router, by number: the kernel divides them, so it is tried until there is."""

    def connects() -> list[int]:
        return [row["http_connects"] for row in farm.status()["routers"]]

    found: dict[int, Raw] = {}
    with ExitStack() as stack:
        while len(found) < len(before := connects()):
            raw = stack.enter_context(Raw(farm.router_port))
            asks(raw)
            (number,) = (n for n, now in enumerate(connects()) if now > before[n])
            found.setdefault(number, raw)
        yield [found[number] for number in sorted(found)]
