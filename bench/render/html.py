"""Results as one HTML page that needs nothing else: no script, no font, no picture from anywhere. Pure but for the
pictures, which are drawn by `bench.render.pictures` and stand in the page as data.

Whatever comes from a result file is escaped: a file may come from anyone.
"""

import base64
import datetime
import html
import json
from dataclasses import dataclass
from typing import Final

from bench.figures.results import Document, Shown
from bench.figures.tables import Chart, Table
from bench.render import pictures
from bench.render.columns import text_columns

POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
STYLE: Final = """
:root { color-scheme: light dark; --ink: #1c1c1c; --faint: #5f6368; --page: #fff; --line: #d9dce0; --card: #f6f7f9;
  --link: #0b57d0; --bad: #b3261e }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e6e6; --faint: #a0a6ad; --page: #15181c; --line: #363c43;
  --card: #1e2328; --link: #8ab4f8; --bad: #f2b8b5 } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 72rem; padding: 1rem 1rem 4rem; color: var(--ink); background: var(--page);
  font: 16px/1.45 system-ui, sans-serif; overflow-wrap: anywhere }
h1 { font-size: 1.6rem; margin: .5rem 0 } h2 { font-size: 1.3rem; margin: 0 }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem }
a { color: var(--link) } .faint { color: var(--faint); font-size: .875rem } .bad { color: var(--bad) }
section { border-top: 2px solid var(--line); margin-top: 2.5rem; padding-top: 1.2rem }
.wide { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px }
table { border-collapse: collapse; width: 100%; font-size: .875rem; font-variant-numeric: tabular-nums }
th, td { padding: .35rem .7rem; text-align: right; vertical-align: top; border-top: 1px solid var(--line);
  overflow-wrap: normal }
thead th { border-top: 0; background: var(--card); white-space: nowrap } tbody tr:hover { background: var(--card) }
th:first-child, td:first-child { text-align: left; font-weight: 500 } .texts td, .texts th, .words { text-align: left }
.words, .texts td:nth-child(4) { min-width: 12rem } th:first-child, td:first-child { min-width: 8rem }
figure { margin: 1.2rem 0 } figure img { display: block; width: 100%; max-width: 55rem; height: auto; background: #fff;
  border: 1px solid var(--line); border-radius: 6px }
code { font-size: .8rem; white-space: pre-wrap } details { margin-top: 1rem }
@media print { section { break-before: page } }
@media (max-width: 40rem) { th, td { padding: .3rem .45rem; font-size: .8rem } .wide table { min-width: 24rem } }
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """A result file that could be shown."""

    name: str
    body: Document
    found: Shown


def page(title: str, entries: list[Entry], bad: list[tuple[str, str]]) -> str:
    """The whole page: a summary, then each result in the order of `entries`. `bad`: files left out, each with why."""
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
        f"<title>{_text(title)}</title>",
        f"<style>{STYLE}</style>",
        "</head>",
        "<body>",
        f"<h1>{_text(title)}</h1>",
        *_summary(entries),
        *_bad(bad),
    ]
    for number, entry in enumerate(entries, 1):
        parts += _section(number, entry)
    return "\n".join([*parts, "</body>", "</html>", ""])


def _summary(entries: list[Entry]) -> list[str]:
    if not entries:
        return ["<p>No result.</p>"]
    rows = []
    for number, entry in enumerate(entries, 1):
        link = f'<a href="#r{number}">{_text(entry.name)}</a>'
        cells = [link, _text(entry.body["command"]), _text(_moment(entry.body)), _text(_headline(entry))]
        cells.append(_text(str(entry.body.get("commit") or "-")))
        cells.append(_text(f"{entry.body['machine']['cores']} cores, {entry.body['machine']['cpu']}"))
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    names = ("result", "command", "when, UTC", "figures", "commit", "machine")
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    return [
        '<div class="wide texts" role="region" aria-label="Summary" tabindex="0">',
        f"<table><thead><tr>{head}</tr></thead>",
        f"<tbody>{''.join(rows)}</tbody></table></div>",
    ]


def _headline(entry: Entry) -> str:
    return ("interrupted; " if entry.body["interrupted"] else "") + entry.found.headline


def _bad(bad: list[tuple[str, str]]) -> list[str]:
    if not bad:
        return []
    items = "".join(f"<li><code>{_text(name)}</code>: {_text(reason)}</li>" for name, reason in bad)
    return [f'<h3 class="bad">Files that are left out</h3><ul>{items}</ul>']


def _section(number: int, entry: Entry) -> list[str]:
    body = entry.body
    parts = [f'<section id="r{number}">', f"<h2>{_text(entry.name)}</h2>"]
    parts.append(
        f'<p class="faint">{_text(entry.found.title)}, {_text(_moment(body))} UTC; {_text(entry.found.foot)}</p>'
    )
    if entry.found.warning:
        parts.append(f'<p class="bad">{_text(entry.found.warning)}.</p>')
    if body["interrupted"]:
        parts.append('<p class="bad">Interrupted: these are the figures until then.</p>')
    parts += [part for chart in entry.found.charts for part in _picture(chart)]
    parts += [part for table in entry.found.tables for part in _table(table)]
    facts = {"options": body["options"], "machine": body["machine"]} | (
        {"farm": body["farm"]} if "farm" in body else {}
    )
    text = json.dumps(facts, indent=1, sort_keys=True)
    parts.append(f"<details><summary>Options and machine</summary><pre><code>{_text(text)}</code></pre></details>")
    return [*parts, "</section>"]


def _picture(chart: Chart) -> list[str]:
    data = base64.b64encode(pictures.svg(chart)).decode()
    words = _text(f"{chart.title}. {chart.note}".strip())
    return [f'<figure><img src="data:image/svg+xml;base64,{data}" alt="{words}"></figure>']


def _table(table: Table) -> list[str]:
    words = text_columns(table)
    sides = [' class="words"' if at in words else "" for at in range(len(table.columns) + 1)]
    columns = zip(sides, ["", *table.columns], strict=True)
    head = "".join(f'<th scope="col"{side}>{_text(column)}</th>' for side, column in columns)
    rows = "".join(
        "<tr>" + "".join(f"<td{side}>{_text(cell)}</td>" for side, cell in zip(sides, row, strict=True)) + "</tr>"
        for row in table.rows
    )
    title = _text(table.title)
    return [
        f"<h3>{title}</h3>",
        f'<div class="wide" role="region" aria-label="{title}" tabindex="0"><table><thead><tr>{head}</tr></thead>',
        f"<tbody>{rows}</tbody></table></div>",
        *(f'<p class="faint">{_text(note)}</p>' for note in table.notes),
    ]


def _moment(body: Document) -> str:
    moment = datetime.datetime.fromisoformat(body["when"]).astimezone(datetime.UTC)
    return f"{moment:%Y-%m-%d %H:%M}"


def _text(text: str) -> str:
    return html.escape(text, quote=True)
