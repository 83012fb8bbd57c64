"""Devices over the admin port, with real clients: found, shown, pushed to, emptied, disconnected, forgotten."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import httpx
import pytest
from support.commands import Commands
from support.farm_fixture import PATIENCE_S, Farm, Json, new_channel, running_farm, until
from support.simplepush import Device, put
from support.webpush import UserAgent, post

pytestmark = pytest.mark.measured

ACT, READ = "act-" * 8, "read" * 8
ELSEWHERE = "127.0.0.9"


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    folder = tmp_path_factory.mktemp("operated")
    token = folder / "token"
    token.write_text(ACT)
    token.chmod(0o600)
    settings = {"router.routers": 2, "admin.token_file": token, "admin.read_token": READ}
    with running_farm(folder / "data", settings, workers=2) as started:
        yield started


class Operator:
    """Asks the API with a token."""

    def __init__(self, farm: Farm, token: str) -> None:
        base = f"http://127.0.0.1:{farm.admin_port}/api/v1"
        headers = {"Authorization": f"Bearer {token}"}
        self._client = httpx.Client(base_url=base, headers=headers, trust_env=False, timeout=PATIENCE_S)

    def __call__(self, method: str, path: str, **given: Any) -> Any:
        """The answer, which is 200."""
        answer = self._client.request(method, path, **given)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def code(self, method: str, path: str, **given: Any) -> str:
        """Of an answer that refuses."""
        return str(self._client.request(method, path, **given).json()["error"]["code"])

    def close(self) -> None:
        self._client.close()


@pytest.fixture(scope="module")
def operator(farm: Farm) -> Iterator[Operator]:
    asks = Operator(farm, ACT)
    yield asks
    asks.close()


@contextmanager
def device_from(farm: Farm, address: str) -> Iterator[Device]:
    """A device whose connection comes from this address of the loopback network."""
    where = ("127.0.0.1", farm.device_port)
    with Device(farm, socket=socket.create_connection(where, PATIENCE_S, (address, 0))) as device:
        yield device


def gone(operator: Operator, uaid: str) -> None:
    until(lambda: operator("GET", f"/devices/{uaid}")["connection"] is None, "its worker has let it go")


# ---- find


def test_a_device_is_found_by_uaid_endpoint_and_address(farm: Farm, operator: Operator) -> None:
    with device_from(farm, ELSEWHERE) as device, UserAgent(farm) as agent:
        device.hello()
        _, endpoint = device.register()
        channel, webpush = agent.register()
        plain = {"uaid": device.uaid}, {"endpoint": endpoint}, {"address": ELSEWHERE}
        for query in plain:
            (row,) = operator("GET", "/devices", params=query)["devices"]
            assert (row["uaid"], row["device"], row["dialect"]) == (device.uaid, device.uaid, "simplepush")
            assert row["address"] == ELSEWHERE and row["shard"] in (0, 1) and 0 <= row["since"] < PATIENCE_S
        for query in {"uaid": agent.uaid}, {"endpoint": webpush}:
            (row,) = operator("GET", "/devices", params=query)["devices"]
            assert (row["dialect"], row["address"]) == ("webpush", "127.0.0.1")
        by_address = operator("GET", f"/devices/{row['device']}")
        assert (by_address["dialect"], by_address["uaid"], by_address["channels"]) == ("webpush", None, [channel])
        found = operator("GET", "/devices", params={"address": "127.0.0.1", "limit": 1})
        assert [one["dialect"] for one in found["devices"]] == ["webpush"]
    assert operator("GET", "/devices", params={"address": "127.0.0.77"}) == {"devices": [], "more": False}


def test_a_search_is_cut_at_its_limit_and_says_so(farm: Farm, operator: Operator) -> None:
    where = "127.0.0.10"
    with device_from(farm, where) as one, device_from(farm, where) as two, device_from(farm, where) as three:
        uaids = {device.hello()["uaid"] for device in (one, two, three)}
        found = operator("GET", "/devices", params={"address": where, "limit": 2})
        assert len(found["devices"]) == 2 and found["more"]
        found = operator("GET", "/devices", params={"address": where})
        assert {row["uaid"] for row in found["devices"]} == uaids and not found["more"]


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({}, "bad_request"),
        ({"uaid": "a", "address": "b"}, "bad_request"),
        ({"uaid": "nonsense"}, "bad_request"),
        ({"address": "nowhere"}, "bad_request"),
        ({"endpoint": "http://127.0.0.1/update/nonsense"}, "not_found"),
        ({"uaid": "a", "limit": 0}, "bad_request"),
    ],
)
def test_a_search_for_nothing_is_refused(operator: Operator, query: Json, code: str) -> None:
    assert operator.code("GET", "/devices", params=query) == code


# ---- show


def test_what_waits_is_shown_by_pages_and_without_its_content(farm: Farm, operator: Operator) -> None:
    with UserAgent(farm) as agent:
        channel, endpoint = agent.register()
    gone(operator, agent.uaid)
    for number in range(5):
        assert post(endpoint, f"message {number}", TTL="600").status == 201
    seen: list[Json] = []
    after = ""
    while after is not None:
        page = operator("GET", f"/devices/{agent.uaid}", params={"limit": 2, "after": after})["inbox"]
        assert page["messages"] == 5 and page["bytes"] > 0 and 0 < len(page["items"]) <= 2
        seen += page["items"]
        after = page["next"]
    assert len({item["id"] for item in seen}) == 5
    for item in seen:
        assert (item["channel"], item["content"]) == (channel, None)
        assert item["size"] > 0 and 0 <= item["age"] < PATIENCE_S and 590 <= item["ttl"] <= 600
    with UserAgent(farm, agent.uaid) as agent:
        assert agent.bodies(5) == [f"message {number}" for number in range(5)], "to look takes nothing away"


def test_who_is_connected_is_shown_with_its_worker(farm: Farm, operator: Operator) -> None:
    with device_from(farm, ELSEWHERE) as device:
        device.hello()
        shown = operator("GET", f"/devices/{device.uaid}")
        connection = shown["connection"]
        assert (connection["address"], connection["buffered"]) == (ELSEWHERE, 0)
        assert 0 <= connection["silent"] < PATIENCE_S
        assert not shown["registered"] and shown["channels"] is None
        device.register()
        assert operator("GET", f"/devices/{device.uaid}")["registered"]
        assert operator.code("GET", f"/devices/{device.uaid}", params={"dialect": "webpush"}) == "not_found"
    gone(operator, device.uaid)


# ---- push


def test_a_test_push_is_answered_as_an_app_servers(farm: Farm, operator: Operator) -> None:
    with Device(farm) as device:
        device.hello()
        channel, _ = device.register()
        path = f"/devices/{device.uaid}/push"
        assert operator.code("POST", path, json={}) == "bad_request", "only the device knows its channels"
        assert operator("POST", path, json={"channel": channel, "data": "hello"})["status"] == 200
        ((pushed, version),) = device.updates()
        assert pushed == channel
        device.ack((channel, version))
    gone(operator, device.uaid)
    assert operator("POST", path, json={"channel": channel})["status"] == 202
    with UserAgent(farm) as agent:
        path = f"/devices/{agent.uaid}/push"
        assert operator.code("POST", path, json={}) == "refused", "it has no subscription"
        channel, _ = agent.register()
        assert operator("POST", path, json={})["status"] == 201
        (note,) = agent.notes(1)
        assert note["channelID"] == channel and "data" not in note
        agent.ack(note)
        assert operator.code("POST", path, json={"channel": new_channel()}) == "refused"


# ---- empty, disconnect, forget


def test_an_emptied_inbox_is_empty_and_takes_what_comes_next(farm: Farm, operator: Operator) -> None:
    with Device(farm) as device:
        device.hello()
        _, endpoint = device.register()
        second, other = device.register()
    gone(operator, device.uaid)
    assert put(endpoint, 1) == put(other, 2) == 202
    assert operator("DELETE", f"/devices/{device.uaid}/inbox") == {"removed": 2}
    assert operator("GET", f"/devices/{device.uaid}")["inbox"]["messages"] == 0
    assert put(other, 3) == 202
    with Device(farm) as device:
        device.hello(operator("GET", "/devices", params={"endpoint": other})["devices"][0]["uaid"], (second,))
        assert device.updates() == [(second, 3)]


def test_a_device_that_is_disconnected_comes_back_to_what_it_had(farm: Farm, operator: Operator) -> None:
    with Device(farm) as device, UserAgent(farm) as agent:
        device.hello()
        _, endpoint = device.register()
        agent.register()
        for uaid, connected in ((device.uaid, device), (agent.uaid, agent)):
            assert operator("POST", f"/devices/{uaid}/disconnect") == {"disconnected": True}
            assert operator("GET", f"/devices/{uaid}")["connection"] is None
            assert connected.close_code() == 1001
            assert operator("POST", f"/devices/{uaid}/disconnect") == {"disconnected": False}
    assert put(endpoint, 7) == 202
    with UserAgent(farm, agent.uaid) as again:
        assert again.uaid == agent.uaid


def test_a_device_that_is_forgotten_registers_anew(farm: Farm, operator: Operator) -> None:
    with UserAgent(farm) as agent:
        _, endpoint = agent.register()
        assert post(endpoint, "for nobody", TTL="60").status == 201
        agent.notes(1)  # and it is not acknowledged
        assert operator("DELETE", f"/devices/{agent.uaid}") == {"forgotten": True}
        assert agent.close_code() == 1001
        assert operator.code("GET", f"/devices/{agent.uaid}") == "not_found"
        assert operator.code("DELETE", f"/devices/{agent.uaid}") == "not_found"
        assert post(endpoint, "nobody", TTL="60").status == 410
    with UserAgent(farm, agent.uaid) as again:
        assert again.uaid != agent.uaid
    with Device(farm) as device:
        device.hello()
        channel, endpoint = device.register()
    gone(operator, device.uaid)
    assert put(endpoint, 1) == 202
    assert operator("DELETE", f"/devices/{device.uaid}") == {"forgotten": True}
    with Device(farm) as again_plain:
        assert again_plain.hello(device.uaid, (channel,))["uaid"] != device.uaid


# ---- who may


def test_who_may_only_read_sees_it_and_does_nothing(farm: Farm) -> None:
    reads = Operator(farm, READ)
    with Device(farm) as device:
        device.hello()
        assert reads("GET", f"/devices/{device.uaid}")["connection"]
        assert reads("GET", "/session")["role"] == "read"
        for method, path in (("POST", "/disconnect"), ("POST", "/push"), ("DELETE", "/inbox"), ("DELETE", "")):
            assert reads.code(method, f"/devices/{device.uaid}{path}") == "forbidden"
        device.settle()
    reads.close()


def test_without_a_token_there_are_the_probes_alone(farm: Farm) -> None:
    base = f"http://127.0.0.1:{farm.admin_port}"
    with httpx.Client(base_url=base, trust_env=False, verify=False, timeout=PATIENCE_S) as client:
        for probe in "/live", "/ready", "/health":
            assert client.get(probe, headers={"Host": "evil.example"}).status_code == 200
        for page in "/", "/status", "/metrics", "/api/v1/session", "/api/v1/devices", "/nothing":
            assert client.get(page).status_code == 401
        assert client.get("/status", auth=("anybody", ACT)).json()["status"] == "ok"
        read = {"Authorization": f"Bearer {READ}"}
        assert "farm_admin_refused_total" in client.get("/metrics", headers=read).text
        assert client.get("/metrics", headers=read | {"Host": "evil.example"}).status_code == 421
        assert client.put("/broadcasts/a", content="1", headers=read).status_code == 403
        foreign = {"Authorization": f"Bearer {ACT}", "Origin": "https://evil.example"}
        assert client.put("/broadcasts/a", content="1", headers=foreign).status_code == 403


def test_what_is_done_leaves_a_line(farm: Farm, operator: Operator) -> None:
    with Device(farm) as device:
        device.hello()
        operator("POST", f"/devices/{device.uaid}/disconnect", headers={"X-Request-Id": "line-1"})
    (line,) = [event for event in farm.events("admin.action") if event["request_id"] == "line-1"]
    assert (line["action"], line["target"]) == ("POST /devices/{device}/disconnect", device.uaid)
    assert (line["outcome"], line["role"], line["address"]) == ("ok", "act", "127.0.0.1")


# ---- the commands


def test_the_commands(farm: Farm, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    said = Commands(farm, monkeypatch, capsys, "--token-file", str(farm.data.parent / "token"))
    where = "127.0.0.11"
    with device_from(farm, where) as device, UserAgent(farm) as agent:
        device.hello()
        _, endpoint = device.register()
        agent.register()
        listed = said("device", "find", where)
        assert device.uaid in listed and max(map(len, listed.splitlines())) <= 80
        shown = said("device", "show", where)
        assert f"from        {where}" in shown and "kept by the device" in shown
        assert json.loads(said("device", "show", device.uaid, "--json"))["connection"]["address"] == where
        assert said("device", "push", endpoint).endswith("(an app server would be answered 200)\n")
        device.updates()
        assert said("device", "push", agent.uaid, "--ttl", "600").endswith("answered 201)\n")
        agent.notes(1)  # and it is not acknowledged
        assert said.fails("device", "push", device.uaid)[0] == 2  # on which channel?
        assert said("device", "disconnect", agent.uaid) == "disconnected\n"
        assert "messages    1" in said("device", "show", agent.uaid)
        assert said("device", "empty", agent.uaid) == "removed: 1 messages\n"
        assert said("device", "forget", agent.uaid) == "forgotten\n"
        status, line = said.fails("device", "show", agent.uaid)
        assert (status, line.startswith("farm device show: ")) == (1, True)
    status, line = said.fails("device", "disconnect", "127.0.0.77")
    assert (status, line) == (1, "farm device disconnect: no device is found by 127.0.0.77\n")


def test_of_many_devices_at_one_address_the_dialect_may_name_the_one(
    farm: Farm, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = Commands(farm, monkeypatch, capsys, "--token-file", str(farm.data.parent / "token"))
    with ExitStack() as stack:
        for _ in range(12):
            stack.enter_context(device_from(farm, "127.0.0.1")).hello()
        agent = stack.enter_context(UserAgent(farm))
        agent.register()
        found = json.loads(said("device", "show", "127.0.0.1", "--dialect", "webpush", "--json"))
        assert (found["dialect"], found["connection"]["address"]) == ("webpush", "127.0.0.1")
        for dialect in ("simplepush", ""):
            status, line = said.fails("device", "show", "127.0.0.1", "--dialect", dialect)
            assert (status, "several devices are connected from 127.0.0.1" in line) == (1, True)


def test_all_that_waits_is_shown_whatever_a_page_holds(
    farm: Farm, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = Commands(farm, monkeypatch, capsys, "--token-file", str(farm.data.parent / "token"))
    monkeypatch.setattr("farm.admin_client.MAX_PAGE", 3)
    with Device(farm) as device:
        device.hello()
        endpoints = [device.register()[1] for _ in range(8)]
    until(lambda: "connected   no" in said("device", "show", device.uaid), "it has gone")
    assert {put(endpoint, 1) for endpoint in endpoints} == {202}
    for limit, shown in ((8, 8), (7, 7), (3, 3), (100, 8)):
        inbox = json.loads(said("device", "show", device.uaid, "--json", "--limit", str(limit)))["inbox"]
        assert len({item["id"] for item in inbox["items"]}) == len(inbox["items"]) == shown
        assert (inbox["next"] is None, inbox["messages"]) == (shown == 8, 8)


# ---- the description


def test_the_description_is_openapi_and_every_answer_is_as_it_says(farm: Farm, operator: Operator) -> None:
    """Requests are made by schemathesis from the description, good ones and bad ones, and some about a real device."""
    # Not above: every process of a test run reads every file, and these take two seconds.
    import openapi_spec_validator
    import schemathesis
    from hypothesis import Phase, given, settings
    from hypothesis.errors import Unsatisfiable
    from schemathesis import GenerationMode

    document = operator("GET", "/openapi.json")
    openapi_spec_validator.validate(document)
    schemathesis.checks.load_all_checks()
    # What a text may be is more than a schema can say, so a good request may be refused.
    left_out = [one for one in schemathesis.checks.CHECKS.get_all() if one.__name__ == "positive_data_acceptance"]
    headers, base = {"Authorization": f"Bearer {ACT}"}, f"http://127.0.0.1:{farm.admin_port}/api/v1"
    seen: set[tuple[str, int]] = set()

    def asking(uaid: str, examples: int) -> Any:
        @settings(max_examples=examples, phases=[Phase.generate], database=None, deadline=None, derandomize=True)
        def ask(case: Any) -> None:
            if uaid and "device" in (case.path_parameters or {}):
                case.path_parameters["device"] = uaid
            answer = case.call(base_url=base, headers=headers)
            seen.add((case.operation.label, answer.status_code))
            case.validate_response(answer, excluded_checks=left_out)

        return ask

    with Device(farm) as device:
        device.hello()
        device.register()
        for operation in (found.ok() for found in schemathesis.openapi.from_dict(document).get_all_operations()):
            if operation.method.upper() != "GET" and operation.path.startswith(("/workers", "/reload")):
                continue  # it would replace the processes
            for mode, uaid in ((GenerationMode.POSITIVE, device.uaid), (GenerationMode.NEGATIVE, "")):
                with suppress(Unsatisfiable):  # it has no arguments that could be wrong
                    given(operation.as_strategy(generation_mode=mode))(asking(uaid, 2 if uaid else 1))()
    assert {200, 400} <= {status for label, status in seen if label == "GET /devices/{device}"}
    assert 500 not in {status for _, status in seen}
