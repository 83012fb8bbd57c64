"""Push stream, device side: requests that are refused before anything is asked, or end while it is."""

import pytest
from support.pushstream_shard import Answer, site

from router.common import messages as m
from router.common.close_codes import TRY_LATER
from router.dialects.pushstream.protocol import DELETED, channel_address

WEBSOCKET = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}


def lines(**changed: str) -> list[str]:
    """Headers of an upgrade, some of them with other values. changed: with _ for -; empty: it is left out."""
    headers = WEBSOCKET | {name.replace("_", "-"): value for name, value in changed.items()}
    return [f"{name}: {value}" for name, value in headers.items() if value]


@pytest.mark.parametrize("version", ["8", "13"])
def test_both_versions_of_websocket_are_spoken(version: str) -> None:
    with site() as here:
        client = here.plain("/ws/a", *lines(Sec_WebSocket_Version=version))
        assert client.until(b"\r\n\r\n").startswith(b"HTTP/1.1 101 ")
        here.answer()
        here.shard.sockets.close(here.shard.sockets.open_connections()[0], 1005, "")
        assert client.until(b"\x88\x00") == b"\x88\x00"


@pytest.mark.parametrize("name", WEBSOCKET)
def test_what_is_no_upgrade_is_told_what_is_missing(name: str) -> None:
    with site() as here:
        answer = Answer(here.plain("/subscribe/a", *lines(**{name.replace("-", "_"): ""})))
        assert answer.status == 400
        assert answer.headers["x-nginx-pushstream-explain"].startswith("Don't have at least one of the mandatory")


def test_another_version_of_websocket_is_told_which_there_are() -> None:
    with site() as here:
        answer = Answer(here.plain("/ws/a", *lines(Sec_WebSocket_Version="7")))
        assert (answer.status, answer.headers["sec-websocket-version"]) == (400, "8, 13")
        why = answer.headers["x-nginx-pushstream-explain"]
        assert why == "Version not supported. Supported versions: 8, 13"


@pytest.mark.parametrize("path", ["/sub/a", "/ev/a"])
def test_an_answer_that_refuses_has_no_header_and_no_footer(path: str) -> None:
    with site(header_template="HEADER", footer_template="FOOTER") as here:
        client = here.plain(path)
        here.answer(full=m.Subscribe)
        answer = client.rest()
        assert answer.startswith(b"HTTP/1.1 403 ")
        assert answer.endswith(b"\r\n\r\n0\r\n\r\n")
        assert b"FOOTER" not in answer
        assert b"HEADER" not in answer


@pytest.mark.parametrize("mode", ["ev", "sub", "lp"])
def test_a_client_for_which_too_much_is_held_is_answered(mode: str) -> None:
    with site() as here:
        client = here.plain(f"/{mode}/a")
        (connection,) = here.shard.sockets.open_connections()
        here.shard.sockets.close(connection, TRY_LATER, "more came than may wait for a subscription")
        answer = Answer(client)
        assert (answer.status, "retry-after" in answer.headers) == (503, True)


@pytest.mark.parametrize("mode", ["ev", "sub", "lp"])
def test_a_client_whose_channel_is_deleted_while_it_waits_is_answered(mode: str) -> None:
    with site() as here:
        client = here.plain(f"/{mode}/a")
        here.shard.sockets.received([m.Terminate(channel_address("a"), DELETED, "")])
        if mode == "lp":
            assert Answer(client).status == 304
        else:
            answer = client.rest()
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert answer.endswith(b"\r\n0\r\n\r\n")
