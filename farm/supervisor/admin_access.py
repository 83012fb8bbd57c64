"""Who may ask the admin port for what: Host, page, token and role of each request, before any page sees it.

| what is checked | of which requests | against |
|---|---|---|
| Host names this port: an address of it, a loopback name, or one of `admin.hosts` | all | DNS rebinding |
| neither Origin nor Sec-Fetch-Site names another site's page | all that act | forged requests |
| Authorization has one of the tokens, as Bearer or as the password of Basic | all, if there is a token | all others |
| its role is act | all that act | those who may only read |

Every method acts but GET, HEAD and OPTIONS. `/live`, `/ready` and `/health` are open to all: probes have none of these.
The tokens are those of the settings in force: a reload reads them, and the files that they stand in, anew.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
import re
from collections.abc import Callable
from typing import Any, Final

from farm.admin_tokens import AdminTokens, admin_tokens
from farm.settings import AdminOptions
from farm.supervisor.api.frame import ACT, FORBIDDEN, MISDIRECTED, PREFIX, READ, ROLE, UNAUTHORIZED, error
from router.common import logs, pages
from router.common.admin_address import is_loopback
from router.common.errors import MendableError
from router.common.log_forms import printable
from router.common.options import Settings
from router.common.settings import Listen

OPEN: Final = frozenset(("/live", "/ready", "/health"))
_TOKEN_NEEDED: Final = "admin.token is needed, as `Authorization: Bearer TOKEN` or as the password of Basic"
_READING: Final = frozenset(("GET", "HEAD", "OPTIONS"))
_CHALLENGE: Final = {"WWW-Authenticate": 'Basic realm="farm", charset="UTF-8"'}
_PORT: Final = re.compile(r":[0-9]{1,5}\Z")
_HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
)
WHY: Final = ("host", "page", "token", "role")
"""What a request may be refused for."""

Scope = dict[str, Any]


class _Refused(Exception):
    def __init__(self, why: str, code: str, message: str) -> None:
        super().__init__(message)
        self.why = why
        self.code = code
        self.message = message


class AdminAccess:
    """An ASGI application in front of the pages."""

    def __init__(self, app: Any, settings: Callable[[], Settings], refused: dict[str, int]) -> None:
        """settings: those in force. refused: counts requests that are refused, by why (`WHY`). Raises: FileError."""
        self._app = app
        self._settings = settings
        self._known = settings()
        self._tokens = admin_tokens(self._known)
        self._refused = refused

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """Refuse a request, or pass it on with its role (`ROLE`)."""
        if scope["type"] == "websocket":  # no page here has one
            await send({"type": "websocket.close"})
            return
        if scope["type"] != "http" or scope["path"] in OPEN:
            await self._app(scope, receive, send)
            return
        try:
            scope[ROLE] = self.role(scope)
        except _Refused as refused:
            self._refused[refused.why] += 1
            client = (scope.get("client") or ("",))[0]
            asked = f"{scope['method']} {_path(scope)}"
            logs.limited("admin.refused", per=refused.why, why=refused.why, address=client, asked=asked)
            challenge = _CHALLENGE if refused.code == UNAUTHORIZED else None
            await error(refused.code, refused.message, challenge)(scope, receive, _guarded(send))
            return
        if scope["method"] in _READING or scope["path"].startswith(f"{PREFIX}/"):  # which logs what acts itself
            await self._app(scope, receive, _guarded(send))
        else:
            await self._act(scope, receive, send)

    def role(self, scope: Scope) -> str:
        """The role of a request. Raises: _Refused."""
        headers = dict(scope["headers"])
        acts = scope["method"] not in _READING
        self._check_host(headers, scope)
        if acts:
            _check_page(headers)
        tokens = self._current()
        role = ACT if not tokens else _role_of(headers.get(b"authorization", b""), tokens)
        if role is None:
            raise _Refused("token", UNAUTHORIZED, _TOKEN_NEEDED)
        if acts and role != ACT:
            raise _Refused("role", FORBIDDEN, "this token may only read: admin.token may act")
        return role

    def _current(self) -> AdminTokens:
        settings = self._settings()
        if settings is not self._known:
            self._known = settings
            try:
                self._tokens = admin_tokens(settings)
            except MendableError as wrong:
                logs.error("admin.tokens_unread", why=str(wrong))
        return self._tokens

    def _check_host(self, headers: dict[bytes, bytes], scope: Scope) -> None:
        given = _PORT.sub("", pages.host(headers)).rstrip(".").removeprefix("[").removesuffix("]")
        here = (scope.get("server") or ("",))[0]
        if is_loopback(given) or (given and given == here.lower()):
            return
        settings = self._settings()
        if given in (settings.get(Listen).admin_host.lower(), *settings.get(AdminOptions).hosts):
            return
        if not is_loopback(here) and _is_address(given):  # a translated one: a name could be rebound, an address cannot
            return
        raise _Refused("host", MISDIRECTED, "the Host header is no name of the admin port: put it into admin.hosts")

    async def _act(self, scope: Scope, receive: Any, send: Any) -> None:
        """A page outside of the API that acts: the line of the API's `admin.action` for it."""
        outcome = "failed"

        async def noted(message: dict[str, Any]) -> None:
            nonlocal outcome
            if message["type"] == "http.response.start":
                outcome = "ok" if message["status"] < 400 else str(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, _guarded(noted))
        finally:
            logs.event(
                "admin.action",
                role=scope[ROLE],
                address=(scope.get("client") or ("",))[0],
                action=scope["method"],
                target=_path(scope),
                arguments="",
                outcome=outcome,
                request_id="",
            )


def _path(scope: Scope) -> str:
    path: str = scope["path"]
    return printable(path[:200])


def _guarded(send: Any) -> Any:
    """Every answer says that it is for pages of this origin alone."""

    async def sent(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *_HEADERS]}
        await send(message)

    return sent


def _check_page(headers: dict[bytes, bytes]) -> None:
    """Raises: _Refused for what a page of another site has a browser send."""
    origin = headers.get(b"origin", b"").decode("latin-1")
    foreign = bool(origin) and pages.authority(origin) != pages.authority(f"http://{pages.host(headers)}")
    if foreign or headers.get(pages.SITE, b"none") not in (b"none", b"same-origin"):
        raise _Refused("page", FORBIDDEN, "a page of another site has sent this request")


def _role_of(authorization: bytes, tokens: AdminTokens) -> str | None:
    """The role of what an Authorization header has; None: none of the tokens. As long whatever is wrong with it."""
    scheme, _, credentials = authorization.partition(b" ")
    given = credentials.strip(b" ")
    if scheme.lower() == b"basic":
        try:
            given = base64.b64decode(given, validate=True).partition(b":")[2]
        except binascii.Error:
            given = b""
    elif scheme.lower() != b"bearer":
        given = b""
    may_act = hmac.compare_digest(given, tokens.act)
    may_read = hmac.compare_digest(given, tokens.read)
    if not given:
        return None
    return ACT if may_act else READ if may_read else None


def _is_address(host: str) -> bool:
    try:
        return not ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False
