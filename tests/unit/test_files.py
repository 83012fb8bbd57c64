"""The data folder and the files in it: what is made, what is refused, and that nothing that exists is changed."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from router.common.files import FileError, check_place, open_own, read_at_most, take_folder

Owned = Callable[[Path], None]


@pytest.fixture(autouse=True)
def common_umask() -> Iterator[None]:
    old = os.umask(0o022)
    yield
    os.umask(old)


@pytest.fixture
def of_another(monkeypatch: pytest.MonkeyPatch) -> Owned:
    """Makes a file belong to another user than this process; root gives it away, else another number is taken."""

    def make(path: Path) -> None:
        if os.geteuid() == 0:
            os.chown(path, 54_321, -1, follow_symlinks=False)
        else:
            monkeypatch.setattr(os, "geteuid", lambda: 54_321)

    return make


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def group_of_many() -> int:
    """A group that others are in: the primary group of a user that is neither this one nor root."""
    return next(user.pw_gid for user in pwd.getpwall() if user.pw_uid not in (0, os.geteuid()))


@pytest.mark.parametrize("mask", [0, 0o022, 0o777])
def test_a_folder_that_is_missing_is_made_for_us_alone(tmp_path: Path, mask: int) -> None:
    if mask == 0o777 and os.geteuid() != 0:
        mask = 0o077  # with no right to its own folders only root could go on
    os.umask(mask)
    take_folder(tmp_path / "a" / "b" / "data")
    assert mode(tmp_path / "a" / "b" / "data") == 0o700
    assert mode(tmp_path / "a") == 0o755 & ~mask


@pytest.mark.parametrize("before", [0o700, 0o755, 0o750, 0o2755, 0o500])
def test_a_folder_that_exists_keeps_its_mode(tmp_path: Path, before: int) -> None:
    tmp_path.chmod(before)
    take_folder(tmp_path)
    assert mode(tmp_path) == before
    tmp_path.chmod(0o700)


def test_what_others_may_read_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "token.key").touch(0o644)
    (tmp_path / "store").touch(0o600)
    take_folder(tmp_path)
    assert not caplog.records
    tmp_path.chmod(0o755)
    take_folder(tmp_path)
    (record,) = caplog.records
    assert record.message == "data.open_to_others"
    assert record.farm_fields["readable"] == "token.key"  # type: ignore[attr-defined]


@pytest.mark.parametrize("before", [0o777, 0o1777, 0o703, 0o702])
def test_a_folder_that_others_may_write_is_refused_and_not_changed(tmp_path: Path, before: int) -> None:
    tmp_path.chmod(before)
    with pytest.raises(FileError, match=f"may be written by others .mode {before:04o}.*choose a folder in it"):
        take_folder(tmp_path)
    assert mode(tmp_path) == before
    take_folder(tmp_path / "data")  # as the message advises
    assert mode(tmp_path / "data") == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to a group that it is not in")
def test_a_folder_that_a_group_of_others_may_write_is_refused(tmp_path: Path) -> None:
    os.chown(tmp_path, -1, group_of_many())
    tmp_path.chmod(0o770)
    with pytest.raises(FileError, match="may be written by others"):
        take_folder(tmp_path)


def test_a_group_that_nobody_else_is_in_may_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # In a container the user that runs may stand in no list of users.
    me = pwd.struct_passwd(("me", "x", os.geteuid(), os.getegid(), "", "/", "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwall", lambda: [me])
    tmp_path.chmod(0o770)
    if os.geteuid() == 0:
        os.chown(tmp_path, -1, 54_321)
    take_folder(tmp_path)


def test_a_folder_of_another_user_is_refused(tmp_path: Path, of_another: Owned) -> None:
    folder = tmp_path / "data"
    folder.mkdir(0o700)
    of_another(folder)
    with pytest.raises(FileError, match=r"belongs to user .*, and this is user .*: run the farm as its owner"):
        take_folder(folder)


def test_a_folder_in_a_place_of_others_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "open" / "data").mkdir(0o700)
    take_folder(tmp_path / "open" / "data")
    assert [record.message for record in caplog.records] == ["data.parent_of_others"]
    (tmp_path / "open").chmod(0o1777)  # there no other user can rename it
    caplog.clear()
    take_folder(tmp_path / "open" / "data")
    assert not caplog.records


def test_a_folder_may_be_a_link_of_our_own(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir(0o700)
    (tmp_path / "data").symlink_to("there")
    take_folder(tmp_path / "data")
    shutil.rmtree(tmp_path / "there")
    with pytest.raises(FileError, match="no such file"):
        take_folder(tmp_path / "data")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a link that belongs to another user")
def test_a_folder_may_not_be_a_link_of_another(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir(0o700)
    (tmp_path / "data").symlink_to("there")
    os.chown(tmp_path / "data", 54_321, -1, follow_symlinks=False)
    with pytest.raises(FileError, match="is a symbolic link that user 54321 made"):
        take_folder(tmp_path / "data")


def test_no_folder_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (
        tmp_path / "file",
        tmp_path / "file" / "below",
        tmp_path / ("x" * 300),
        tmp_path / "a" / ("x" * 300),
    ):
        with pytest.raises(FileError, match=r"^data\.dir: "):
            take_folder(folder)


# -- files in it


def test_a_file_is_made_for_us_alone(tmp_path: Path) -> None:
    os.umask(0)
    os.close(open_own(tmp_path / "file", os.O_RDWR | os.O_CREAT))
    assert mode(tmp_path / "file") == 0o600
    with pytest.raises(FileNotFoundError):
        open_own(tmp_path / "none", os.O_RDONLY)


def test_a_file_that_others_may_read_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "file").touch(0o644)
    os.close(open_own(tmp_path / "file", os.O_RDWR | os.O_CREAT))
    assert mode(tmp_path / "file") == 0o644


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR | os.O_CREAT])
def test_what_is_no_file_of_ours_is_refused(tmp_path: Path, flags: int) -> None:
    """And none of it is waited for, as opening a named pipe would."""
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "target").write_text("kept")
    (tmp_path / "link").symlink_to("target")
    (tmp_path / "nowhere").symlink_to("missing")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        for name, why in (("folder", "no file"), ("pipe", "no file"), ("socket", "no file"), ("link", "symbolic link"),
                          ("nowhere", "symbolic link")):  # fmt: skip
            with pytest.raises(FileError, match=f"^{tmp_path / name}: is (a )?{why}"):
                open_own(tmp_path / name, flags)
    assert (tmp_path / "target").read_text() == "kept"
    assert not (tmp_path / "missing").exists()


def test_a_file_that_others_may_write_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "file").chmod(0o606)
    with pytest.raises(FileError, match=r"may be written by others .mode 0606.*chmod go-w"):
        open_own(tmp_path / "file", os.O_RDWR)


def test_a_file_of_another_user_is_refused(tmp_path: Path, of_another: Owned) -> None:
    (tmp_path / "file").touch(0o600)
    of_another(tmp_path / "file")
    with pytest.raises(FileError, match=r"belongs to user"):
        open_own(tmp_path / "file", os.O_RDWR)


def test_no_descriptor_is_left_of_what_was_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "file").chmod(0o666)
    before = os.dup(0)
    os.close(before)
    with pytest.raises(FileError):
        open_own(tmp_path / "file", os.O_RDWR)
    after = os.dup(0)
    os.close(after)
    assert after == before


def test_a_place_for_a_socket(tmp_path: Path) -> None:
    check_place(tmp_path / "none")
    (tmp_path / "left").touch()
    check_place(tmp_path / "left")
    with pytest.raises(FileError, match="is a folder where the farm makes a socket"):
        check_place(tmp_path)


def test_a_file_that_the_user_wrote(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    assert read_at_most(tmp_path / "file", 5) == b"12345"
    with pytest.raises(FileError, match="is larger than 4 bytes"):
        read_at_most(tmp_path / "file", 4)
    with pytest.raises(FileError, match="is larger than 4 bytes"):
        read_at_most(Path("/dev/zero"), 4)
    with pytest.raises(FileError, match="cannot be read: Is a directory"):
        read_at_most(tmp_path, 4)
