"""The commands' client of the admin port: where a farm answers, and what it answers, with errors in one line."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

from farm.admin_tokens import admin_tokens
from farm.control import ControlError
from farm.settings import AdminOptions
from router.common.admin_address import AddressError, AdminAddress, token_of_file
from router.common.files import FileError
from router.common.options import Settings
from router.common.settings import Listen
from router.core.managing import MAX_PAGE

API: Final = "/api/v1"
TIMEOUT_S: Final = 5.0
ACTION_S: Final = 15.0
"""What asks a router, or has it do something, may take longer than the status."""
_WITHHELD: Final = (
    "it wants a token, and that of the settings was not sent: it is for this machine, listen.admin_host and "
    "admin.hosts; give --token-file"
)
MAX_ANSWER_BYTES: Final = 16 * 2**20  # a row a worker; whatever answers with more is no farm


def base_url(settings: Settings) -> str:
    """Where the farm with these settings answers. For a wildcard address it is this machine.

    Raises: BadArgument if the port is not known from the settings.
    """
    listen = settings.get(Listen)
    if listen.admin_port == 0:
        raise BadArgument("listen.admin_port is 0 (a free port), so the settings do not have it: give --url")
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listen.admin_host, listen.admin_host)
    return f"http://{f'[{host}]' if ':' in host else host}:{listen.admin_port}"


class RefusedByFarm(ControlError):
    """The farm has answered, and says why it does not do it. code: of its error."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class BadArgument(ControlError):
    """The address or the token of a command cannot be used: nothing was asked."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """A redirection is an answer that is no farm's: another host would be sent the token."""


class AdminClient:
    """The admin port of one farm."""

    def __init__(self, address: AdminAddress, token: str = "", withheld: bool = False) -> None:
        """token: what is sent. withheld: there is one in the settings that this address is not sent."""
        self.url = address.url
        self._token = token
        self._withheld = withheld
        # Directly, never through a proxy; and nobody else gets the token.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect)

    @classmethod
    def of(cls, settings: Settings, url: str | None = None, token_file: Path | None = None) -> AdminClient:
        """That of the farm with these settings, or at this URL, with the token that was given for it (in the file, or
        in the URL), or that of the settings where it is meant for it (`router.common.admin_address`).

        Raises: BadArgument.
        """
        try:
            address = AdminAddress.of(url or base_url(settings))
            if token_file is not None and address.token:
                raise BadArgument("--token-file and a token in --url: give one of them")
            if token_file is not None:
                return cls(address, token_of_file("--token-file", token_file))
            if address.token:
                return cls(address, address.token)
            if not address.may_have((settings.get(Listen).admin_host, *settings.get(AdminOptions).hosts)):
                return cls(address, withheld=_has_token(settings))
            tokens = admin_tokens(settings)
        except AddressError as error:
            raise BadArgument(f"--url: {error}") from None
        except FileError as error:
            raise BadArgument(*error.problems) from None
        return cls(address, (tokens.act or tokens.read).decode())

    def status(self) -> Mapping[str, Any]:
        """The whole farm's status. Raises: ControlError if nothing answers there, or something that is no farm."""
        return self._request("GET", f"{self.url}/status", None, TIMEOUT_S)

    def get(self, *path: str, **query: Any) -> Mapping[str, Any]:
        """What a route of the API answers. path: its parts, as they are; query: None is left out.

        Raises: ControlError, with the farm's own words if it refuses.
        """
        return self.act("GET", *path, **query)

    def pages(self, *path: str, limit: int, after: str | None = None, **query: Any) -> Iterator[Mapping[str, Any]]:
        """The answers of a route that has pages, until there are no more or `limit` rows were asked for. A page tells
        the next one by `next`, itself or in one of its parts (`inbox`). Raises: ControlError."""
        while limit > 0:
            page = self.get(*path, limit=min(MAX_PAGE, limit), after=after, **query)
            yield page
            after = page["inbox"]["next"] if "inbox" in page else page["next"]
            if after is None:
                return
            limit -= MAX_PAGE

    def act(self, method: str, *path: str, body: Mapping[str, Any] | None = None, **query: Any) -> Mapping[str, Any]:
        """The same with another method, which may act."""
        given = {name: value for name, value in query.items() if value is not None}
        url = _joined(self.url, path) + (f"?{urlencode(given)}" if given else "")
        return self._request(method, url, None if body is None else json.dumps(body).encode(), ACTION_S)

    def _request(self, method: str, url: str, body: bytes | None, timeout: float) -> Mapping[str, Any]:
        request = urllib.request.Request(url, body, method=method)
        if body is not None:
            request.add_header("Content-Type", "application/json")
        if self._token:
            request.add_header("Authorization", f"Bearer {self._token}")
        try:
            with self._opener.open(request, timeout=timeout) as answer:
                found = json.loads(answer.read(MAX_ANSWER_BYTES))
        except urllib.error.HTTPError as exc:
            if exc.code == HTTPStatus.UNAUTHORIZED and self._withheld:
                raise ControlError(f"{self.url}: {_WITHHELD}") from None
            raise _refusal(url, exc) from None
        except TimeoutError:
            raise ControlError(f"{url}: no answer within {timeout:g} s: is the supervisor stopped?") from None
        except urllib.error.URLError as exc:
            reason = exc.reason.strerror or exc.reason if isinstance(exc.reason, OSError) else exc.reason
            raise ControlError(f"{url}: no farm answers there: {reason}") from None
        except (OSError, ValueError) as exc:
            raise ControlError(f"{url}: no status in the answer: {exc}") from None
        except http.client.HTTPException as exc:
            raise ControlError(f"{url}: no farm answers there: {type(exc).__name__}") from None
        if not isinstance(found, dict):
            raise ControlError(f"{url}: no status in the answer: expected a JSON object")
        return found


def _has_token(settings: Settings) -> bool:
    options = settings.get(AdminOptions)
    return any((options.token, options.token_file, options.read_token, options.read_token_file))


def _joined(url: str, path: tuple[str, ...]) -> str:
    return "/".join((url + API, *(quote(part, safe="") for part in path)))


def _refusal(url: str, answer: urllib.error.HTTPError) -> ControlError:
    """The farm's own words, if it is one."""
    try:
        error = json.loads(answer.read(MAX_ANSWER_BYTES))["error"]
        return RefusedByFarm(" ".join(str(error["message"]).split()), str(error["code"]))
    except (OSError, ValueError, KeyError, TypeError, http.client.HTTPException):
        return ControlError(f"{url}: answered {answer.code} {answer.reason}".rstrip())
