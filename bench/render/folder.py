"""A document as files: the JSON first, then what is drawn of it."""

import re
from pathlib import Path

from bench.figures.results import Document, shown, write_bytes, write_json
from bench.render import markdown, pictures


def write(folder: str | Path, name: str, body: Document, with_pictures: bool = True) -> list[Path]:
    """Write NAME.json, then, if they are wanted, the pictures NAME-1.png, NAME-1.svg, ... and NAME.md; pictures of that
    name that an earlier run left are removed. Returns what was written.

    Raises:
      BenchError: something can't be written or shown; NAME.json stands then, if it can be written at all.
    """
    folder = Path(folder)
    written = [folder / f"{name}.json"]
    write_json(written[0], body, "--out")
    found = shown(body)
    drawn = []
    for number, chart in enumerate(found.charts if with_pictures else (), 1):
        for kind, draw in (("png", pictures.png), ("svg", pictures.svg)):
            path = folder / f"{name}-{number}.{kind}"
            write_bytes(path, draw(chart), "--out")
            written.append(path)
        drawn.append((chart, f"{name}-{number}.png"))
    written.append(folder / f"{name}.md")
    write_bytes(written[-1], markdown.page(body, found, drawn).encode(), "--out")
    _remove_old_pictures(folder, name, set(written))
    return written


def _remove_old_pictures(folder: Path, name: str, written: set[Path]) -> None:
    ours = re.compile(re.escape(name) + r"-\d+\.(png|svg)")
    for path in folder.iterdir():
        if ours.fullmatch(path.name) and path not in written:
            path.unlink(missing_ok=True)
