"""Whose request it is that proxies have passed on."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.common.client_address import Networks, client_address
from router.common.forwarded import MAX_PROXIES, ForwardedError, forwarded_address

PROXY = "10.0.0.1"
TRUSTED = Networks(("10.0.0.0/8", "fd00::/8", "192.0.2.1"))


def found(peer: str = PROXY, new: bytes | None = None, old: bytes | None = None) -> str:
    headers = {b"forwarded": new, b"x-forwarded-for": old}
    return forwarded_address(peer, {name: value for name, value in headers.items() if value is not None}, TRUSTED)


def test_networks() -> None:
    assert "10.255.0.1" in TRUSTED
    assert "11.0.0.1" not in TRUSTED
    assert "fdff::1" in TRUSTED
    assert "fe00::1" not in TRUSTED
    assert "192.0.2.1" in TRUSTED
    assert "192.0.2.2" not in TRUSTED
    assert "" not in TRUSTED
    assert "fd00::1%eth0" in TRUSTED
    assert client_address(("::ffff:10.0.0.1", 1, 0, 0)) in TRUSTED
    assert "10.0.0.1" not in Networks(())
    assert TRUSTED
    assert not Networks(())
    everything = Networks(("0.0.0.0/0", "::/0"))
    assert "1.2.3.4" in everything
    assert "::" in everything


XFF = {
    b"203.0.113.9": "203.0.113.9",
    b"1.1.1.1, 203.0.113.9": "203.0.113.9",  # what stands before was sent by the client
    b"203.0.113.9, 10.2.3.4": "203.0.113.9",
    b"203.0.113.9,10.2.3.4 ,\tfd00::5": "203.0.113.9",
    b"10.2.3.4, 10.2.3.5": "10.2.3.4",  # all are ours: the farthest
    b"203.0.113.9:4711": "203.0.113.9",
    b"[2001:db8::7]:4711": "2001:db8::7",
    b"[2001:DB8::7]": "2001:db8::7",
    b"2001:db8::7": "2001:db8::7",
    b"::ffff:203.0.113.9": "203.0.113.9",
    b"garbage, 203.0.113.9": "203.0.113.9",
    b"203.0.113.9, unknown": PROXY,
    b"203.0.113.9, unknown, 10.0.0.9": "10.0.0.9",
    b"": PROXY,
    b",": PROXY,
    b"203.0.113.9,": PROXY,
    b"999.0.0.1": PROXY,
    b"0xA.0.0.1": PROXY,
    b"fe80::1%eth0": PROXY,
    b"1.2.3.4:5:6": PROXY,
}

NEW = {
    b"for=203.0.113.9": "203.0.113.9",
    b"For=203.0.113.9;proto=https;by=10.0.0.1": "203.0.113.9",
    b"by=10.0.0.1 ; for=203.0.113.9": "203.0.113.9",
    b'for="[2001:db8:cafe::17]:4711"': "2001:db8:cafe::17",
    b'for="203.0.113.9:80"': "203.0.113.9",
    b"for=1.1.1.1, for=203.0.113.9": "203.0.113.9",
    b"for=203.0.113.9, for=10.1.1.1,for=10.1.1.2": "203.0.113.9",
    b'for="_gazonk"': PROXY,
    b"for=unknown": PROXY,
    b'for="203.0.113.9:_port"': "203.0.113.9",
    b"for=203.0.113.9, for=unknown": PROXY,
    b"proto=https": PROXY,
    b"for=203.0.113.9, proto=https": PROXY,
    b"": PROXY,
    b'for="203.0.113\\.9"': "203.0.113.9",
    b'secret="a, for=1.1.1.1;for=2.2.2.2";for=203.0.113.9': "203.0.113.9",
    b", for=203.0.113.9": "203.0.113.9",
}


@pytest.mark.parametrize("value", XFF)
def test_x_forwarded_for(value: bytes) -> None:
    assert found(old=value) == XFF[value]


@pytest.mark.parametrize("value", NEW)
def test_forwarded(value: bytes) -> None:
    assert found(new=value) == NEW[value]


@pytest.mark.parametrize(
    "value",
    [
        b"for",
        b"for=",
        b"for=[2001:db8::1]",  # has to be quoted
        b"for=1.2.3.4:80",
        b'for="',
        b'for=", for=203.0.113.9',  # a client's quotation mark swallows nothing
        b'for=", for="[2001:db8::7]"',
        b"for=1.1.1.1 for=2.2.2.2",
        b"for=1.1.1.1;for=2.2.2.2",
        b"for = 1.1.1.1",
        b"for=1.1.1.1;;proto=http",
    ],
)
def test_a_malformed_forwarded_is_refused(value: bytes) -> None:
    with pytest.raises(ForwardedError):
        found(new=value)


def test_who_is_no_proxy_says_nothing() -> None:
    assert found("203.0.113.5", new=b"for=1.1.1.1", old=b"2.2.2.2") == "203.0.113.5"
    assert found("203.0.113.5", new=b'for="') == "203.0.113.5"
    assert found("", old=b"2.2.2.2") == ""
    assert found() == PROXY


def test_two_headers_must_agree() -> None:
    assert found(new=b"for=203.0.113.9", old=b"203.0.113.9, 10.1.1.1") == "203.0.113.9"
    with pytest.raises(ForwardedError, match="disagree"):
        found(new=b"for=203.0.113.9", old=b"203.0.113.8")
    with pytest.raises(ForwardedError, match="disagree"):
        found(new=b"for=unknown", old=b"203.0.113.8")


@pytest.mark.parametrize("join", [b", ", b", for="])
def test_the_way_has_an_end(join: bytes) -> None:
    way = join.join([b"203.0.113.9", *(b"10.0.0.%d" % number for number in range(MAX_PROXIES))])
    got = found(old=way) if join == b", " else found(new=b"for=" + way)
    assert got == "10.0.0.0"


@given(st.lists(st.sampled_from([*XFF, b'"', b"=", b";"]), max_size=5), st.binary(max_size=30))
def test_what_a_client_sends_changes_nothing(before: list[bytes], odd: bytes) -> None:
    """The nearest proxy adds the client's address behind whatever it was sent."""
    assert found(old=b", ".join([*before, odd.replace(b",", b""), b"203.0.113.9"])) == "203.0.113.9"
    with contextlib.suppress(ForwardedError):
        assert found(new=b", ".join([*before, odd, b"for=203.0.113.9;proto=https"])) == "203.0.113.9"


def test_what_is_remembered_is_bounded_and_right() -> None:
    networks = Networks(("10.0.0.0/8",))
    for _ in range(2):
        for number in range(3000):
            text = f"{number % 2 + 10}.0.{number // 256}.{number % 256}"
            assert (text in networks) == (number % 2 == 0)
    assert len(networks._asked) <= 1024
