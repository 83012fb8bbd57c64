"""About which clients the application's main server is asked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby

from farm.dialects import DeviceSide, Dialect
from farm.worker.shared_path import SharedPath
from router.common.auth_settings import auth_url
from router.common.options import Settings


def asked_about(
    settings: Settings, served: Iterable[tuple[DeviceSide, Dialect]], paths: Mapping[str, Dialect]
) -> dict[Dialect, str]:
    """The dialects about whose clients it is asked, each with the name that is sent for it: where several share a path,
    all of them, with a comma between. paths: what answers on each path."""
    names = {dialect: side.spec.name for side, dialect in served if auth_url(settings, side.spec.name)}
    for dialect in paths.values():
        if isinstance(dialect, SharedPath) and (sharing := [names[one] for one in dialect.dialects if one in names]):
            names[dialect] = ",".join(sharing)
    return names


def differing_urls(settings: Settings, spoken: Iterable[DeviceSide]) -> list[str]:
    """A line for each path that dialects with different main servers share: there the question comes before it is known
    which of them a client speaks."""
    found = []
    at = sorted((path, side.spec.name) for side in spoken for path in side.paths)
    for path, sharing in groupby(at, key=lambda entry: entry[0]):
        urls = {name: auth_url(settings, name) for _, name in sharing}
        if len(set(urls.values())) > 1:
            shown = ", ".join(f"{name} {url.partition('?')[0] or 'nobody'}" for name, url in urls.items())
            keys = " and ".join(f"{name}.auth_url" for name in urls)
            found.append(
                f"{keys}: these dialects share the path {path}, where the main server is asked before it is known "
                f"which of them a client speaks, and would ask: {shown}; set both alike, or auth.url alone"
            )
    return found
