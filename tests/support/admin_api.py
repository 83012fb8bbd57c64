"""A user of /api/v1 on a farm's admin port, by httpx."""

from __future__ import annotations

from typing import Any

import httpx

from support.farm_fixture import PATIENCE_S, Farm


def api(farm: Farm, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    """Status and JSON of an answer."""
    url = f"http://127.0.0.1:{farm.admin_port}/api/v1{path}"
    with httpx.Client(trust_env=False, verify=False, timeout=PATIENCE_S) as client:
        answer = client.request(method, url, **({} if body is None else {"json": body}))
    return answer.status_code, answer.json()


def code(answer: tuple[int, Any]) -> tuple[int, str]:
    """Status and code of an answer that refuses."""
    status, body = answer
    return status, body["error"]["code"]
