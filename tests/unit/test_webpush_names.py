"""WebPush: how messages and channels are named in the store and on the wire."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.common import settings_with
from support.webpush_app import CHID, URL

from router.common.settings import EndpointOptions, Listen
from router.dialects.webpush.protocol import (
    NAME,
    base_url,
    channel_bytes,
    channel_id,
    channel_of,
    parse_wire,
    plain_slot,
    topic_slot,
    wire_version,
)

# ---- names

numbers = st.integers(0, 2**63 - 1)
ids = st.binary(min_size=16, max_size=16).map(channel_id)
topics = st.from_regex(r"[A-Za-z0-9_-]{1,32}", fullmatch=True)


@given(numbers, ids)
def test_a_plain_message_is_found_by_its_name_on_the_wire(number: int, chid: str) -> None:
    slot = plain_slot(number, chid)
    assert channel_of(slot) == chid
    assert parse_wire(chid, wire_version(slot, number)) == (slot, number)


@given(numbers, ids, topics)
def test_a_message_with_a_topic_is_found_by_its_name_on_the_wire(number: int, chid: str, topic: str) -> None:
    slot = topic_slot(chid, topic)
    assert channel_of(slot) == chid
    assert parse_wire(chid, wire_version(slot, number)) == (slot, number)


@given(numbers, numbers, ids, ids, topics)
def test_slots_sort_as_they_are_delivered(one: int, two: int, chid: str, other: str, topic: str) -> None:
    assert topic_slot(chid, topic) < plain_slot(one, other)
    if one < two:
        assert plain_slot(one, chid) < plain_slot(two, other)
        slot = topic_slot(chid, topic)
        assert wire_version(slot, one) != wire_version(slot, two) != plain_slot(two, chid)


@pytest.mark.parametrize(
    "wire",
    [
        "",
        "0",
        "#",
        "0" * 15,
        "0" * 17,
        "8" + "0" * 15,
        "f" * 16,
        "0" * 15 + "A",
        "0" * 15 + "g",
        "0" * 16 + "#",
        "0" * 16 + "#a b",
        "0" * 16 + "#" + "x" * 33,
        "0" * 16 + ":x",
        "0" * 16 + "\n",
        " " + "0" * 16,
        "\u0660" * 16,
        "0" * 10_000,
    ],
)
def test_versions_that_name_nothing_of_ours(wire: str) -> None:
    assert parse_wire(CHID, wire) is None


@pytest.mark.parametrize(
    "chid", ["", "x", CHID.upper(), CHID.replace("-", ""), CHID + "0", CHID + "\n", "{" + CHID + "}", "g" + CHID[1:]]
)
def test_channel_ids_that_are_none(chid: str) -> None:
    assert parse_wire(chid, "0" * 16) is None


@given(st.uuids())
def test_channel_ids_are_uuids(chid: Any) -> None:
    assert channel_bytes(str(chid)) == chid.bytes
    assert channel_id(chid.bytes) == str(chid)


def test_endpoints_begin_with_the_public_base() -> None:
    assert base_url(settings_with((EndpointOptions, {"url": URL}))) == URL
    listen = {"host": "127.0.0.1", "router_port": 4711}
    assert base_url(settings_with((Listen, listen))) == "http://127.0.0.1:4711"
    assert NAME == "webpush"
