"""The pictures of the bench's results."""

import io
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest
from matplotlib.image import imread
from support.bench import COMMANDS_RECORDED, recorded_result

from bench.figures.results import shown
from bench.figures.tables import Chart, Series
from bench.render import pictures

CHARTS = [
    Chart("Held, $ a month_x", "bar", "instance", "connections", log_y=True, note="A note. " * 30),
    Chart("Memory", "line", "connections", "MiB"),
    Chart("One bar", "bar", "", "ms"),
    Chart("Nothing at all", "line", "s", "ms", log_y=True),
]


@pytest.mark.parametrize("chart", CHARTS, ids=lambda chart: chart.title)
def test_pictures_of_every_kind(chart: Chart) -> None:
    image = pictures.png(chart)
    assert image.startswith(b"\x89PNG\r\n\x1a\n") and len(image) < 150_000
    pixels = imread(io.BytesIO(image), format="png")
    height, width = pixels.shape[:2]
    assert width == 880 and 400 <= height <= 1000
    assert len({tuple(pixel) for row in pixels[::4, ::4] for pixel in row}) > 3  # something is drawn
    vector = pictures.svg(chart)
    assert vector == pictures.svg(chart) and len(vector) < 200_000
    root = ET.fromstring(vector)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert b"<dc:date>" not in vector and b"<script" not in vector


@pytest.mark.parametrize("name", COMMANDS_RECORDED)
def test_pictures_of_recorded_results(name: str) -> None:
    charts = shown(recorded_result(name)).charts
    assert charts
    for chart in charts:
        assert chart.series and chart.y_label and chart.title
        assert imread(io.BytesIO(pictures.png(chart)), format="png").shape[1] == 880


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.123, "0.123"),
        (12.34, "12.3"),
        (1234, "1,234"),
        (24_000, "24K"),
        (1_320_000, "1.32M"),
        (-20_000, "-20K"),
        (0, "0"),
    ],
)
def test_labels_are_short(value: float, text: str) -> None:
    assert pictures.label(value) == text


def test_no_part_of_the_farm_or_of_the_load_imports_matplotlib_or_numpy() -> None:
    processes = "farm.cli, farm.worker, router, bench.load.runners"
    shown = "bench.cli, bench.figures.results, bench.views.connect"
    code = f"import sys\nimport {processes}, {shown}\nsys.exit('matplotlib' in sys.modules or 'numpy' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert found.returncode == 0, found.stderr


def test_a_vector_picture_is_dark_where_its_reader_likes_it() -> None:
    chart = Chart("Ours and others", "bar", "", "ms", [Series("ms", ["farm", "other"], [1.0, 2.0])], ours=("farm",))
    vector = pictures.svg(chart).decode()
    ET.fromstring(vector)
    style, _, drawn = vector.partition("</style>")
    assert "@media (prefers-color-scheme:dark)" in style
    for light in (pictures.PAPER, pictures.INK, pictures.GRID, pictures.FRAME, pictures.OTHERS, pictures.COLOURS[0]):
        assert any(f"{part}: {light.lower()}" in drawn for part in ("fill", "stroke")), light
        assert f'[style*="fill: {light.lower()}"]{{fill:{pictures.DARK[light]}!important}}' in style


def test_bars_of_others_are_grey_beside_ours() -> None:
    bars = [Series("ms", ["farm", "other"], [1.0, 2.0])]
    marked = pictures.svg(Chart("Both", "bar", "", "ms", bars, ours=("farm",))).decode()
    assert f"fill: {pictures.OTHERS}" in marked.partition("</style>")[2]
    unmarked = pictures.svg(Chart("Both", "bar", "", "ms", bars)).decode()
    assert f"fill: {pictures.OTHERS}" not in unmarked.partition("</style>")[2]
