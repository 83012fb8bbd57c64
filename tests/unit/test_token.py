"""Push tokens and their keys."""

import base64
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.killing import in_child

from router.common.token import (
    KEY_BYTES,
    MAX_TOKEN_CHARS,
    KeyFormatError,
    TokenError,
    Tokens,
    new_key,
    parse_keys,
)

OLD, NEW, STRANGE = (bytes([i]) * KEY_BYTES for i in (1, 2, 3))
PURPOSE = b"simplepush"


@given(st.binary(max_size=200), st.binary(max_size=20))
def test_what_was_sealed_is_opened(payload: bytes, purpose: bytes) -> None:
    tokens = Tokens([NEW])
    assert tokens.open(purpose, tokens.seal(purpose, payload).encode()) == payload


def test_a_token_stands_in_a_url_as_it_is_and_no_two_are_alike() -> None:
    tokens = Tokens([NEW])
    made = {tokens.seal(PURPOSE, b"payload") for _ in range(50)}
    assert len(made) == 50
    assert all(token.replace("-", "").replace("_", "").isalnum() for token in made)


def test_padding_is_taken_too() -> None:
    tokens = Tokens([NEW])
    for length in range(1, 5):
        token = tokens.seal(PURPOSE, b"p" * length)
        padded = token + "=" * (-len(token) % 4)
        assert tokens.open(PURPOSE, padded.encode()) == b"p" * length


def test_rotation_the_first_key_seals_and_every_key_opens() -> None:
    before, rotated, after = Tokens([OLD]), Tokens([NEW, OLD]), Tokens([NEW])
    old, new = before.seal(PURPOSE, b"x").encode(), rotated.seal(PURPOSE, b"y").encode()
    assert rotated.open(PURPOSE, old) == b"x"
    assert rotated.open(PURPOSE, new) == after.open(PURPOSE, new) == b"y"
    for tokens, token in ((after, old), (before, new), (Tokens([STRANGE]), old)):
        with pytest.raises(TokenError):
            tokens.open(PURPOSE, token)


def test_keys_with_the_same_hint_are_all_tried() -> None:
    # A hint is one byte: among this many keys several share theirs.
    keys = [i.to_bytes(2, "big") * (KEY_BYTES // 2) for i in range(600)]
    everyone = Tokens(keys)
    for key in keys[::50]:
        assert everyone.open(PURPOSE, Tokens([key]).seal(PURPOSE, b"x").encode()) == b"x"


def test_a_token_of_another_purpose_is_none() -> None:
    tokens = Tokens([NEW])
    with pytest.raises(TokenError):
        tokens.open(b"webpush", tokens.seal(PURPOSE, b"x").encode())


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_changed_bit_is_found(place: int, change: int) -> None:
    tokens = Tokens([NEW])
    sealed = bytearray(base64.urlsafe_b64decode(tokens.seal(PURPOSE, b"0123456789ab") + "==="))
    sealed[place % len(sealed)] ^= change
    with pytest.raises(TokenError):
        tokens.open(PURPOSE, base64.urlsafe_b64encode(sealed))


@given(st.binary(max_size=80) | st.text(alphabet="ABCabc019-_=.+/% ", max_size=80).map(str.encode))
def test_garbage_is_refused(token: bytes) -> None:
    with pytest.raises(TokenError):
        Tokens([NEW]).open(PURPOSE, token)


def test_a_cut_or_endless_token_is_refused() -> None:
    tokens = Tokens([NEW])
    token = tokens.seal(PURPOSE, b"0123456789ab").encode()
    for length in range(len(token)):
        with pytest.raises(TokenError):
            tokens.open(PURPOSE, token[:length])
    with pytest.raises(TokenError, match="too long"):
        tokens.open(PURPOSE, b"A" * (MAX_TOKEN_CHARS + 1))
    with pytest.raises(TokenError):
        tokens.open(PURPOSE, token + b"=" * MAX_TOKEN_CHARS)


# ---- keys


def test_a_list_of_keys() -> None:
    first, second = new_key(), new_key()
    assert first != second
    keys = parse_keys(f" {first} ,\n{second}\n")
    assert [base64.urlsafe_b64encode(key).decode() for key in keys] == [first, second]
    assert parse_keys(first.rstrip("=")) == keys[:1]
    assert parse_keys("") == parse_keys(" , ") == []


def test_no_nonce_is_used_twice_not_even_by_a_forked_child() -> None:
    tokens = Tokens([b"k" * 32])

    def nonces() -> list[bytes]:
        return [base64.urlsafe_b64decode(tokens.seal(b"p", b"x") + "==")[1:13] for _ in range(300)]

    mine = nonces()  # so that some are drawn and not used yet
    reading, writing = os.pipe()
    assert in_child(lambda: os.write(writing, b"".join(nonces()))) == 0  # far less than a pipe takes
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        theirs = pipe.read()
    mine += nonces()
    assert len({*mine, *(theirs[at : at + 12] for at in range(0, len(theirs), 12))}) == 900


@pytest.mark.parametrize(
    "text", ["secret", "A" * 42, "A" * 44 + "=" * 4, base64.b64encode(b"a" * 31).decode(), "\xe4" * 44]
)
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(KeyFormatError, match="farm token-key"):
        parse_keys(text)


def test_no_key_is_refused() -> None:
    with pytest.raises(KeyFormatError):
        Tokens([])
