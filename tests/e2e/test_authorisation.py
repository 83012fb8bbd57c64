"""A main server decides who may connect: real farms, and a main server of its own process."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import websocket
from support import dialects, mirror
from support.common import deaf_port
from support.farm_fixture import KEY, PATIENCE_S, Farm, HttpAnswer, Raw, curl, refusal, running_farm, until
from support.main_server import REFUSAL, MainServer, running_main_server
from support.mirror import Mirror

SECRETS = ("s3cr3t-cookie", "s3cr3t-token", "s3cr3t-url", "s3cr3t-bearer")


@pytest.fixture(scope="module")
def farm(main_server: MainServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    folder = tmp_path_factory.mktemp("farm")
    settings = {
        "auth.url": main_server.url("/auth?key=s3cr3t-url"),
        "auth.timeout": 5,
        "auth.cache": 60,
        "worker.admission_timeout": 60,
    }
    with running_farm(folder / "data", settings, environment=mirror.environment(folder)) as running:
        yield running


def request(cookie: str = "", *headers: str, path: str = "/mirror") -> bytes:
    lines = (
        f"GET {path} HTTP/1.1",
        "Host: push",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {KEY}",
        "Sec-WebSocket-Version: 13",
        *([f"Cookie: {cookie}"] if cookie else []),
        *headers,
    )
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode()


def refused(farm: Farm, *parts: str, path: str = "/mirror") -> HttpAnswer:
    return refusal(farm.device_port, request(*parts, path=path))


def test_who_is_allowed_is_served_and_the_main_server_knows_who_it_was(farm: Farm, main_server: MainServer) -> None:
    with Mirror(farm, cookie="does=yes.known", header=["Authorization: Bearer s3cr3t-bearer", "X-More: a"]) as device:
        device.check()
    (seen,) = main_server.seen(cookie="does=yes.known")
    assert seen["method"] == "GET"
    assert seen["authorization"] == "Bearer s3cr3t-bearer"
    assert seen["x-original-uri"] == "/mirror"
    assert seen["x-original-method"] == "GET"
    assert seen["x-forwarded-for"] == "127.0.0.1"
    assert (seen["x-dialect"], seen["x-action"], seen["x-channels"]) == ("mirror", "connect", "")
    assert "x-more" not in seen


def test_who_is_refused_gets_what_the_main_server_says(farm: Farm) -> None:
    answer = refused(farm)
    assert (answer.status, answer.body.decode()) == (403, REFUSAL)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    plain = curl(f"http://127.0.0.1:{farm.device_port}/mirror")
    assert plain.status == 426  # what is no request of the dialect is not asked about


@pytest.mark.parametrize(
    ("does", "status", "text"),
    [
        ("never", 504, "the main server did not answer in time"),
        ("fails", 502, "the main server's answer cannot be used"),
        ("redirects", 502, "the main server's answer cannot be used"),
        ("huge", 502, "the main server's answer cannot be used"),
        ("nonsense", 502, "the main server's answer cannot be used"),
    ],
)
def test_what_is_no_clear_answer_allows_nothing(farm: Farm, does: str, status: int, text: str) -> None:
    answer = refused(farm, f"does={does}")
    assert (answer.status, answer.body.decode()) == (status, text + "\n")


def test_an_answer_is_remembered_for_those_that_ask_the_same(farm: Farm, main_server: MainServer) -> None:
    for _ in range(3):
        Mirror(farm, cookie="does=yes.same").socket.close()
    assert len(main_server.seen(cookie="does=yes.same")) == 1
    Mirror(farm, cookie="does=yes.other").socket.close()
    assert len(main_server.seen(cookie="does=yes.other")) == 1
    for _ in range(2):
        assert refused(farm, "does=fails.again").status == 502
    assert len(main_server.seen(cookie="does=fails.again")) == 2


def test_connections_to_the_main_server_are_used_again(farm: Farm, main_server: MainServer) -> None:
    for number in range(4):
        Mirror(farm, cookie=f"does=yes.connection-{number}").socket.close()
    seen = [one["port"] for number in range(4) for one in main_server.seen(cookie=f"does=yes.connection-{number}")]
    assert len(seen) == 4
    assert len(set(seen)) < len(seen)


def test_a_main_server_that_was_started_again_is_asked_at_once(tmp_path: Path) -> None:
    with running_main_server() as main_server:
        settings = {"auth.url": main_server.url()}
        with running_farm(tmp_path / "data", settings, environment=mirror.environment(tmp_path)) as farm:
            assert refused(farm).status == 403
            main_server.stop()
            main_server.start()
            with Mirror(farm, cookie="does=yes") as device:
                device.check()


def test_a_cookie_of_one_answer_is_not_shown_for_another_client(farm: Farm, main_server: MainServer) -> None:
    with Mirror(farm, cookie="does=sets-a-cookie") as device:
        device.check()
    assert refused(farm, path="/mirror?after").status == 403
    (seen,) = main_server.seen(x_original_uri="/mirror?after")
    assert "cookie" not in seen


def test_a_page_of_another_host_cannot_use_its_visitors_cookies(farm: Farm) -> None:
    assert refused(farm, "does=yes", "Origin: https://elsewhere.example").status == 403
    with Raw(farm.device_port) as raw:
        raw.send(request("does=yes", "Origin: https://push"))
        assert raw.socket.recv(12) == b"HTTP/1.1 101"


def test_what_was_granted_ends_when_the_main_server_says_so(farm: Farm) -> None:
    client = websocket.create_connection(
        f"{farm.device_url}mirror", timeout=PATIENCE_S, cookie="does=twice.a", suppress_origin=True
    )
    opcode, data = client.recv_data()
    assert (opcode, int.from_bytes(data[:2], "big")) == (websocket.ABNF.OPCODE_CLOSE, 1008)
    assert data[2:] == b"the main server does not allow this any more"
    until(lambda: farm.counter("grants_ended") == 1, "it is counted")
    client.close()


def test_a_request_that_waits_outlives_the_router(farm: Farm) -> None:
    with Raw(farm.device_port) as raw:
        raw.send(request("does=late"))
        until(lambda: farm.status()["routers"][0]["auth_waiting"], "it is asked")
        os.kill(farm.router_pid(), signal.SIGKILL)
        assert raw.socket.recv(12) == b"HTTP/1.1 101"
    farm.wait_healthy()


def test_what_the_farm_counts(farm: Farm) -> None:
    with Mirror(farm, cookie="does=yes.counted") as device:
        device.check()
    assert refused(farm, "does=no.counted").status == 403
    router = farm.status()["routers"][0]
    assert router["auth_asked"] >= 2
    assert router["auth_allowed"] >= 1
    assert router["auth_refused"] >= 1
    assert router["auth_waiting"] == 0


def test_no_secret_is_in_the_log(farm: Farm) -> None:
    for does in ("yes", "no", "fails", "huge", "redirects"):
        cookie = f"does={does}; session=s3cr3t-cookie"
        with Raw(farm.device_port) as raw:
            raw.send(request(cookie, "Authorization: s3cr3t-bearer", path="/mirror?token=s3cr3t-token"))
            raw.socket.recv(12)
    with Raw(farm.device_port) as raw:
        raw.send(b"GET /mirror?token=s3cr3t-token HTTP/1.1\r\nCookie: session=s3cr3t-cookie\r\nbroken\r\n\r\n")
        raw.rest()
    for path in ("/update/s3cr3t-token", "/apps/3/events?auth_key=s3cr3t-token", "/pub?admin_key=s3cr3t-token"):
        assert curl("--header", "Cookie: session=s3cr3t-cookie", "--data", "x", farm.url(path)).status >= 400
    log = farm.log_file.read_text()
    assert "auth.undecided" in log
    assert not [secret for secret in SECRETS if secret in log]


def test_too_many_questions_are_refused_at_once_and_the_rest_are_answered(
    main_server: MainServer, tmp_path: Path
) -> None:
    settings = {
        "auth.url": main_server.url(),
        "auth.method": "post",
        "auth.timeout": 20,
        "worker.admission_timeout": 20,
        "auth.max_questions": 1,
        "auth.max_waiting": 3,
    }
    with (
        running_farm(tmp_path / "data", settings, environment=mirror.environment(tmp_path)) as farm,
        ExitStack() as stack,
    ):
        for number in range(3):
            stack.enter_context(Raw(farm.device_port)).send(request(f"does=late.gone-{number}"))
            until(lambda: farm.status()["routers"][0]["auth_waiting"] == number + 1, "it waits")  # noqa: B023
        stack.close()
        until(lambda: farm.status()["routers"][0]["auth_waiting"] == 0, "clients that have gone keep no place")
        waiting = [stack.enter_context(Raw(farm.device_port)) for _ in range(3)]
        for number, raw in enumerate(waiting):
            raw.send(request(f"does=late.{number}"))
        until(lambda: farm.status()["routers"][0]["auth_waiting"] == 3, "all wait")
        answer = refused(farm, "does=yes.more")
        assert (answer.status, int(answer.headers["retry-after"]) in range(15, 46)) == (503, True)
        assert b"auth.max_waiting" in answer.body
        for raw in waiting:
            assert raw.socket.recv(12) == b"HTTP/1.1 101"
    seen = [one["cookie"] for one in main_server.seen(method="POST")]
    assert sorted(seen) == ["does=late.0", "does=late.1", "does=late.2", "does=late.gone-0"]


def test_a_main_server_that_is_away_allows_nothing_new_and_what_there_is_goes_on(tmp_path: Path) -> None:
    with running_main_server() as main_server:
        settings = {"auth.url": main_server.url(), "auth.cache": 0}
        with running_farm(tmp_path / "data", settings, environment=mirror.environment(tmp_path)) as farm:
            device = Mirror(farm, cookie="does=for-a-second")
            device.check()
            main_server.stop()
            answer = refused(farm, "does=yes")
            assert (answer.status, answer.body) == (503, b"the main server cannot be asked now\n")
            renewed = farm.counter("grants_renewed")
            until(lambda: farm.counter("grants_renewed") > renewed, "it is asked again")
            device.check()
            main_server.start()
            renewed = farm.counter("grants_renewed")
            until(lambda: farm.counter("grants_renewed") > renewed + 2, "it is asked again, and goes on being asked")
            device.check()
            device.socket.close()


def test_every_dialect_works_where_the_main_server_allows_it(main_server: MainServer, tmp_path: Path) -> None:
    settings = dialects.settings(tmp_path) | {"auth.url": main_server.url("/open")}
    with running_farm(tmp_path / "data", settings) as farm, dialects.reached(farm) as check:
        check()
        assert farm.status()["routers"][0]["auth_allowed"] >= 1


def test_where_nobody_listens_nobody_is_allowed(tmp_path: Path) -> None:
    with deaf_port() as port:
        settings = {"auth.url": f"http://127.0.0.1:{port}/auth?key=s3cr3t-url"}
        with running_farm(tmp_path / "data", settings, environment=mirror.environment(tmp_path)) as farm:
            answer = refused(farm)
            assert (answer.status, int(answer.headers["retry-after"]) in range(15, 46)) == (503, True)
            (line, *_) = farm.events("auth.undecided")
            assert line["url"] == f"http://127.0.0.1:{port}/auth"
            assert "s3cr3t" not in farm.log_file.read_text()


def test_the_example_works_as_it_stands(tmp_path: Path) -> None:
    with running_main_server("main_server", "examples") as main_server:
        settings = {"auth.url": main_server.url()}
        with running_farm(tmp_path / "data", settings, environment=mirror.environment(tmp_path)) as farm:
            with Mirror(farm, cookie="session=8f2c") as device:
                device.check()
            answer = refused(farm, "session=other")
            assert (answer.status, answer.body) == (403, b"log in first\n")
