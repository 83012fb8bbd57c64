"""What of Pusher has to be the same on all hosts of a cluster."""

from __future__ import annotations

import json
from pathlib import Path

from router.common.options import defaults
from router.dialects.pusher import SPEC
from router.dialects.pusher.protocol import PusherOptions


def _shared(folder: Path, *apps: dict[str, object]) -> object:
    path = folder / "apps.json"
    path.write_text(json.dumps({"applications": apps}))
    return SPEC.shared(defaults([PusherOptions]).replace(PusherOptions, apps=str(path)))


def test_the_applications_whatever_their_order(tmp_path: Path) -> None:
    one: dict[str, object] = {"id": "1", "name": "x", "key": "k", "secret": "s"}
    two = one | {"id": "2", "name": "y", "key": "l", "webhooks": [{"url": "https://h.example.org/"}]}
    both = _shared(tmp_path, one, two)
    assert _shared(tmp_path, two, one) == both
    for other in ({"secret": "t"}, {"client_messages": True}, {"webhooks": []}):
        assert _shared(tmp_path, one, two | other) != both
    assert _shared(tmp_path) == SPEC.shared(defaults([PusherOptions]))
