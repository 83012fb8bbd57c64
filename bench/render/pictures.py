"""Charts as pictures, with matplotlib: PNG, and SVG that is the same byte for byte whenever it is drawn again.

matplotlib is imported when a picture is drawn, and only here: it takes a second and 60 MB that no load process, and no
run without pictures, should pay. Its global state (pyplot) is left alone.
"""

import io
import math
import textwrap
from collections.abc import Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any, Final, TypeGuard

from bench.figures.tables import Chart, Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS: Final = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#7F7F7F", "#000000")
"""Okabe and Ito's palette: its colours differ for colour-blind readers, too."""
MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES: Final = ("-", "--", "-.", ":")
WIDTH: Final = 8.0
HEIGHT: Final = 4.0
"""Of the picture and of the plot in it, in inches; title, legend and note are added to the height."""
MARGIN: Final = 0.12
TITLE_LINE: Final = 0.32
LEGEND_LINE: Final = 0.21
NOTE_LINE: Final = 0.165
DPI: Final = 110
NOTE_COLUMNS: Final = 120
LEGEND_COLUMNS: Final = 110
INK: Final = "#222222"
FAINT: Final = "#666666"
PAPER: Final = "#ffffff"
GRID: Final = "#dddddd"
FRAME: Final = "#999999"
OTHERS: Final = "#b3bac2"
"""Bars of other servers, beside ours."""
DARK: Final = {
    PAPER: "#1e2328", INK: "#e6e6e6", FAINT: "#a0a6ad", GRID: "#363c43", FRAME: "#6b727a", OTHERS: "#59616b",
    "#0072B2": "#4aa3e0", "#009E73": "#2fc29a", "#D55E00": "#f0803c", "#7F7F7F": "#a8a8a8", "#000000": "#f2f2f2",
}  # fmt: skip
"""What an SVG has instead where its reader likes dark pages; colours that are not here are seen on both."""
BAR_WIDTH: Final = 0.82
MOST_LABELS: Final = 40
MOST_POINTS: Final = 1500
"""Of a line; more can't be seen in a picture of this size, and would make the SVG large."""
STYLE: Final[dict[Any, Any]] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: the same on every machine
    "font.size": 10,
    "svg.hashsalt": "farm bench",
    "svg.fonttype": "path",
    "axes.unicode_minus": False,
    "text.parse_math": False,  # a dollar is a dollar
}


def png(chart: Chart) -> bytes:
    """The picture as PNG, 880 pixels wide."""
    return _draw(chart, "png", {"dpi": DPI, "metadata": {"Software": None}})


def svg(chart: Chart) -> bytes:
    """The picture as SVG, light or dark as its reader likes it. Letters are drawn as outlines, so it looks the same
    without our font."""
    drawn = _draw(chart, "svg", {"metadata": {"Date": None, "Creator": None, "Format": None, "Type": None}})
    head, end, rest = drawn.partition(b"<defs>")
    return head + _DARK_STYLE + end + rest


def _dark_rules() -> str:
    """Matplotlib writes colours into the style of each element, in lower case."""
    return "".join(
        f'[style*="{part}: {light.lower()}"]{{{part}:{dark}!important}}'
        for light, dark in DARK.items()
        for part in ("fill", "stroke")
    )


_DARK_STYLE: Final = f"<style>@media (prefers-color-scheme:dark){{{_dark_rules()}}}</style>".encode()


def _draw(chart: Chart, kind: str, options: dict[str, Any]) -> bytes:
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    with matplotlib.rc_context(STYLE):
        note = textwrap.wrap(chart.note, NOTE_COLUMNS)
        columns, rows = _legend_shape([series.name for series in chart.series])
        top, bottom = MARGIN + TITLE_LINE + rows * LEGEND_LINE, MARGIN + len(note) * NOTE_LINE
        height = HEIGHT + top + bottom
        layout = ConstrainedLayoutEngine(rect=(0.0, bottom / height, 1.0, HEIGHT / height))
        figure = Figure(figsize=(WIDTH, height), layout=layout, facecolor=PAPER)
        axes = figure.add_subplot()
        _frame(axes, chart)
        if chart.kind == "bar":
            _bars(axes, chart)
        else:
            _lines(axes, chart)
        left, up = MARGIN / WIDTH, 1 - MARGIN / height
        figure.text(left, up, chart.title, ha="left", va="top", fontsize=13, fontweight="bold", color=INK)
        if rows:
            legend = figure.legend(
                *axes.get_legend_handles_labels(),
                loc="upper left",
                bbox_to_anchor=(0.0, 1 - (MARGIN + TITLE_LINE - 0.06) / height),
                ncols=columns,
                frameon=False,
                fontsize=9,
                labelcolor=INK,
            )
            legend.set_in_layout(False)
        text = figure.text(left, MARGIN / height, "\n".join(note), ha="left", va="bottom", fontsize=8.5, color=FAINT)
        text.set_in_layout(False)
        out = io.BytesIO()
        figure.savefig(out, format=kind, **options)
        return out.getvalue()


def _legend_shape(names: list[str]) -> tuple[int, int]:
    """Columns and rows of the legend; one series needs none."""
    if len(names) < 2:
        return 0, 0
    columns = max(1, min(len(names), LEGEND_COLUMNS // (max(len(name) for name in names) + 6)))
    return columns, math.ceil(len(names) / columns)


def _frame(axes: "Axes", chart: Chart) -> None:
    axes.set_xlabel(chart.x_label, color=INK)
    axes.set_ylabel(f"{chart.y_label}, log scale" if chart.log_y else chart.y_label, color=INK)
    axes.set_axisbelow(True)
    axes.grid(True, axis="y" if chart.kind == "bar" else "both", color=GRID, linewidth=0.7)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FRAME)
    axes.tick_params(colors=INK, length=3)


def _bars(axes: "Axes", chart: Chart) -> None:
    groups = list(dict.fromkeys(str(x) for series in chart.series for x in series.x))
    width = BAR_WIDTH / max(1, len(chart.series))
    values = [y for series in chart.series for y in series.y if _drawable(y, chart.log_y)]
    crowded = len(groups) * len(chart.series) > MOST_LABELS
    for place, (series, colour) in enumerate(zip(chart.series, cycle(COLOURS), strict=False)):
        found = {str(x): y for x, y in zip(series.x, series.y, strict=True) if _drawable(y, chart.log_y)}
        xs = [at - BAR_WIDTH / 2 + width * (place + 0.5) for at, group in enumerate(groups) if group in found]
        ys = [found[group] for group in groups if group in found]
        shown = [group for group in groups if group in found]
        colours = [colour if not chart.ours or group in chart.ours else OTHERS for group in shown]
        bars = axes.bar(xs, ys, width * 0.94, color=colours, label=series.name)
        if not crowded:
            small = 8 if len(groups) * len(chart.series) <= 16 else 6.5
            axes.bar_label(bars, [label(y) for y in ys], fontsize=small, padding=2, color=INK)
    long = max((len(group) for group in groups), default=0) * len(groups) > 90
    axes.set_xticks(range(len(groups)), groups, rotation=25 if long else 0, ha="right" if long else "center")
    for text in axes.get_xticklabels():
        if text.get_text() in chart.ours:
            text.set_fontweight("bold")
    axes.set_xlim(-0.6, max(0.6, len(groups) - 0.4))
    _scale(axes, values, chart.log_y)
    if not chart.log_y:
        axes.margins(y=0.12)


def _lines(axes: "Axes", chart: Chart) -> None:
    styles = zip(cycle(COLOURS), cycle(MARKERS), strict=False)
    for place, (series, (colour, marker)) in enumerate(zip(chart.series, styles, strict=False)):
        xs, ys = _thinned(series)
        few = len(xs) <= 40
        axes.plot(
            xs,
            [y if _drawable(y, chart.log_y) else math.nan for y in ys],
            DASHES[place // len(COLOURS) % len(DASHES)],
            color=colour,
            linewidth=1.6,
            marker=marker,
            markersize=4,
            markevery=1 if few else [len(xs) - 1],  # the end of a line that others cover is seen all the same
            label=series.name,
        )
    values = [y for series in chart.series for y in series.y if _drawable(y, chart.log_y)]
    _scale(axes, values, chart.log_y)
    from matplotlib.ticker import FuncFormatter

    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, position: label(x)))
    if not chart.log_y:
        axes.set_ylim(bottom=min(0.0, *values, 0.0))


def _scale(axes: "Axes", values: list[float], log: bool) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    if log and values:
        axes.set_yscale("log")
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if max(values) < 200 * min(values) else (1.0,)))
        axes.set_ylim(10 ** math.floor(math.log10(min(values)) - 0.05), 10 ** (math.log10(max(values)) + 0.35))
    elif values and all(value == int(value) for value in values):
        axes.yaxis.set_major_locator(MaxNLocator(nbins="auto", steps=[1, 2, 2.5, 5, 10], integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, position: label(y)))


def _thinned(series: Series) -> tuple[list[float], Sequence[float | None]]:
    """At most `MOST_POINTS`; in each stretch the highest is kept, for it is the one that a reader must see."""
    xs = [float(x) for x in series.x]
    step = math.ceil(len(xs) / MOST_POINTS)
    if step <= 1:
        return xs, series.y
    stretches = [range(start, min(start + step, len(xs))) for start in range(0, len(xs), step)]
    kept = [max(places, key=lambda at: _height(series.y[at])) for places in stretches]
    return [xs[at] for at in kept], [series.y[at] for at in kept]


def _height(y: float | None) -> float:
    return -math.inf if y is None else y


def _drawable(y: float | None, log: bool) -> TypeGuard[float]:
    return y is not None and math.isfinite(y) and (not log or y > 0)


def label(value: float) -> str:
    """A figure at a tick or a bar: three digits, `24K`, `1.3M`."""
    size = abs(value)
    for bound, unit in ((1e9, "G"), (1e6, "M"), (1e4, "K")):
        if size >= bound:
            scale = 1e3 if unit == "K" else bound
            return f"{value / scale:.3g}{unit}"
    return f"{value:,.0f}" if size >= 1000 else f"{value:.3g}"
