"""The dialect that docs/write-a-dialect.md writes, as it stands there, in a farm of two routers."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
import websocket
from support.farm_fixture import PATIENCE_S, ROOT, Farm, curl, running_farm

PAGE: Final = (ROOT / "docs" / "write-a-dialect.md").read_text(encoding="utf-8")
FILES: Final = re.findall(r"^```python\n# (\S+\.py)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
FINDS_IT: Final = """
import farm.dialects, router.dialects
farm.dialects.__path__.append({folder!r} + "/farm/dialects")
router.dialects.__path__.append({folder!r} + "/router/dialects")
"""


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    folder = tmp_path_factory.mktemp("further")
    for name, code in FILES:
        file: Path = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(code, encoding="utf-8")
    (folder / "sitecustomize.py").write_text(FINDS_IT.format(folder=str(folder)))
    settings = {"dialects.notes": True, "notes.max_bytes": 20, "router.routers": 2}
    environment = {"PYTHONPATH": os.pathsep.join((str(folder), str(ROOT)))}
    with running_farm(tmp_path_factory.mktemp("farm") / "data", settings, workers=1, environment=environment) as found:
        yield found


def test_a_note_is_kept_and_sent_to_those_that_are_there_and_to_those_that_come(farm: Farm) -> None:
    assert len(FILES) == 4
    for name in ("kitchen", "cellar", "roof"):  # of either router
        assert curl("--data-binary", "old", farm.url(f"/notes/{name}")).status == 200
        assert curl("--data-binary", "one", farm.url(f"/notes/{name}")).status == 200
        device = websocket.create_connection(f"{farm.device_url}notes/{name}", timeout=PATIENCE_S)
        try:
            assert device.recv() == "one"
            assert curl("--data-binary", "zwei: ä", farm.url(f"/notes/{name}")).status == 200
            assert device.recv() == "zwei: ä"
        finally:
            device.shutdown()


def test_what_is_no_note_is_refused_as_its_table_says(farm: Farm) -> None:
    url = farm.url("/notes/kitchen")
    assert curl(url).status == 405
    assert curl("--data-binary", "x" * 21, url).status == 413
    assert curl("--data-binary", "@-", url, stdin=b"\xff").status == 400
