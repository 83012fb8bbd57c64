"""The table and chart of `farm bench plan`. Pure."""

from typing import Any

from bench.figures.tables import Chart, Series, Table, milliseconds, number, percent, size

KIND = "measured / extrapolated / assumed"


def tables(body: dict[str, Any]) -> list[Table]:
    """Every figure, how it is known, and from what."""
    figures = {figure["key"]: figure for figure in body["figures"]}
    wanted, profile = figures["devices"]["value"], body["profile"]["name"]
    table = Table(f"{number(body['instances'])} x {profile} for {number(wanted)} devices", ["", KIND, "from"])
    for figure in body["figures"]:
        table.row(figure["name"], told(figure), figure["kind"], figure["source"])
    table.notes = [f"{note}." for note in body["notes"]]
    return [table]


def headline(body: dict[str, Any]) -> str:
    """Instances, and dollars if a price was given."""
    figures = {figure["key"]: figure for figure in body["figures"]}
    cost = f"; {told(figures['cost'])} a month" if "cost" in figures else ""
    text = f"{number(body['instances'])} x {body['profile']['name']} for {number(figures['devices']['value'])} devices"
    if farm := body.get("farm"):
        text += f" in one farm: {farm['routers']} routers, {farm['store_servers']} servers of the store"
        text += f", better {farm['cells']} cells" if farm["cells"] > 1 else ""
    return f"{text}, decided by {body['decided_by']}{cost}"


def told(figure: dict[str, Any]) -> str:
    """A figure with its unit."""
    value, unit = figure["value"], figure["unit"]
    if unit == "bytes":
        return size(value)
    if unit == "share":
        return percent(value)
    if unit == "$":
        return f"${value:,.2f}"
    if unit == "ms":
        return milliseconds(value)
    text = f"{value:.3g}" if isinstance(value, float) and abs(value) < 100 else number(value)
    return f"{text} {unit}".rstrip().replace(" /s", "/s")


def charts(body: dict[str, Any]) -> list[Chart]:
    """How many instances each need asks for."""
    by = body["by"]
    chart = Chart(f"Instances of {body['profile']['name']} by what asks for them", "bar", "", "instances")
    groups = [*(f"for {name}" for name in by), "in all, with spare"]
    chart.series.append(Series("instances", groups, [*by.values(), body["instances"]]))
    chart.note = f"Decided by: {body['decided_by']}. Extrapolated; the table says from what."
    return [chart]
