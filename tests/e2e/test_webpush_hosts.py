"""WebPush over several hosts: a broadcast is set on any of them, and reaches the followers on all."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.farm_fixture import until
from support.hosts import running_hosts
from support.webpush import UserAgent, broadcasts, set_broadcast

pytestmark = pytest.mark.measured

ID = "remote-settings/monitor_changes"


def test_a_broadcast_is_set_on_any_host(tmp_path: Path) -> None:
    with running_hosts(tmp_path, 2, 2) as hosts:
        a, b = hosts.each
        with UserAgent(a, None, {ID: "0"}) as one, UserAgent(b, None, {ID: "0"}) as other:
            for version, farm in ((1, a), (2, b)):
                assert set_broadcast(farm, ID, f'"{version}"') == 204
                for device in (one, other):
                    assert device.receive() == {"messageType": "broadcast", "broadcasts": {ID: f'"{version}"'}}
                for each in hosts.each:
                    assert broadcasts(each) == {ID: f'"{version}"'}
            hosts.each[0].stop()
            hosts.wait_divided(b)
            until(lambda: set_broadcast(b, ID, '"3"') == 204, "its owner is here")
            assert other.receive() == {"messageType": "broadcast", "broadcasts": {ID: '"3"'}}
