"""Opens the store that the settings ask for. What a store can do stands in `router.common.store_kinds`."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import NamedTuple, Protocol, cast

from router.common import store_kinds
from router.common.options import Settings
from router.common.settings import Data, RouterOptions, StoreOptions
from router.store import layout
from router.store.base import Store
from router.store.findings import Finding


class Remains(NamedTuple):
    """Where a store keeps what outlives its router."""

    where: str  # for an error
    to_begin_anew: str  # what to do so that there is nothing


class StoreModule(Protocol):
    """What the module of a store has."""

    def new_store(self, settings: Settings, router: int) -> Store:
        """A store for the router of this number, not opened."""

    def keeps(self, settings: Settings) -> tuple[str, str] | None:
        """The members of a `Remains` if there are registrations or messages from before, as far as can be told."""

    def look_over(self, settings: Settings) -> list[Finding]:
        """What there is to be seen of the server that is the store, without changing anything; nothing if there is
        none."""


def for_one(settings: Settings) -> Settings:
    """The settings as the store of one router and its committer go by them: with its part of `store.max_bytes`."""
    options = settings.get(StoreOptions)
    if not store_kinds.by_name(options.kind).apart:
        return settings
    return settings.replace(StoreOptions, max_bytes=-(-options.max_bytes // settings.get(RouterOptions).routers))


def open_store(settings: Settings, router: int = 0) -> Store:
    """The store of `store.kind` for the router of this number, not yet opened: its `open` is awaited by the owner."""
    return _module(settings).new_store(settings, router)


def load(settings: Settings) -> None:
    """Import what `open_store` needs, so that processes that are forked later find nothing to import."""
    _module(settings)


def keeps_something(settings: Settings) -> Remains | None:
    """Where a store that outlives its router has registrations or messages, as far as can be told; None: it has none. A
    store that cannot be read counts as one that has."""
    kept = _module(settings).keeps(settings)
    return None if kept is None else Remains(*kept)


def look_over(settings: Settings) -> list[Finding]:
    """See `StoreModule.look_over`."""
    return _module(settings).look_over(settings)


class Preparation(Protocol):
    """What has to be done to what a store keeps before routers start, because there is another number of them."""

    @property
    def state(self) -> str:
        """How far it is, in a few words, at any time."""

    def run(self) -> None:
        """Do it, in a thread of its own, since it blocks. Raises: StoreError; then nothing has changed."""

    def stop(self) -> None:
        """From another thread: let `run` end soon, with an error."""


def preparation(settings: Settings) -> Preparation | None:
    """What the store needs before routers start with these settings; None: nothing.

    Raises: StoreError, FileError if what it keeps cannot be used.
    """
    options, data, routers = (
        settings.get(StoreOptions),
        Path(settings.get(Data).dir),
        settings.get(RouterOptions).routers,
    )
    if not store_kinds.by_name(options.kind).files or (found := layout.changing(data, routers)) is None:
        return None
    from router.store.redistribution import Redistribution  # which is rarely needed, and loads the store

    return Redistribution(options, data, found, routers)


def _module(settings: Settings) -> StoreModule:
    kind = store_kinds.by_name(settings.get(StoreOptions).kind)
    return cast(StoreModule, importlib.import_module(kind.module))
