"""A farm whose code is replaced by that of a later release, and by this one again."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from support import dialects, releases
from support.farm_fixture import ROOT, Farm, command, reload, running, until


def put(link: Path, tree: Path) -> None:
    """Make the symbolic link name another tree, at one moment."""
    new = link.with_suffix(".new")
    new.symlink_to(tree)
    new.rename(link)


def test_a_later_release_is_reloaded_to_and_left_again_where_its_versions_allow_it(tmp_path: Path) -> None:
    """The supervisor is of this release all the time. Where the code is, is said by a symbolic link. What dies while
    there is none, or other code than what runs, is started again as it was."""
    code = tmp_path / "current"
    put(code, ROOT)
    (gone := tmp_path / "gone").mkdir()
    by_the_link = {"PYTHONSAFEPATH": "1"}  # the folder in which it is started is known by its true name
    farm = Farm(tmp_path / "data", dialects.settings(tmp_path), workers=1, environment=by_the_link, root=code)

    def check() -> None:
        with dialects.reached(farm) as reached:
            reached()

    with running(farm):
        before = farm.processes()
        put(code, releases.much_newer(tmp_path / "much-newer"))
        refused = command(farm, "reload", "--data", str(farm.data))
        assert refused.returncode == 1
        (line,) = refused.stderr.splitlines()
        assert line.startswith("farm reload: refused: the new code does not start: this version needs a restart (")
        assert farm.processes() == before
        put(code, gone)
        for kind in ("router", "worker"):
            (pid,) = (pid for pid, title in farm.processes().items() if f"farm: {kind}" in title)
            os.kill(pid, signal.SIGKILL)
        until(lambda: len(list(farm.events("process.died"))) == 2, "both are missed")
        farm.wait_healthy()
        assert farm.admin("/")[0] == 200
        for tree in (releases.newer(tmp_path / "newer"), ROOT):
            check()
            put(code, tree)
            reload(farm)
            assert {row["state"] for rows in ("routers", "workers") for row in farm.wait_healthy()[rows]} == {"up"}
        check()
        assert len(list(farm.events("process.died"))) == 2
