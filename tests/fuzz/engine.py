"""A small fuzzer: it changes inputs that are known, and keeps those that reach lines in an order that none did before.

An input is bytes. A target is called with it and raises if a promise was broken. What was found is made as short as it
can be and written down. `sys.settrace` reports which lines run, in the modules that the target names and no others.
"""

from __future__ import annotations

import hashlib
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import Any, Final

HANGS_S: Final = 20.0
"""What is not done by then never will be: inputs are short."""
MAX_BYTES: Final = 4096
_MOST_KEPT: Final = 2000
_SHRINKING_S: Final = 20.0
_CORPUS_BYTES: Final = 10_240
_INTERESTING: Final = (
    b"\0",
    b"\xff",
    b"\x7f",
    b"\x80",
    b"0",
    b"-1",
    b"9" * 20,
    b"9" * 5000,
    b" ",
    b"\t",
    b"\r\n",
    b"\n",
)


@dataclass(frozen=True)
class Target:
    """Something that reads bytes."""

    name: str
    run: Callable[[bytes], None]
    modules: tuple[ModuleType, ...]
    """Whose lines count; of a package those of all its modules."""
    seeds: tuple[bytes, ...]
    words: tuple[bytes, ...] = ()
    """What the inputs are made of."""
    mutate: Callable[[random.Random, bytes], bytes] | None = None
    """Changes an input and keeps its form."""
    reset: Callable[[], None] = field(default=lambda: None)


class Hang(Exception):
    """An input takes for ever."""


@dataclass(frozen=True)
class Crash:
    """An input by which a promise was broken."""

    target: str
    data: bytes
    error: BaseException

    @property
    def place(self) -> tuple[str, str, int]:
        """By which two crashes count as the same."""
        error = self.error
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        last = traceback.extract_tb(error.__traceback__)[-1]
        return type(error).__name__, last.filename, last.lineno or 0

    def describe(self) -> str:
        """For debugging."""
        trace = "".join(traceback.format_exception(self.error))
        return f"CRASH of {self.target}: {self.data!r}\n{trace}"


def attempt(target: Target, data: bytes) -> Crash | None:
    """Run it. Returns: what was wrong, if anything."""

    def over(*_: object) -> None:
        raise Hang(f"more than {HANGS_S:g} s")

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, HANGS_S)
    try:
        target.run(data)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return Crash(target.name, data, error)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return None


def _files_of(module: ModuleType) -> list[str]:
    folders = getattr(module, "__path__", None)
    if folders is None:
        return [module.__file__ or ""]
    return [str(path) for folder in folders for path in Path(folder).rglob("*.py")]


class Coverage:
    """Which line came after which, of some modules, while `traced`."""

    def __init__(self, modules: Iterable[ModuleType]) -> None:
        self._files = {file for module in modules for file in _files_of(module)}
        self._codes: dict[CodeType, bool] = {}
        self.edges: set[tuple[CodeType, int, int]] = set()

    @contextmanager
    def traced(self) -> Iterator[None]:
        """Look on."""
        self.edges = set()
        before = sys.gettrace()
        sys.settrace(self._call)
        try:
            yield
        finally:
            sys.settrace(before)

    def _call(self, frame: FrameType, event: str, argument: Any) -> Any:
        code = frame.f_code
        ours = self._codes.get(code)
        if ours is None:
            ours = self._codes[code] = code.co_filename in self._files
        if not ours:
            return None
        last, edges = code.co_firstlineno, self.edges

        def line(frame: FrameType, event: str, argument: Any) -> Any:
            nonlocal last
            if event == "line":
                edges.add((code, last, frame.f_lineno))
                last = frame.f_lineno
            elif event == "exception":
                edges.add((code, last, -1))
            return line

        return line


class Fuzzer:
    """One target, and the inputs that are known to do something of their own."""

    def __init__(self, target: Target, seed: int, corpus: Sequence[bytes]) -> None:
        self.target = target
        self.runs = 0
        self.seen: set[tuple[CodeType, int, int]] = set()
        self.kept: list[tuple[bytes, frozenset[tuple[CodeType, int, int]]]] = []
        self.crashes: dict[tuple[str, str, int], Crash] = {}
        self._coverage = Coverage(target.modules)
        self._random = random.Random(f"{target.name} {seed}")
        for data in (*target.seeds, *corpus):
            self._try(data)

    def fuzz(self, seconds: float, most: int = sys.maxsize) -> None:
        """For so long, or so many inputs."""
        until, limit = time.monotonic() + seconds, self.runs + most
        while time.monotonic() < until and self.runs < limit:
            self._try(self._new())

    def _try(self, data: bytes) -> None:
        self.runs += 1
        with self._coverage.traced():
            crash = attempt(self.target, data)
        if crash is not None:
            if crash.place not in self.crashes:
                self.crashes[crash.place] = shrunk(self.target, crash)
            return
        edges = self._coverage.edges
        if not edges <= self.seen and len(self.kept) < _MOST_KEPT:
            self.seen |= edges
            self.kept.append((data, frozenset(edges)))

    def _new(self) -> bytes:
        chance = self._random
        data = chance.choice(self.kept)[0] if self.kept else b""
        if self.target.mutate is not None and chance.random() < 0.6:
            return self.target.mutate(chance, data)[:MAX_BYTES]
        other = chance.choice(self.kept)[0] if self.kept else b""
        return mutated(chance, data, other, self.target.words)

    def smallest(self) -> list[bytes]:
        """Few and short inputs that together reach all that is reached."""
        missing, chosen, size = set(self.seen), [], 0
        for data, edges in sorted(self.kept, key=lambda one: len(one[0])):
            if edges & missing and data not in self.target.seeds and size + len(data) <= _CORPUS_BYTES:
                chosen.append(data)
                size += len(data)
            if edges & missing:
                missing -= edges
        return chosen


def mutated(chance: random.Random, data: bytes, other: bytes, words: Sequence[bytes]) -> bytes:
    """A few changes without any knowledge of the form."""
    out = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 6))):
        at = chance.randrange(len(out) + 1)
        to = min(len(out), at + chance.choice((1, 1, 2, 4, 16, 64)))
        what = chance.randrange(9)
        if what == 0 and out:
            out[at % len(out)] ^= 1 << chance.randrange(8)
        elif what == 1 and out:
            out[at % len(out)] = chance.randrange(256)
        elif what == 2:
            del out[at:to]
        elif what == 3:
            out[at:at] = out[at:to]
        elif what == 4:
            out[at:at] = chance.choice(words or _INTERESTING)
        elif what == 5:
            out[at:to] = chance.choice(words or _INTERESTING)
        elif what == 6:
            out[at:at] = chance.choice(_INTERESTING)
        elif what == 7:
            start = chance.randrange(len(other) + 1)
            out[at:to] = other[start : start + chance.randrange(1, 200)]
        else:
            out[at:at] = bytes([chance.randrange(256)]) * chance.choice((1, 2, 126, 300))
    return bytes(out[:MAX_BYTES])


def shrunk(target: Target, crash: Crash) -> Crash:
    """The same crash by as few bytes as can be had in a while."""
    until = time.monotonic() + _SHRINKING_S
    size = len(crash.data) // 2
    while size and time.monotonic() < until:
        at, smaller = 0, False
        while at < len(crash.data) and time.monotonic() < until:
            found = attempt(target, crash.data[:at] + crash.data[at + size :])
            if found is not None and found.place == crash.place:
                crash, smaller = found, True
            else:
                at += size
        if not smaller or size > len(crash.data):
            size //= 2
    return crash


# ---------------------------------------------------------------------- the corpus


def read_corpus(folder: Path) -> list[bytes]:
    """What was kept of a target."""
    return [file.read_bytes() for file in sorted(folder.glob("*"))] if folder.is_dir() else []


def write(folder: Path, kind: str, data: bytes) -> Path:
    """Keep an input, under a name made of what it is."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{kind}{hashlib.sha256(data).hexdigest()[:12]}"
    file.write_bytes(data)
    return file


def replace_corpus(folder: Path, inputs: Iterable[bytes]) -> None:
    """These, and the crashes that were kept, are the corpus now."""
    for file in folder.glob("*"):
        if not file.name.startswith("crash-"):
            file.unlink()
    for data in inputs:
        write(folder, "", data)
