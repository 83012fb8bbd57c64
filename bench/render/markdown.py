"""A document as Markdown, as GitHub shows it. Pure."""

import json
import re
from typing import Final

from bench.figures.results import Document, Shown
from bench.figures.tables import Chart, Table
from bench.render.columns import text_columns

_SPECIAL: Final = re.compile(r"([\\`*_\[\]<>|~#])")


def page(body: Document, found: Shown, pictures: list[tuple[Chart, str]]) -> str:
    """The whole file. `pictures`: each chart with the address of its picture."""
    lines = [f"# {escaped(found.title)}", "", f"{escaped(body['when'])}; {escaped(found.foot)}.", ""]
    for warning in found.warnings:
        lines += [f"**{escaped(warning)}.**", ""]
    if body["interrupted"]:
        lines += ["**Interrupted: these are the figures until then.**", ""]
    for table in found.tables:
        lines += [*_table(table), ""]
    for chart, address in pictures:
        lines += [f"![{escaped(chart.title)}]({address})", ""]
        if chart.note:
            lines += [f"*{escaped(chart.note)}*", ""]
    sysctls = body["machine"].get("sysctl")
    options = json.dumps(body["options"], sort_keys=True)
    lines += [f"Options: {_code(options)}"]
    if isinstance(sysctls, dict) and sysctls:
        facts = ", ".join(f"{name.replace('/', '.')} = {value}" for name, value in sysctls.items() if value)
        lines += ["", f"Kernel settings: {_code(facts)}"]
    return "\n".join(lines) + "\n"


def _table(table: Table) -> list[str]:
    lines = [f"## {escaped(table.title)}", ""]
    lines.append("| | " + " | ".join(_cell(column) for column in table.columns) + " |")
    words = text_columns(table)
    lines.append("|" + "".join("---|" if place in words else "---:|" for place in range(len(table.columns) + 1)))
    lines += ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in table.rows]
    for note in table.notes:
        lines += ["", escaped(note)]
    return lines


def _cell(text: str) -> str:
    return escaped(text) or " "


def escaped(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def _code(text: str) -> str:
    fence = "`" * (max((len(run) for run in re.findall("`+", text)), default=0) + 1)
    return f"{fence} {text} {fence}" if "`" in text else f"`{text}`"
