"""What app servers may push: by address, by who signs, and to one endpoint."""

from __future__ import annotations

from router.common.client_address import Networks
from router.common.client_keys import ClientKeys
from router.common.limit_settings import LimitOptions
from router.common.metrics import RouterCounters
from router.core.push_limits import PushLimits, retry_after

ENDPOINT = {"pushes_per_endpoint": 0.5, "burst_seconds": 4}
"""Two at once, and one more every two seconds."""


def limits_of(**limits: float) -> tuple[PushLimits, RouterCounters, list[float]]:
    counters, now = RouterCounters(), [100.0]
    options = LimitOptions(**limits)  # type: ignore[arg-type]
    return PushLimits(options, ClientKeys(Networks(("10.0.0.0/8",))), counters, lambda: now[0]), counters, now


def test_what_is_not_limited_has_nobody_to_ask() -> None:
    limits, _, _ = limits_of()
    assert (limits.address, limits.application, limits.endpoint) == (None, None, None)


def test_addresses_are_counted_each_and_proxies_are_not() -> None:
    limits, counters, now = limits_of(pushes_per_address=1, burst_seconds=2)
    address = limits.address
    assert address is not None
    assert [address("192.0.2.1") > 0 for _ in range(3)] == [False, False, True]
    assert address("2001:db8::1") == address("2001:db8::2") == 0 < address("2001:db8::3")
    assert [address("10.0.0.1") for _ in range(9)] == [address("") for _ in range(9)] == [0.0] * 9
    assert counters.limited_pushes_per_address == 2
    now[0] += 1
    assert not address("192.0.2.1")


def test_a_push_to_several_is_allowed_to_all_of_them_or_counted_for_none() -> None:
    limits, counters, _ = limits_of(pushes_per_endpoint=1, burst_seconds=2)
    endpoint = limits.endpoint
    assert endpoint is not None
    assert not endpoint(b"a") and not endpoint(b"a")
    assert endpoint.of_all([b"b", b"a"]) > 0
    assert not endpoint.of_all([b"b", b"c"]) and not endpoint.of_all([b"b"])
    assert endpoint.of_all([b"b"]) > 0
    assert not endpoint.of_all([b"c", b"c"]) and endpoint.of_all([b"c"]) > 0  # what comes as a whole is allowed so
    assert endpoint.of_all([]) == 0
    assert counters.limited_pushes_per_endpoint == 3


def test_who_has_to_wait_is_told_whole_seconds_and_never_none() -> None:
    assert [retry_after(seconds)[1] for seconds in (0.001, 1.0, 1.1, 60.0)] == ["1", "1", "2", "60"]
