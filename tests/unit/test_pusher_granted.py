"""Pusher where the application's main server names the channels that a connection may have."""

from dataclasses import replace
from pathlib import Path

import pytest
from support.pusher_device import Device, auth, denied, made, request

from farm.dialects.pusher.dialect import PusherDialect
from farm.dialects.pusher.session import PusherSession
from farm.transports.request import Grant


@pytest.fixture
def plain(tmp_path: Path) -> PusherDialect:
    return made(tmp_path)


def granted(dialect: PusherDialect, grant: Grant | None) -> Device:
    device = Device(dialect)
    session = dialect.opened(replace(request(), grant=grant))
    assert isinstance(session, PusherSession)
    device.session = session
    return device


def test_only_what_is_granted_can_be_subscribed_to(plain: PusherDialect) -> None:
    device = granted(plain, Grant(("news", "private-a")))
    assert device.subscribe("news")[0]["event"] == "pusher_internal:subscription_succeeded"
    assert denied(device.subscribe("other")) == ("other", "AuthError", 401)
    assert denied(device.subscribe("private-a")) == ("private-a", "AuthError", 401)  # it is not signed
    assert device.subscribe("private-a", auth=auth("private-a"))[0]["event"].endswith("subscription_succeeded")


def test_none_may_be_granted(plain: PusherDialect) -> None:
    assert denied(granted(plain, Grant(())).subscribe("news")) == ("news", "AuthError", 401)


@pytest.mark.parametrize("grant", [None, Grant(), Grant(user="ann")])
def test_a_main_server_that_names_none_leaves_it_to_signatures(plain: PusherDialect, grant: Grant | None) -> None:
    device = granted(plain, grant)
    assert isinstance(device.session, PusherSession)
    assert device.session._extra is None
    assert device.subscribe("news")[0]["event"] == "pusher_internal:subscription_succeeded"


def test_a_signed_in_user_has_its_own_channel_whatever_is_granted(plain: PusherDialect) -> None:
    device = granted(plain, Grant(("news",))).signed_in("ann")
    assert device.subscribe("#server-to-user-ann")[0]["event"] == "pusher_internal:subscription_succeeded"


def test_who_is_denied_later_is_closed_for_good(plain: PusherDialect) -> None:
    assert granted(plain, None).session.denied[0] == 4009
