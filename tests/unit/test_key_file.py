"""Where the token keys come from, and that no start replaces one that is lost."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import trio

from farm.sections import all_sections
from router.common.files import FileError
from router.common.options import Settings, defaults
from router.common.settings import Data, StoreOptions, TokenOptions
from router.common.token import KeyFormatError, new_key, parse_keys
from router.key_file import KEY_FILE, load_or_make_keys
from router.store.base import Reads, Writes
from router.store.layout import STORE_FILE
from router.store.registry import open_store


def settings(folder: Path, keys: str = "", kind: str = "sqlite") -> Settings:
    tree = defaults(all_sections()).replace(Data, dir=str(folder)).replace(StoreOptions, kind=kind)
    return tree.replace(TokenOptions, keys=keys)


def make_store(tree: Settings, *records: bytes) -> None:
    """A store as a router leaves it, with these records in it."""

    async def run() -> None:
        store = open_store(tree)
        await store.open()
        writes = Writes()
        for key in records:
            writes.records["device", key] = (b"x", 2**40)
        await store.apply(writes, Reads(), 1)
        await store.close()

    trio.run(run)


def test_a_key_is_made_once_and_kept_for_its_owner_alone(tmp_path: Path) -> None:
    old_mask = os.umask(0)
    try:
        made = load_or_make_keys(settings(tmp_path))
    finally:
        os.umask(old_mask)
    assert stat.S_IMODE((tmp_path / KEY_FILE).stat().st_mode) == 0o600
    assert load_or_make_keys(settings(tmp_path)) == made
    assert len(made) == 1
    assert list(tmp_path.iterdir()) == [tmp_path / KEY_FILE]


def test_a_configured_key_makes_no_file(tmp_path: Path) -> None:
    key = new_key()
    assert load_or_make_keys(settings(tmp_path, key)) == parse_keys(key)
    assert list(tmp_path.iterdir()) == []


def test_the_key_file_may_hold_several(tmp_path: Path) -> None:
    first, second = new_key(), new_key()
    (tmp_path / KEY_FILE).write_text(f"{first}\n{second}\n")
    assert load_or_make_keys(settings(tmp_path)) == parse_keys(f"{first},{second}")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "holds no key"),
        (b"\n", "holds no key"),
        (b"\xff\xfe\x00", "is not text"),
        (b"secret\n", "a token key must be"),
        (b"A" * 100_000, "a token key must be"),
        (b"\0" * 44, "a token key must be"),
    ],
)
def test_a_key_file_without_a_key_is_told_and_kept(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / KEY_FILE).write_bytes(content)
    with pytest.raises(KeyFormatError, match=said) as caught:
        load_or_make_keys(settings(tmp_path))
    assert str(caught.value).startswith(str(tmp_path / KEY_FILE))
    assert len(str(caught.value).splitlines()) == 1
    assert (tmp_path / KEY_FILE).read_bytes() == content


def test_what_is_no_key_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / KEY_FILE).mkdir()
    with pytest.raises(FileError, match=KEY_FILE):
        load_or_make_keys(settings(tmp_path))
    (tmp_path / KEY_FILE).rmdir()
    (tmp_path / KEY_FILE).symlink_to("elsewhere")
    with pytest.raises(FileError, match="symbolic link"):
        load_or_make_keys(settings(tmp_path))
    assert not (tmp_path / "elsewhere").exists()


def test_no_folder_for_the_key(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="cannot be read or made"):
        load_or_make_keys(settings(tmp_path / "none"))


def test_a_lost_key_is_not_replaced_while_the_store_has_registrations(tmp_path: Path) -> None:
    tree = settings(tmp_path)
    made = load_or_make_keys(tree)
    kept = (tmp_path / KEY_FILE).read_text()
    make_store(tree, b"a")
    (tmp_path / KEY_FILE).unlink()
    with pytest.raises(KeyFormatError, match=f"{KEY_FILE} is missing, and {STORE_FILE} .* every endpoint") as caught:
        load_or_make_keys(tree)
    assert "Put the file back, or its key into token.keys" in str(caught.value)
    assert not (tmp_path / KEY_FILE).exists()
    assert load_or_make_keys(settings(tmp_path, kept.strip())) == made
    assert load_or_make_keys(settings(tmp_path, kind="memory")) != made


def test_a_store_without_registrations_gets_a_new_key(tmp_path: Path) -> None:
    tree = settings(tmp_path)
    make_store(tree)
    assert load_or_make_keys(tree)


def test_a_store_that_cannot_be_read_counts_as_one_with_registrations(tmp_path: Path) -> None:
    (tmp_path / STORE_FILE).write_bytes(b"no database" * 100)
    with pytest.raises(KeyFormatError, match="is missing"):
        load_or_make_keys(settings(tmp_path))
    (tmp_path / STORE_FILE).write_bytes(b"")  # as a router leaves it that was stopped at once
    assert load_or_make_keys(settings(tmp_path))
