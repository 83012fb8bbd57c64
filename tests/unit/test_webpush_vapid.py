"""VAPID headers with real signatures: what is taken, what is refused and why, and what is remembered of it."""

import hashlib
import hmac
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st
from support.common import Clock
from support.webpush_vapid import HEADER, Sender, b64

from router.dialects.webpush.vapid import (
    Recent,
    Vapid,
    VapidError,
    audiences,
    decode_base64url,
    encode_base64url,
    key_digest,
    parameters,
    public_key,
)

URL = "https://push.example.org/base"
ORIGIN = "https://push.example.org"
DAY = 86_400
SENDER, OTHER = Sender(), Sender()
DIGEST = hashlib.sha256(SENDER.raw).digest()


class Gate:
    """A checker and its clock."""

    def __init__(self, **options: int) -> None:
        self.clock = Clock()
        self.clock.unix_s += 0.5
        limits = {"max_age": DAY, "leeway": 10, "max_bytes": 2048, "cache": 10} | options
        self.vapid = Vapid(URL, unix_time=self.clock.unix, **limits)

    def claims(self, **changes: Any) -> dict[str, Any]:
        claims = {"aud": ORIGIN, "exp": int(self.clock.unix()) + 3600, "sub": "mailto:a@example.org"} | changes
        return {name: value for name, value in claims.items() if value is not None}

    def refusal(self, authorization: bytes | str, crypto_key: bytes | str = b"") -> str:
        """Why it is refused."""
        header = authorization.encode() if isinstance(authorization, str) else authorization
        key = crypto_key.encode() if isinstance(crypto_key, str) else crypto_key
        with pytest.raises(VapidError) as found:
            self.vapid.check(header, key)
        return str(found.value)


# ---- what is taken


@pytest.mark.parametrize(
    "text",
    [
        "vapid t={t},k={k}",
        "vapid t={t}, k={k}",
        "vapid k={k}, t={t}",
        "VAPID  T={t} ,\tK={k}",
        'vapid t="{t}", k="{k}"',
        "vapid t={t}, k={k}=",
        "vapid t={t};k={k}",
        "vapid t={t}, k={k}, x=y, , z",
    ],
)
def test_the_scheme_of_the_standard(text: str) -> None:
    gate = Gate()
    header = text.format(t=SENDER.token(gate.claims()), k=SENDER.public).encode()
    assert gate.vapid.check(header) == DIGEST == key_digest(SENDER.raw)


@pytest.mark.parametrize("scheme", ["WebPush", "webpush", "Bearer", "bearer"])
@pytest.mark.parametrize(
    "crypto_key", ["p256ecdsa={k}", "dh=AAAA;p256ecdsa={k}", "keyid=a;dh=AAAA, P256ECDSA={k}", 'p256ecdsa="{k}="']
)
def test_the_schemes_of_the_drafts(scheme: str, crypto_key: str) -> None:
    gate = Gate()
    header = f"{scheme} {SENDER.token(gate.claims())}".encode()
    assert gate.vapid.check(header, crypto_key.format(k=SENDER.public).encode()) == DIGEST


@pytest.mark.parametrize(
    "changes",
    [
        {"sub": None},
        {"sub": 5},
        {"sub": "nonsense"},
        {"aud": ORIGIN + "/"},
        {"aud": ORIGIN + ":443"},
        {"aud": "HTTPS://Push.Example.ORG"},
        {"aud": ["https://elsewhere.example.org", ORIGIN]},
        {"exp": 1_700_000_001},
        {"exp": 1_700_000_000.75},
        {"exp": 1_700_000_000 + DAY},
        # The clocks of sender and farm may differ a little, both ways.
        {"exp": 1_700_000_000 - 9},
        {"exp": 1_700_000_000 + DAY + 10},
        {"nbf": 0, "iat": "x", "more": {"deep": [1, None]}},
    ],
)
def test_claims_that_are_good(changes: dict[str, Any]) -> None:
    gate = Gate()
    assert gate.vapid.check(SENDER.vapid(gate.claims(**changes))) == DIGEST


@pytest.mark.parametrize("header", [{"alg": "ES256"}, HEADER | {"kid": "1"}, HEADER | {"typ": "x"}])
def test_headers_of_a_jwt_that_are_good(header: dict[str, Any]) -> None:
    gate = Gate()
    assert gate.vapid.check(SENDER.vapid(gate.claims(), header)) == DIGEST


def test_what_pywebpush_and_web_push_send_alike() -> None:
    gate = Gate()
    claims = json.dumps(gate.claims(), separators=(",", ":")).encode()
    assert gate.vapid.check(SENDER.vapid(claims, b'{"typ":"JWT","alg":"ES256"}')) == DIGEST
    assert gate.vapid.check(SENDER.vapid(b" " + claims + b"\n", b'{"alg":"ES256","typ":"JWT"}')) == DIGEST


def test_without_a_leeway_exp_is_exact() -> None:
    gate = Gate(leeway=0)
    assert gate.vapid.check(SENDER.vapid(gate.claims(exp=1_700_000_001))) == DIGEST
    assert "in the past" in gate.refusal(SENDER.vapid(gate.claims(exp=1_700_000_000)))
    assert "ahead" in gate.refusal(SENDER.vapid(gate.claims(exp=1_700_000_001 + DAY)))


def test_a_clock_that_is_set_is_asked_each_time() -> None:
    gate = Gate()
    header = SENDER.vapid(gate.claims())
    gate.vapid.check(header)
    gate.clock.unix_s += 7200
    assert "in the past" in gate.refusal(header)
    gate.clock.unix_s -= 7200
    gate.vapid.check(header)


# ---- what is refused


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"exp": None}, "claims with aud and exp"),
        ({"exp": "1700003600"}, "claims with aud and exp"),
        ({"exp": True}, "claims with aud and exp"),
        ({"exp": [1_700_003_600]}, "claims with aud and exp"),
        ({"exp": 0}, "in the past"),
        ({"exp": -5}, "in the past"),
        ({"exp": 1_700_000_000 - 10}, "in the past"),
        ({"exp": 1_700_000_000 + DAY + 11}, "more than 86400 s ahead"),
        ({"exp": 1_700_003_600_000}, "more than 86400 s ahead"),
        ({"exp": 2**63}, "more than 86400 s ahead"),
        ({"exp": 1e300}, "more than 86400 s ahead"),
        ({"exp": 10**200}, "more than 86400 s ahead"),
        ({"aud": None}, "claims with aud and exp"),
        ({"aud": 5}, "claims with aud and exp"),
        ({"aud": ""}, "aud is not"),
        ({"aud": []}, "aud is not"),
        ({"aud": [5]}, "claims with aud and exp"),
        ({"aud": "https://elsewhere.example.org"}, "aud is not"),
        ({"aud": "http://push.example.org"}, "aud is not"),
        ({"aud": ORIGIN + ":8443"}, "aud is not"),
        ({"aud": ORIGIN + ".evil.example"}, "aud is not"),
        ({"aud": "push.example.org"}, "aud is not"),
        ({"aud": ORIGIN + "/base"}, "aud is not"),
    ],
)
def test_claims_that_are_not_good(changes: dict[str, Any], why: str) -> None:
    gate = Gate()
    assert why in gate.refusal(SENDER.vapid(gate.claims(**changes)))


@pytest.mark.parametrize(
    "claims",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"1",
        b'"x"',
        b"{",
        b"\xff",
        b'{"exp":1700003600,"aud":"\xff"}',
        b'{"exp":' + b"9" * 400 + b',"aud":"' + ORIGIN.encode() + b'"}',
        b'{"exp":1e999,"aud":"' + ORIGIN.encode() + b'"}',
        b'{"exp":NaN,"aud":"' + ORIGIN.encode() + b'"}',
        b'{"x":' + b"[" * 600 + b"]" * 600 + b"}",
    ],
)
def test_claims_that_are_no_claims(claims: bytes) -> None:
    gate = Gate()
    gate.refusal(SENDER.vapid(claims))
    assert gate.vapid.verified == gate.vapid.cached == 0


@pytest.mark.parametrize(
    "header",
    [
        {"typ": "JWT"},
        {"alg": None},
        {"alg": "none"},
        {"alg": "None"},
        {"alg": "es256"},
        {"alg": "HS256"},
        {"alg": "RS256"},
        {"alg": "ES384"},
        {"alg": "ES256K"},
        {"alg": ["ES256"]},
        {"alg": "ES256", "crit": ["exp"]},
        [],
        b"{",
        b"",
        b"\xff",
    ],
)
def test_headers_of_a_jwt_that_are_not_good(header: Any) -> None:
    gate = Gate()
    assert "JWT" in gate.refusal(SENDER.vapid(gate.claims(), header))


def test_alg_none_needs_no_signature_and_gets_nowhere() -> None:
    gate = Gate()
    head, claims = b64(json.dumps({"alg": "none"}).encode()), b64(json.dumps(gate.claims()).encode())
    for signature in ("", "AA", b64(SENDER.sign(f"{head}.{claims}".encode()))):
        gate.refusal(f"vapid t={head}.{claims}.{signature}, k={SENDER.public}")


def test_hs256_with_the_public_key_as_its_secret() -> None:
    gate = Gate()
    signed = f"{b64(json.dumps({'alg': 'HS256'}).encode())}.{b64(json.dumps(gate.claims()).encode())}"
    for secret in (SENDER.raw, SENDER.public.encode()):
        signature = hmac.new(secret, signed.encode(), "sha256").digest()
        assert "ES256" in gate.refusal(f"vapid t={signed}.{b64(signature)}, k={SENDER.public}")


def test_another_ones_key_and_altered_parts() -> None:
    gate = Gate()
    token = SENDER.token(gate.claims())
    assert "not made with this key" in gate.refusal(f"vapid t={token}, k={OTHER.public}")
    head, claims, signature = token.split(".")
    later = b64(json.dumps(gate.claims(exp=int(gate.clock.unix()) + 7200)).encode())
    for forged in (
        f"{head}.{later}.{signature}",
        f"{b64(b' ' + json.dumps(HEADER).encode())}.{claims}.{signature}",
        f"{head}.{claims}.{b64(bytes(64))}",
        f"{head}.{claims}.{b64(bytes([255]) * 64)}",
        f"{head}.{claims}.{b64(OTHER.sign(f'{head}.{claims}'.encode()))}",
    ):
        assert "not made with this key" in gate.refusal(f"vapid t={forged}, k={SENDER.public}")
    assert gate.vapid.cached == 0


@pytest.mark.parametrize(
    "forge",
    [
        "",
        ".",
        "..",
        "...",
        "{h}.{c}",
        "{h}.{c}.",
        "{h}..{s}",
        ".{c}.{s}",
        "{h}.{c}.{s}.{s}",
        "{h}.{c}.{s}=",
        "{h}.{c}.{s}==",
        "{h}=.{c}.{s}",
        "{h}.{c}.A{s}",
        "{h}.{c}.{s}A",
        "{h}.{c}.*{s}",
        "{h}.{c}.{s}AA",
        "{h}.{c}.\xfc",
        "{h} .{c}.{s}",
        "AAAA.AAAA.AAAA",
        "x",
    ],
)
def test_garbage_in_place_of_a_jwt(forge: str) -> None:
    gate = Gate()
    head, claims, signature = SENDER.token(gate.claims()).split(".")
    token = forge.format(h=head, c=claims, s=signature)
    gate.refusal(f"vapid t={token}, k={SENDER.public}".encode("latin-1"))
    gate.refusal(f"WebPush {token}".encode("latin-1"), f"p256ecdsa={SENDER.public}")


def test_a_signature_has_one_spelling() -> None:
    gate = Gate()
    token = SENDER.token(gate.claims())
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    # 64 bytes are 85 characters and 2 bits: the last character has 4 bits that mean nothing and must be zero.
    others = [token[:-1] + alphabet[alphabet.index(token[-1]) | bits] for bits in range(1, 16)]
    for other in others:
        assert "base64url" in gate.refusal(f"vapid t={other}, k={SENDER.public}")


def test_the_alphabet_is_the_one_of_urls() -> None:
    gate = Gate()
    while True:
        token = SENDER.token(gate.claims())
        if "-" in token or "_" in token:
            break
    standard = token.replace("-", "+").replace("_", "/")
    assert "base64url" in gate.refusal(f"vapid t={standard}, k={SENDER.public}")


@pytest.mark.parametrize(
    "key",
    [
        "",
        "x",
        "*",
        b64(SENDER.raw[1:]),
        b64(SENDER.raw + b"x"),
        b64(b"\x04" + bytes(64)),
        b64(b"\x04" + b"\xff" * 64),
        b64(b"\x05" + SENDER.raw[1:]),
        b64(b"\x06" + SENDER.raw[1:]),
        b64(SENDER.raw[:-1] + bytes([SENDER.raw[-1] ^ 1])),
        b64(SENDER.compressed),
        b64(Sender(ec.SECP384R1()).raw),
        SENDER.public + "==",
        "=" + SENDER.public,
        "A" * 1500,
    ],
)
def test_keys_that_are_none(key: str) -> None:
    gate = Gate()
    token = SENDER.token(gate.claims())
    assert "public key" in gate.refusal(f"vapid t={token}, k={key}")
    assert "public key" in gate.refusal(f"WebPush {token}", f"p256ecdsa={key}")
    with pytest.raises(VapidError, match="public key"):
        public_key(key.encode())


def test_a_public_key_with_padding_and_without() -> None:
    for text in (SENDER.public, SENDER.public + "="):
        assert public_key(text.encode()) == SENDER.raw


@pytest.mark.parametrize(
    ("authorization", "crypto_key"),
    [
        ("", ""),
        ("vapid", ""),
        ("vapid ", ""),
        ("vapid {t}", ""),
        ("vapid t={t}", ""),
        ("vapid t={t}", "p256ecdsa={k}"),
        ("vapid k={k}", ""),
        ("vapid t=,k=", ""),
        ("vapidt={t},k={k}", ""),
        ("WebPush {t}", ""),
        ("WebPush {t}", "dh={k}"),
        ("WebPush", "p256ecdsa={k}"),
        ("WebPush t={t},k={k}", ""),
        ("Basic {t}", "p256ecdsa={k}"),
        ("{t}", "p256ecdsa={k}"),
    ],
)
def test_headers_that_lack_something(authorization: str, crypto_key: str) -> None:
    gate = Gate()
    parts = {"t": SENDER.token(gate.claims()), "k": SENDER.public}
    gate.refusal(authorization.format(**parts), crypto_key.format(**parts))


def test_a_header_that_is_too_long_is_not_read() -> None:
    gate = Gate(max_bytes=1000)
    fitting = SENDER.vapid(gate.claims(x="x" * 300))
    assert len(fitting) <= 1000
    assert gate.vapid.check(fitting) == DIGEST
    assert "too long" in gate.refusal(SENDER.vapid(gate.claims(x="x" * 1000)))
    assert "too long" in gate.refusal(b"vapid " + b"," * 100_000)
    assert "too long" in gate.refusal(b"WebPush " + b"." * 100_000, "p256ecdsa=" + SENDER.public)


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_nothing_that_comes_is_more_than_refused(authorization: bytes, crypto_key: bytes) -> None:
    gate = Gate()
    for scheme in (b"", b"vapid ", b"vapid t=", b"WebPush "):
        gate.refusal(scheme + authorization, crypto_key)
    gate.refusal(b"vapid t=" + authorization + b",k=" + SENDER.public.encode(), crypto_key)


# ---- what is remembered


def test_a_header_is_verified_once_while_it_is_remembered() -> None:
    gate = Gate()
    header = SENDER.vapid(gate.claims())
    assert [gate.vapid.check(header, b"dh=%d" % i) for i in range(5)] == [DIGEST] * 5
    assert (gate.vapid.verified, gate.vapid.cached) == (1, 1)
    assert gate.vapid.check(OTHER.vapid(gate.claims())) == key_digest(OTHER.raw)
    assert (gate.vapid.verified, gate.vapid.cached) == (2, 2)


def test_of_crypto_key_only_the_senders_key_counts() -> None:
    gate = Gate()
    header = b"WebPush " + SENDER.token(gate.claims()).encode()
    key = SENDER.public.encode()
    for i in range(5):
        assert gate.vapid.check(header, b"dh=%d;p256ecdsa=%b" % (i, key)) == DIGEST
    assert gate.vapid.verified == 1
    # What was good with one key is not good with another, nor without any.
    assert "not made with this key" in gate.refusal(header, "p256ecdsa=" + OTHER.public)
    assert "missing" in gate.refusal(header)


def test_what_is_remembered_expires_all_the_same() -> None:
    gate = Gate()
    header = SENDER.vapid(gate.claims())
    gate.vapid.check(header)
    gate.clock.pass_by(3609)
    gate.vapid.check(header)
    gate.clock.pass_by(1)
    assert "in the past" in gate.refusal(header)
    assert gate.vapid.verified == 1


def test_what_was_refused_is_not_remembered() -> None:
    gate = Gate()
    header = SENDER.vapid(gate.claims(exp=int(gate.clock.unix()) + DAY + 20))
    for _ in range(3):
        assert "ahead" in gate.refusal(header)
    assert gate.vapid.cached == 0
    gate.clock.pass_by(10)
    assert gate.vapid.check(header) == DIGEST


def test_not_more_headers_are_remembered_than_allowed() -> None:
    gate = Gate(cache=10)
    mine = SENDER.vapid(gate.claims())
    gate.vapid.check(mine)
    for i in range(40):
        gate.vapid.check(SENDER.vapid(gate.claims(number=i)))
        gate.vapid.check(mine)  # in use: it stays
        assert gate.vapid.cached <= 10
    assert gate.vapid.verified == 41


@given(st.integers(1, 20), st.lists(st.tuples(st.booleans(), st.integers(0, 30)), max_size=200))
def test_recent_is_bounded_and_never_wrong(limit: int, steps: list[tuple[bool, int]]) -> None:
    recent: Recent[int, int] = Recent(limit)
    last: dict[int, int] = {}
    for number, (puts, key) in enumerate(steps):
        if puts:
            recent.put(key, number)
            last[key] = number
            assert recent.get(key) == number
        else:
            assert recent.get(key) in (None, last.get(key))
        assert len(recent) <= max(2, limit)


# ---- small parts


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://a.example/x", {"https://a.example", "https://a.example:443"}),
        ("https://A.example:443", {"https://a.example", "https://a.example:443"}),
        ("http://a.example:80/", {"http://a.example", "http://a.example:80"}),
        ("https://a.example:8443/", {"https://a.example:8443"}),
        ("http://127.0.0.1:8081", {"http://127.0.0.1:8081"}),
        ("http://[::1]", {"http://[::1]", "http://[::1]:80"}),
        ("http://[::1]:8081/x", {"http://[::1]:8081"}),
    ],
)
def test_the_origin_of_a_url(url: str, expected: set[str]) -> None:
    assert audiences(url) == expected | {each + "/" for each in expected}


@given(st.binary(min_size=1, max_size=100))
def test_base64url_there_and_back(data: bytes) -> None:
    text = encode_base64url(data)
    assert text == b64(data).encode()
    assert decode_base64url(text) == data


@given(st.binary(max_size=20))
def test_base64url_has_one_spelling(text: bytes) -> None:
    try:
        data = decode_base64url(text)
    except VapidError:
        return
    assert encode_base64url(data) == text


def test_parameters_of_a_header() -> None:
    found = parameters(b'keyid=p256dh; dh="AB=", P256ECDSA=C ,x, dh=other,=y')
    assert found == {b"keyid": b"p256dh", b"dh": b"AB=", b"p256ecdsa": b"C", b"x": b"", b"": b"y"}
