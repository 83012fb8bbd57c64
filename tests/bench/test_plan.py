"""`farm bench plan`: what result files allow to say, by hand and as a command."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from support.bench import RECORDED, recorded_result

from bench.cli import main
from bench.errors import BenchError
from bench.figures.evidence import evidence
from bench.figures.plan import Wish, parse_count, run
from bench.figures.profiles import PROFILES, Profile
from bench.figures.results import read, shown
from bench.views.plan import told

LARGE = PROFILES["c7g.large"]
SMALL = Profile("custom", 160 << 20, 1.0)
"""The instance that tests/data/bench/instances.json was measured in."""


def silent() -> dict[str, Any]:
    """The recorded `connect` without its pushes."""
    body = recorded_result("connect")
    body["connect"]["push"] = None
    return body


def figures(plan: dict[str, Any]) -> dict[str, Any]:
    return {figure["key"]: figure["value"] for figure in plan["figures"]}


def kinds(plan: dict[str, Any]) -> dict[str, str]:
    return {figure["key"]: figure["kind"] for figure in plan["figures"]}


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["plan", *arguments])


def invoke_table(plan: dict[str, Any]) -> str:
    body = recorded_result("connect") | {"command": "plan"} | plan
    (table,) = shown(body).tables
    return "\n".join(" ".join(row) for row in table.rows)


def lacking(name: str) -> dict[str, Any]:
    """A result that says nothing of what a connection takes, for one reason each."""
    body = silent()
    done = body["connect"]
    if name == "--bare":
        body["options"]["bare"] = True
    elif name == "no --admin":
        done["user_memory"] = {}
    elif name == "not credible":
        done["kernel_memory"]["a_connection_one_end"] = -300.0
    elif name == "still connected":
        done["held"] = 4_000
    else:
        done["setup"]["ready"] = 0
    return body


def test_a_plan_from_connect_and_push_by_hand() -> None:
    wish = Wish(2_000_000, 2000, LARGE, price=50)
    plan = run(wish, [("connect.json", silent()), ("push.json", recorded_result("push"))])
    found = figures(plan)
    # connect: 800.3584 in a worker, 623.4112 in the router, 3822.304 in the kernel; 15,290,368 for two workers
    assert found["connection"] == pytest.approx(5246.0736)
    assert found["base"] == 60 * 2**20 + 7_645_184
    # (4 GiB - 200 MiB - 70,559,744) / (5246.0736 + 7,645,184 / 100,000)
    assert found["usable_ceiling"] == 754_283
    assert found["most"] == 527_998  # x 0.7
    assert found["instances_for_devices"] == 4
    # push, flat out: 2683/s and 65.243 + 41.518 us of router and workers
    assert found["router_rate"] == 2683 and found["most_pushes"] == pytest.approx(1878.1)
    assert found["push_cpu"] == pytest.approx(106.761)
    assert plan["by"] == {"devices": 4, "pushes": 2, "CPU": 1}
    assert plan["decided_by"] == "devices" and plan["instances"] == found["instances"] == 5
    assert (found["devices_usual"], found["devices_worst"]) == (400_000, 500_000)
    assert (found["workers"], found["descriptors"]) == (5, 100_064)
    # 209,715,200 + 70,559,744 + 4 x 7,645,184 + 500,000 x 5246.0736
    assert found["memory_worst"] == pytest.approx(2_933_892_480)
    assert found["memory_share_worst"] == pytest.approx(0.68310, abs=1e-5)
    # 500 pushes/s, by the run at 1640/s: 219.512 + 115.854 us each
    assert found["cores"] == pytest.approx(0.167683)
    assert found["cpu_share"] == pytest.approx(0.0838415)
    assert found["back"] == pytest.approx(500_000 / 10_701.813591451459)
    assert (found["cost"], found["cost_a_million"]) == (250, 125)


def test_a_plan_from_a_measured_ceiling_by_hand() -> None:
    wish = Wish(100_000, 2000, SMALL, system=10 << 20)
    plan = run(wish, [("instances.json", recorded_result("instances"))])
    found, known = figures(plan), kinds(plan)
    assert found["ceiling"] == 17_397 and known["ceiling"] == "measured"
    # 17,397 - 10 MiB / 4863.308..., x 0.7
    assert (found["usable_ceiling"], found["most"]) == (15_240, 10_668)
    assert plan["by"] == {"devices": 10, "pushes": 1, "CPU": 1}
    assert plan["instances"] == 11
    # holding 17,397: 0.042543 cores; at 1994/s a push costs 190.572 + 132.899 us
    assert found["cores"] == pytest.approx(10_000 * 0.04254279850746278 / 17_397 + 200 * 323.471e-6)
    assert found["price"] == 6 and found["cost"] == 66  # as the result says
    assert "17,397" in invoke_table(plan) and not any("No ceiling" in note for note in plan["notes"])


def test_pushes_can_decide() -> None:
    documents = [("connect.json", silent()), ("push.json", recorded_result("push"))]
    plan = run(Wish(2_000_000, 20_000, LARGE, spare=2), documents)
    assert plan["by"]["pushes"] == 11  # 20,000 / 1878.1
    assert plan["decided_by"] == "pushes" and plan["instances"] == 13
    slow = run(Wish(1000, 20_000, Profile("custom", 4 << 30, 0.1)), documents)
    assert slow["by"]["CPU"] == 31 and slow["decided_by"] == "CPU"  # 20,000 x 106.761 us / (0.7 x 0.1)


def test_the_rate_by_cores_needs_results_with_different_numbers_of_routers() -> None:
    documents = [("connect.json", silent()), ("push.json", recorded_result("push"))]
    assert "most_pushes_4" not in figures(run(Wish(1000, 2000, LARGE), documents))
    two = recorded_result("push")
    (flat,) = (one for one in two["runs"] if not one["rate"])
    flat["usage"]["groups"]["router"] |= {"processes": 2, "cpu_seconds_a_1000": 0.1}
    flat["usage"]["groups"]["workers"]["cpu_seconds_a_1000"] = 0.05
    plan = run(Wish(1000, 2000, LARGE), [*documents, ("two.json", two)])
    found, known = figures(plan), kinds(plan)
    assert found["push_cpu_1"] == pytest.approx(106.761) and found["push_cpu_2"] == pytest.approx(150)
    # one router of 65.243 us a push is full before two cores are; two routers fill them with 150 us a push
    assert found["most_pushes_2"] == pytest.approx(0.7 / 65.243e-6)
    # three of them forward 2/3 of the pushes instead of 1/2: 106.761 + 43.239 x 4/3 us
    assert found["most_pushes_4"] == pytest.approx(0.7 * 4 / 164.413e-6)
    assert (known["push_cpu_2"], known["most_pushes_4"]) == ("measured", "extrapolated")
    assert any(figure["source"].startswith("with 3 routers") for figure in plan["figures"])


def test_headroom_spare_and_workers_are_as_asked() -> None:
    documents = [("connect.json", silent())]
    plan = run(Wish(754_283, 0, LARGE, headroom=1.0, spare=0), documents)
    assert plan["instances"] == 1
    assert run(Wish(754_284, 0, LARGE, headroom=1.0, spare=0), documents)["instances"] == 2
    found = figures(run(Wish(400_000, 0, LARGE, descriptors=17_000), documents))
    assert (found["workers"], found["descriptors"]) == (24, 16_667 + 64)
    assert not {"router_rate", "price", "cost", "cores"} & found.keys()


def test_each_figure_says_how_it_is_known() -> None:
    plan = run(Wish(2_000_000, 2000, LARGE), [("connect.json", silent()), ("push.json", recorded_result("push"))])
    assert set(kinds(plan).values()) == {"given", "measured", "assumed", "extrapolated"}
    assert {key for key, kind in kinds(plan).items() if kind == "measured"} == {
        *("connection", "kernel", "router_rate", "push_cpu", "p99"),
    }
    for figure in plan["figures"]:
        assert figure["source"]
        if figure["kind"] == "measured":
            assert "connect.json" in figure["source"] or "push.json" in figure["source"]
    assert any("No ceiling of c7g.large was measured" in note for note in plan["notes"])
    assert any("No price" in note for note in plan["notes"])


def test_the_run_with_the_most_devices_counts() -> None:
    both = [("connect.json", silent()), ("instances.json", recorded_result("instances"))]
    for documents in (both, both[::-1]):
        plan = run(Wish(10_000_000, 0, LARGE), documents)
        assert figures(plan)["connection"] == pytest.approx(4863.3083865)
        assert figures(plan)["base"] == 79_765_504 - (7 << 20)  # that of two workers, less one


def test_a_ceiling_that_was_none_is_not_taken() -> None:
    body = recorded_result("instances")
    body["profiles"][0]["ramp"]["limit"] = {"kind": "load generator", "text": "no more"}
    found = evidence(SMALL, [("i.json", body)])
    assert not found.ceilings and any("no ceiling: no real limit met (load generator)" in text for text in found.unused)
    body = recorded_result("instances")
    body["accounting"]["kind"] = "accounted"
    found = evidence(SMALL, [("i.json", body)])
    assert not found.ceilings and any("no control group" in text for text in found.unused)
    assert not evidence(LARGE, [("i.json", recorded_result("instances"))]).ceilings


@pytest.mark.parametrize("reason", ["--bare", "no --admin", "not credible", "still connected", "no device"])
def test_what_does_not_suffice_is_refused_with_the_reason(reason: str) -> None:
    with pytest.raises(BenchError, match="do not say what a connection takes") as error:
        run(Wish(1000, 0, LARGE), [("c.json", lacking(reason))])
    assert reason in str(error.value) and "\n" not in str(error.value)


def test_pushes_that_were_not_clean_are_refused() -> None:
    body = recorded_result("push")
    for done in body["runs"]:
        done["clean"] = False
    with pytest.raises(BenchError, match=r"do not say how many pushes/s a farm takes.*not clean"):
        run(Wish(1000, 5, LARGE), [("connect.json", silent()), ("push.json", body)])


def test_an_instance_that_is_too_small_is_refused() -> None:
    with pytest.raises(BenchError, match="custom holds no device: 160 MiB, of which the system takes 200 MiB"):
        run(Wish(1000, 0, SMALL), [("instances.json", recorded_result("instances"))])


def test_a_field_that_is_missing_is_named() -> None:
    body = silent()
    del body["connect"]["kernel_memory"]
    with pytest.raises(BenchError, match=r"c\.json: the field 'kernel_memory' is missing"):
        run(Wish(1000, 0, LARGE), [("c.json", body)])


@pytest.mark.parametrize(
    ("text", "value"),
    [("31e6", 31e6), ("31M", 31e6), ("2.5k", 2500), ("2,000", 2000), ("1_000_000", 1e6), ("0", 0), ("1.5e+3", 1500)],
)
def test_numbers_in_every_shape(text: str, value: float) -> None:
    assert parse_count(text) == value


@pytest.mark.parametrize("text", ["", "many", "-5", "1e99", "nan", "inf", "5 apples", "9999G"])
def test_what_is_no_number(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no number|is more than"):
        parse_count(text)


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("--devices", "31e6", "--profile", "r7g.large"), 1, "make one with farm bench connect"),
        (("--devices", "x", "--profile", "r7g.large"), 2, "is no number"),
        (("--devices", "0", "--profile", "r7g.large"), 2, "at least 1"),
        (("--devices", "1.5", "--profile", "r7g.large"), 2, "a whole number"),
        (("--devices", "5"), 2, "either --profile or --memory"),
        (("--devices", "5", "--profile", "r7g.large", "--memory", "1GiB"), 2, "either --profile or --memory"),
        (("--devices", "5", "--profile", "r7g.large", "--result", "/none.json"), 1, "/none.json: No such file"),
    ],
)
def test_arguments_and_exit_codes(arguments: tuple[str, ...], code: int, text: str) -> None:
    result = invoke(*arguments)
    assert result.exit_code == code and text in result.output
    assert "Traceback" not in result.output


def test_the_command_ends_with_a_table_and_files(tmp_path: Path) -> None:
    files = [part for name in ("connect", "push") for part in ("--result", str(RECORDED / f"{name}.json"))]
    result = invoke("--devices", "2M", "--push-rate", "2e3", "--profile", "c7g.large", *files, "--out", str(tmp_path))
    assert result.exit_code == 0, result.output
    body = read(tmp_path / "plan.json")
    assert {path.name for path in tmp_path.iterdir()} == {"plan.json", "plan.md", "plan-1.png", "plan-1.svg"}
    assert f"{body['instances']} x c7g.large for 2,000,000 devices" in result.output
    for text in ("measured / extrapolated / assumed", "connect.json: connect with 5,000 devices", "5.123 KiB"):
        assert text in (tmp_path / "plan.md").read_text()
    assert "/" not in "".join(body["options"]["results"])


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (2**31, "bytes", "2.00 GiB"),
        (0.7, "share", "70.0%"),
        (1234.5, "$", "$1,234.50"),
        (2000.0, "/s", "2,000/s"),
        (0.16768, "", "0.168"),
        (5, "", "5"),
        (46.7, "s", "46.7 s"),
    ],
)
def test_figures_with_their_units(value: float, unit: str, text: str) -> None:
    assert told({"value": value, "unit": unit}) == text


def test_a_plan_is_shown_on_the_page_of_a_folder(tmp_path: Path) -> None:
    arguments = ("--devices", "2M", "--memory", "4GiB", "--cpus", "2", "--result", str(RECORDED / "connect.json"))
    assert invoke(*arguments, "--json", str(tmp_path / "a.json")).exit_code == 0
    assert json.loads((tmp_path / "a.json").read_text())["profile"]["name"] == "custom"
    result = CliRunner().invoke(main, ["report", str(tmp_path)])
    assert result.exit_code == 0 and "x custom for 2,000,000 devices" in (tmp_path / "index.html").read_text()
