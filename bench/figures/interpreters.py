"""The Python that a result was measured with: how it was built moves every figure. Pure."""

from typing import Any, Final

SLOW: Final = (
    "Python was built without {missing}, so that its code takes about a quarter more CPU: "
    "do not compare with figures of a build that has both"
)


def python_of(body: dict[str, Any]) -> str:
    """The farm's interpreter in a few words. Files of before it was recorded have its version only."""
    found = _fields(body)
    if not found:
        return f"Python {body['machine']['python']}"
    return f"{found['implementation']} {found['version']} (PGO {found['pgo']}, LTO {found['lto']})"


def warning_of(body: dict[str, Any]) -> str:
    """A warning about that interpreter; empty if it needs none."""
    found = _fields(body)
    missing = [name.upper() for name in ("pgo", "lto") if found.get(name) == "no"]
    return SLOW.format(missing=" and ".join(missing)) if missing else ""


def _fields(body: dict[str, Any]) -> dict[str, str]:
    """The farm's own, if it ran already and reported it; otherwise that of the bench, which has started it."""
    farm = body.get("farm") or next((part.get("farm") for part in body.get("parts", ())), None) or {}
    fields: dict[str, str] = farm.get("python") or body["machine"].get("interpreter") or {}
    return fields
