"""Which Python runs this, and whether it was built with PGO and LTO: without, its code takes about a quarter more CPU.

A build writes how it was configured into `sysconfig`. Debian and Ubuntu build twice and keep the record of the wrong
one: their interpreter is linked statically, built with both (debian/rules, `with_pgo` and `with_lto`) on the
architectures named here, and installed beside the record of their shared library, which is built with neither.
"""

from __future__ import annotations

import platform
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

Known = Literal["yes", "no", "unknown"]

_FLAGS: Final = ("PY_CFLAGS", "PY_CFLAGS_NODIST", "PY_LDFLAGS_NODIST", "PY_CORE_CFLAGS", "PY_CORE_LDFLAGS")
_PROFILE_FLAGS: Final = ("-fprofile-use", "-fprofile-instr-use")
_DEBIAN: Final = "--with-wheel-pkg-dir=/usr/share/python-wheels/"
_DEBIAN_OPTIMISED: Final = frozenset(("x86_64", "aarch64", "armv7l", "i686", "ppc64le", "s390x"))


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python and how it was built."""

    implementation: str
    version: str
    pgo: Known
    lto: Known

    @property
    def missing(self) -> list[str]:
        """Which of the two it is known to have been built without."""
        return [name for name, known in (("PGO", self.pgo), ("LTO", self.lto)) if known == "no"]

    def fields(self) -> dict[str, str]:
        """For JSON."""
        return {"implementation": self.implementation, "version": self.version, "pgo": self.pgo, "lto": self.lto}


def optimisations(variables: Mapping[str, Any], maps: str, architecture: str) -> tuple[Known, Known]:
    """Whether the interpreter was built with PGO, and with LTO. Pure.

    Args:
      variables: `sysconfig.get_config_vars()`
      maps: the text of /proc/self/maps
      architecture: `platform.machine()`
    """
    options = str(variables.get("CONFIG_ARGS") or "")
    if not options:
        return "unknown", "unknown"
    flags = " ".join(str(variables.get(name) or "") for name in _FLAGS)
    pgo: Known = "yes" if "--enable-optimizations" in options or _has(flags, _PROFILE_FLAGS) else "no"
    lto: Known = "yes" if _lto_asked(options) or _has(flags, ("-flto",)) else "no"
    if "no" in (pgo, lto) and "--enable-shared" in options and "libpython" not in maps:
        # The record is of another build than the one that runs.
        other: Known = "yes" if _DEBIAN in options and architecture in _DEBIAN_OPTIMISED else "unknown"
        return other, other
    return pgo, lto


def _lto_asked(options: str) -> bool:
    return "--with-lto" in options and "--with-lto=no" not in options


def _has(flags: str, wanted: tuple[str, ...]) -> bool:
    return any(word.startswith(wanted) for word in flags.split())


@cache
def interpreter() -> Interpreter:
    """The one that runs this."""
    try:
        maps = Path("/proc/self/maps").read_text(errors="replace")
    except OSError:
        maps = "libpython"  # not seen: the record is believed
    pgo, lto = optimisations(sysconfig.get_config_vars(), maps, platform.machine())
    return Interpreter(platform.python_implementation(), platform.python_version(), pgo, lto)
