"""Who may ask the admin port for what: Host, page, token and role."""

import base64
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from support.common import settings_with

from farm.admin_tokens import admin_tokens, problems, without_tokens
from farm.settings import AdminOptions
from farm.supervisor.admin import application
from farm.supervisor.admin_access import WHY, AdminAccess
from farm.supervisor.api.frame import ROLE
from router.common.files import FileError
from router.common.options import Settings
from router.common.settings import Listen

ACT, READ = "a" * 32, "r" * 32
BOTH = {"token": ACT, "read_token": READ}
LISTENED = "192.0.2.7"


def settings(host: str = "127.0.0.1", **admin: Any) -> Settings:
    return settings_with((AdminOptions, admin), (Listen, {"admin_host": host}))


async def page(request: Request) -> Response:
    return JSONResponse({"role": request.scope.get(ROLE)})


PATHS = ("/health", "/live", "/ready", "/status", "/metrics", "/broadcasts/a")


class Port:
    """The pages behind the check, at an address."""

    def __init__(self, here: str, farm: Settings) -> None:
        self.settings = farm
        self.refused = dict.fromkeys(WHY, 0)
        pages = Starlette(routes=[Route(path, page, methods=["GET", "PUT", "POST"]) for path in PATHS])
        self.access = AdminAccess(pages, lambda: self.settings, self.refused)
        self._here = here

    def ask(self, path: str = "/status", method: str = "GET", host: str = "", **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}

        async def placed(scope: Any, receive: Any, send: Any) -> None:
            await self.access({**scope, "server": (self._here, 8082)}, receive, send)

        async def main() -> httpx.Response:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(placed), base_url="http://farm") as client:
                return await client.request(method, path, headers={"Host": host or f"{self._here}:8082", **named})

        return trio.run(main)


def bearer(token: str) -> str:
    return f"Bearer {token}"


def basic(token: str, user: str = "any") -> str:
    return "Basic " + base64.b64encode(f"{user}:{token}".encode()).decode()


# ---- Host


@pytest.mark.parametrize(
    ("here", "host", "status"),
    [
        ("127.0.0.1", "127.0.0.1:8082", 200),
        ("127.0.0.1", "localhost", 200),
        ("127.0.0.1", "LOCALHOST.:9", 200),
        ("127.0.0.1", "[::1]:8082", 200),
        ("127.0.0.1", "farm.internal:8082", 200),
        ("127.0.0.1", "evil.example:8082", 421),
        ("127.0.0.1", "localhost.evil.example", 421),
        ("127.0.0.1", "127.0.0.1.evil.example", 421),
        ("127.0.0.1", "192.0.2.7:8082", 421),
        ("127.0.0.1", "0.0.0.0:8082", 421),
        ("::1", "[::1]:8082", 200),
        ("", "127.0.0.1", 200),
        ("", ":8082", 421),
        (LISTENED, "192.0.2.7:8082", 200),
        (LISTENED, "198.51.100.3:8082", 200),  # of a machine that translates it
        (LISTENED, "0.0.0.0:8082", 421),
        (LISTENED, "evil.example", 421),
    ],
)
def test_a_host_that_may_be_a_pages_own_is_refused(here: str, host: str, status: int) -> None:
    port = Port(here, settings(hosts=("farm.internal",)))
    assert port.ask(host=host).status_code == status
    assert port.refused["host"] == (status == 421)
    for probe in ("/live", "/ready", "/health"):
        assert port.ask(probe, host=host).status_code == 200


# ---- pages of other sites


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "http://127.0.0.1:8082", "Sec_Fetch_Site": "same-origin"}, 200),
        ({"Sec_Fetch_Site": "none"}, 200),
        ({"Origin": "http://127.0.0.1:9"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec_Fetch_Site": "same-site"}, 403),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
    ],
)
def test_no_page_of_another_site_acts(headers: dict[str, str], status: int) -> None:
    port = Port("127.0.0.1", settings(token=ACT))
    assert port.ask("/broadcasts/a", "PUT", Authorization=basic(ACT), **headers).status_code == status
    assert port.refused["page"] == (status == 403)
    assert port.ask(Authorization=basic(ACT), **headers).status_code == 200, "to look is no act, and is not shown"


# ---- tokens and roles


def test_without_a_token_everything_is_allowed() -> None:
    assert Port("127.0.0.1", settings()).ask("/broadcasts/a", "PUT").json() == {"role": "act"}


@pytest.mark.parametrize("scheme", [bearer, basic])
def test_a_token_gives_its_role(scheme: Any) -> None:
    port = Port(LISTENED, settings("0.0.0.0", **BOTH))
    assert port.ask(Authorization=scheme(READ)).json() == {"role": "read"}
    assert port.ask(Authorization=scheme(ACT)).json() == {"role": "act"}
    assert port.ask("/broadcasts/a", "PUT", Authorization=scheme(ACT)).status_code == 200
    refused = port.ask("/broadcasts/a", "PUT", Authorization=scheme(READ))
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "forbidden")
    assert port.refused == {"host": 0, "page": 0, "token": 0, "role": 1}


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        bearer(ACT[:-1]),
        bearer(ACT + "x"),
        bearer(""),
        basic(""),
        basic(READ + ACT),
        "Basic " + ACT,
        "Basic =!",
        "Digest " + ACT,
        ACT,
    ],
)
def test_without_the_token_there_is_nothing_but_probes(authorization: str) -> None:
    port = Port(LISTENED, settings("0.0.0.0", token=ACT))
    for path in ("/status", "/metrics", "/nothing"):
        answer = port.ask(path, Authorization=authorization)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthorized")
        assert answer.headers["www-authenticate"].startswith('Basic realm="farm"')
    assert port.refused["token"] == 3
    assert port.ask("/health", Authorization=authorization).json() == {"role": None}


def test_who_has_only_the_reading_token_set_lets_nobody_act() -> None:
    port = Port("127.0.0.1", settings(read_token=READ))
    assert port.ask(Authorization=bearer(READ)).status_code == 200
    assert port.ask("/broadcasts/a", "PUT").status_code == 401
    assert port.ask("/broadcasts/a", "PUT", Authorization=bearer(READ)).status_code == 403


def test_what_acts_outside_of_the_api_leaves_a_line_too(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="farm")
    Port("127.0.0.1", settings()).ask("/broadcasts/a", "PUT")
    (line,) = [vars(record)["farm_fields"] for record in caplog.records if record.message == "admin.action"]
    assert (line["action"], line["target"], line["outcome"]) == ("PUT", "/broadcasts/a", "ok")


def test_a_websocket_gets_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    port, sent = Port("127.0.0.1", settings()), list[Any]()

    async def main() -> None:
        async def send(message: Any) -> None:
            sent.append(message)

        await port.access({"type": "websocket", "path": "/status", "headers": []}, None, send)

    trio.run(main)
    assert sent == [{"type": "websocket.close"}]


# ---- where the tokens come from


def secret(path: Path, text: str, mode: int = 0o600) -> str:
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def test_a_reload_takes_up_what_a_token_file_holds_now(tmp_path: Path) -> None:
    file = secret(tmp_path / "token", ACT + "\n")
    port = Port("127.0.0.1", settings(token_file=file))
    assert port.ask(Authorization=bearer(ACT)).status_code == 200
    secret(tmp_path / "token", READ)
    assert port.ask(Authorization=bearer(ACT)).status_code == 200
    port.settings = settings(token_file=file)
    assert port.ask(Authorization=bearer(ACT)).status_code == 401
    assert port.ask(Authorization=bearer(READ)).status_code == 200
    (tmp_path / "token").unlink()
    port.settings = settings(token_file=file)
    assert port.ask(Authorization=bearer(READ)).status_code == 200, "the one of before counts"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_on_this_machine_alone_no_token_is_needed(host: str) -> None:
    assert problems(settings(host)) == []


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "farm.example", "::ffff:192.0.2.1"])
def test_where_others_may_come_a_token_is_needed(host: str) -> None:
    (problem,) = problems(settings(host))
    assert host in problem and "admin.token_file" in problem
    assert problems(settings(host, token=ACT)) == []


def test_a_token_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    missing, file = str(tmp_path / "missing"), tmp_path / "file"
    for admin, words in (
        ({"token_file": missing}, "admin.token_file: .*missing.* cannot be read"),
        ({"token_file": secret(file, ACT, 0o644)}, "other users can read it .*0644.*chmod 600"),
        ({"read_token_file": secret(tmp_path / "short", "short")}, "admin.read_token_file: .*holds no token"),
        ({"token_file": str(file), "token": ACT}, "admin.token and admin.token_file are both set"),
    ):
        with pytest.raises(FileError, match=words):
            admin_tokens(settings(**admin))
        assert len(problems(settings(**admin))) == 1


def test_processes_that_need_no_token_do_not_get_it(tmp_path: Path) -> None:
    bare = without_tokens(settings(token=ACT, read_token_file=secret(tmp_path / "file", READ))).get(AdminOptions)
    assert (bare.token, bare.token_file, bare.read_token, bare.read_token_file) == ("", "", "", "")


@pytest.mark.parametrize(
    ("path", "status", "code"), [("/status", 405, "method_not_allowed"), ("/none", 404, "not_found")]
)
def test_what_there_is_not_is_an_error_in_json(path: str, status: int, code: str) -> None:
    async def nothing(*_: Any) -> Any:
        raise AssertionError

    async def main() -> httpx.Response:
        pages = httpx.ASGITransport(application(nothing, nothing, nothing, ()))
        async with httpx.AsyncClient(transport=pages, base_url="http://farm") as client:
            return await client.post(path)

    answer = trio.run(main)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    allowed = set(answer.headers.get("allow", "").split(", "))  # in any order
    assert allowed == ({"GET", "HEAD"} if status == 405 else {""})
