"""Results as one HTML page that needs nothing else: no script, no font, no picture from anywhere. Pure but for the
pictures, which are drawn by `bench.render.pictures` and stand in the page as data.

Whatever comes from a result file is escaped: a file may come from anyone.
"""

import base64
import datetime
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from bench.figures.results import Document, Shown
from bench.figures.tables import Chart
from bench.render import pictures
from bench.render.columns import text_columns

TEMPLATE: Final = "page.html.j2"


@dataclass(frozen=True, slots=True)
class Entry:
    """A result file that could be shown."""

    name: str
    body: Document
    found: Shown

    @property
    def moment(self) -> str:
        """When it was measured, UTC."""
        moment = datetime.datetime.fromisoformat(self.body["when"]).astimezone(datetime.UTC)
        return f"{moment:%Y-%m-%d %H:%M}"

    @property
    def facts(self) -> str:
        """The options, the machine and the farm as JSON."""
        facts = {name: self.body[name] for name in ("options", "machine", "farm") if name in self.body}
        return json.dumps(facts, indent=1, sort_keys=True)


def page(
    title: str, entries: list[Entry], bad: list[tuple[str, str]], drawn: Callable[[], object] = lambda: None
) -> str:
    """The whole page: a summary, then each result in the order of `entries`. `bad`: files left out, each with why.
    `drawn`: called after each picture."""

    def picture(chart: Chart) -> str:
        data = base64.b64encode(pictures.svg(chart)).decode()
        drawn()
        return data

    environment = Environment(
        loader=PackageLoader("bench", "render"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    template = environment.get_template(TEMPLATE, globals={"picture": picture, "text_columns": text_columns})
    return template.render(title=title, entries=entries, bad=bad)
