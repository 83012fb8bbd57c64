"""How Pythons were built, from what their builds write into `sysconfig`; the recorded lines are those of real ones."""

from __future__ import annotations

import sys

import pytest

from router.common.interpreter import Interpreter, interpreter, optimisations

PYENV = "'--prefix=/root/.pyenv/versions/3.11.7' '--enable-shared' 'LDFLAGS=-L/root/.pyenv/versions/3.11.7/lib'"
DEBIAN = (
    "'--enable-shared' '--prefix=/usr' '--libdir=/usr/lib/x86_64-linux-gnu' '--enable-ipv6' '--with-computed-gotos' "
    "'--with-system-expat' '--with-wheel-pkg-dir=/usr/share/python-wheels/' 'CC=x86_64-linux-gnu-gcc'"
)
DOCKER = "'--build=x86_64-linux-gnu' '--enable-optimizations' '--enable-shared' '--with-lto' '--with-ensurepip'"
SHARED = "7f44a592f000-7f44a5931000 r-xp 00000000 08:01 77 /usr/lib/libpython3.11.so.1.0\n"
STATIC = "00420000-006f0000 r-xp 00020000 08:01 78 /usr/bin/python3.11\n"


@pytest.mark.parametrize(
    ("options", "flags", "maps", "architecture", "built"),
    [
        (PYENV, "-O3 -Wall", SHARED, "x86_64", ("no", "no")),
        ("'--prefix=/usr/local'", "-O3 -Wall", STATIC, "x86_64", ("no", "no")),
        (DOCKER, "-O3 -Wall", SHARED, "x86_64", ("yes", "yes")),
        (DOCKER, "-O3 -Wall", STATIC, "x86_64", ("yes", "yes")),  # uv's: a static program, a record that says it all
        ("'--enable-optimizations' '--with-lto=full'", "", STATIC, "x86_64", ("yes", "yes")),
        ("'--enable-optimizations' '--with-lto=no'", "", STATIC, "x86_64", ("yes", "no")),
        ("'--prefix=/usr'", "-O2 -flto=auto -fprofile-use=x", STATIC, "x86_64", ("yes", "yes")),
        (DEBIAN, "-g -O2 -Wall", STATIC, "x86_64", ("yes", "yes")),  # /usr/bin/python3.11: not what the record is of
        (DEBIAN, "-g -O2 -Wall", STATIC, "sparc64", ("unknown", "unknown")),
        (DEBIAN, "-g -O2 -Wall", SHARED, "x86_64", ("no", "no")),  # a program that embeds the library of the record
        (PYENV, "-O3 -Wall", STATIC, "x86_64", ("unknown", "unknown")),
        (None, "-O3 -Wall", STATIC, "x86_64", ("unknown", "unknown")),
    ],
)
def test_builds(options: str | None, flags: str, maps: str, architecture: str, built: tuple[str, str]) -> None:
    variables = {"CONFIG_ARGS": options, "PY_CFLAGS": "-Wsign-compare -DNDEBUG", "PY_CORE_CFLAGS": flags}
    assert optimisations(variables, maps, architecture) == built


def test_the_one_that_runs_this() -> None:
    found = interpreter()
    assert found.version == sys.version.split()[0]
    assert found.fields().keys() == {"implementation", "version", "pgo", "lto"}
    assert {found.pgo, found.lto} <= {"yes", "no", "unknown"}


def test_what_is_missing_is_what_is_known_to_be() -> None:
    assert Interpreter("CPython", "3.11.2", "yes", "unknown").missing == []
    assert Interpreter("CPython", "3.11.2", "no", "no").missing == ["PGO", "LTO"]
