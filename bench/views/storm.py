"""What `farm bench storm` shows."""

from typing import Any, Final

from bench.figures.tables import Chart, Series, Table, milliseconds, number

PHASES: Final = (("before", "before the cut"), ("during", "until all are back"), ("after", "after"))
STAYED: Final = (
    ("before", "before the cut"),
    ("away", "until the first is back"),
    ("during", "until all are back"),
    ("after", "after"),
)
"""Of the devices that stay: until others come back there is no storm."""
POINTS: Final = ("p50", "p99", "max")


def tables(body: dict[str, Any]) -> list[Table]:
    """How the devices came back, what app servers saw, and which processes used the cores."""
    storms = body["storms"]
    pushes = [_pushes(storm) for storm in storms if _pushed(storm)]
    return [_returns(body, storms), *pushes, *map(_stayed, filter(_some_stayed, storms)), *_troubles(body, storms)]


def _name(storm: dict[str, Any]) -> str:
    return "with jitter" if storm["jitter"] else "without jitter"


def _pushed(storm: dict[str, Any]) -> bool:
    return bool(storm["deliveries"]["sent"])


def _returns(body: dict[str, Any], storms: list[dict[str, Any]]) -> Table:
    setup = body["setup"]
    cut = storms[0]["cut"] if storms else "there was no storm"
    table = Table(f"{setup['ready']:,} devices at once: {cut}", [*(_name(storm) for storm in storms)])

    def row(name: str, cells: list[str]) -> None:
        table.row(name, *cells)

    row("cut off", [number(storm["cut_off"]) for storm in storms])
    row("back", [number(storm["back"]) for storm in storms])
    for share in storms[0]["back_seconds"] if storms else ():
        row(f"{share} back after", [_seconds(storm["back_seconds"][share]) for storm in storms])
    for share in storms[0]["whole_seconds"] if storms else ():
        row(f"{share} have what they missed after", [_seconds(storm["whole_seconds"][share]) for storm in storms])
    row("attempts a device", [f"{storm['attempts_mean']:.2f}" for storm in storms])
    row("most attempts", [max(storm["attempts"], key=int, default="-") for storm in storms])
    row("attempts that failed", [number(sum(storm["attempt_failures"].values())) for storm in storms])
    row("cut off once more on the way", [number(storm["cut_again"]) for storm in storms])
    row("pushes", [number(storm["deliveries"]["sent"]) for storm in storms])
    for key, name in (
        ("delivered", "delivered"),
        ("superseded", "stored, then replaced by a newer one"),
        ("refused", "refused"),
        ("unanswered", "not answered"),
        ("lost", "lost (accepted, never arrived)"),
        ("stored", "still stored"),
        ("duplicates", "twice in one connection"),
        ("resent", "once more after coming back"),
    ):
        row(name, [number(storm["deliveries"][key]) for storm in storms])
    for point in POINTS:
        cells = [milliseconds(storm["missed_wait_ms"].get(point)) for storm in storms]
        row(f"back to missed message, {point}", cells)
    for group in dict.fromkeys(name for storm in storms for name in storm["usage"]["groups"]):
        uses = [storm["usage"]["groups"].get(group) for storm in storms]
        row(f"CPU until back, {group}", ["-" if use is None else f"{use['cpu_seconds']:.2f} s" for use in uses])
    row("limit", [storm["limit"] for storm in storms])
    options = body["options"]
    table.notes.append(
        f"A device comes back {options['backoff']:g} s after its connection ended, and twice as long after each "
        "attempt that failed; with jitter between half of that and half as much again. Seconds count from the cut."
    )
    return table


def _pushes(storm: dict[str, Any]) -> Table:
    phases = storm["pushes"]["phases"]
    table = Table(f"What app servers saw, {_name(storm)}", [*(title for _, title in PHASES)])
    table.row("pushes", *(number(phases[name]["pushes"]) for name, _ in PHASES))
    for status in sorted({status for name, _ in PHASES for status in phases[name]["statuses"]}, key=int):
        title = f"answered {status}" if int(status) else "not answered"
        table.row(title, *(number(phases[name]["statuses"].get(status, 0)) for name, _ in PHASES))
    for point in ("p50", "p90", "p99", "max"):
        cells = [milliseconds(phases[name]["to_response_ms"].get(point)) for name, _ in PHASES]
        table.row(f"push to answer, {point}", *cells)
    table.notes.append("200: written to the device's connection. 202: stored, until the device is back.")
    return table


def _some_stayed(storm: dict[str, Any]) -> bool:
    return storm.get("stayed") is not None


def _stayed(storm: dict[str, Any]) -> Table:
    stayed = storm["stayed"]
    phases = stayed["phases"]
    title = f"{stayed['devices']:,} devices that were not cut off, {_name(storm)}"
    table = Table(title, [*(title for _, title in STAYED)])
    table.row("pushes", *(number(phases[name]["pushes"]) for name, _ in STAYED))
    for key, what in (("to_response_ms", "push to answer"), ("to_frame_ms", "push to message")):
        for point in ("p50", "p90", "p99", "max"):
            table.row(f"{what}, {point}", *(milliseconds(phases[name][key].get(point)) for name, _ in STAYED))
    lost = number(stayed["connections_lost"])
    table.notes.append(f"Times count from when a push was due. Of these connections {lost} ended.")
    return table


def _troubles(body: dict[str, Any], storms: list[dict[str, Any]]) -> list[Table]:
    kinds: dict[str, int] = {f"set-up: {kind}": count for kind, count in body["setup"]["failures"].items()}
    for storm in storms:
        for source in ("attempt_failures", "errors"):
            for kind, count in storm[source].items():
                name = f"{_name(storm)}, {'coming back' if source == 'attempt_failures' else 'app server'}: {kind}"
                kinds[name] = kinds.get(name, 0) + count
        if storm["strays"]:
            kinds[f"{_name(storm)}: updates for another device's channel"] = storm["strays"]
        if storm["reassigned"]:
            kinds[f"{_name(storm)}: devices that got a new identity"] = storm["reassigned"]
    if not kinds:
        return []
    table = Table("What failed", ["count"])
    for kind, count in sorted(kinds.items(), key=lambda item: -item[1]):
        table.row(kind, number(count))
    return [table]


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.2f} s"


def charts(body: dict[str, Any]) -> list[Chart]:
    """The share of devices that is back, over time, and the answers to pushes a second."""
    storms = body["storms"]
    backoff = f"first delay {body['options']['backoff']:g} s"
    share = Chart("Devices back after losing their connection", "line", "seconds after the cut", "% of the devices")
    share.note = f"{body['setup']['ready']:,} devices, {backoff}; jitter: half to one and a half times the delay"
    for storm in storms:
        for key, what in (("back_curve", "back"), ("whole_curve", "and have what they missed")):
            points = storm[key]
            share.series.append(
                Series(f"{_name(storm)}: {what}", [at for at, _ in points], [100 * part for _, part in points])
            )
    result = [share] if storms else []
    for storm in filter(_pushed, storms):
        bins = storm["pushes"]["a_second"]
        chart = Chart(f"Pushes answered a second, {_name(storm)}", "line", "seconds after the cut", "answers a second")
        chart.note = (
            "200: written to the device's connection; 202: stored until it is back; the first and last are partial"
        )
        for status, rates in bins["statuses"].items():
            chart.series.append(Series(status if int(status) else "no answer", bins["seconds"], rates))
        result.append(chart)
    return result
