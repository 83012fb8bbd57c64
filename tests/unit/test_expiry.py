"""When certificates expire: the log's line, the doctor's row, and what TLS costs a connection."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import pytest
from support.certificates import write
from support.common import settings_with

from farm.capacity import TLS_BYTES_PER_CONNECTION, bytes_per_connection
from farm.cli.tables import cell
from farm.doctor import Check, examine
from farm.supervisor.expiry import DAY_S, ExpiryWatch
from router.common.tls_settings import TlsOptions

NOW = 1_800_000_000.0


def rows(**options: object) -> list[Check]:
    found = examine(settings_with((TlsOptions, options)), 2)
    return [row for row in found if row.name.startswith("tls.")]


def test_it_is_said_once_a_day_from_a_month_before(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    watch = ExpiryWatch()
    said = []
    for hour in range(40 * 24):
        caplog.clear()
        watch.look(NOW + 37 * DAY_S, NOW + hour * 3600)
        said += [(hour / 24, record.levelname) for record in caplog.records]
    assert [day for day, _ in said] == list(range(7, 40))
    assert {level for day, level in said if day < 30} == {"INFO"}
    assert {level for day, level in said if day >= 30} == {"WARNING"}


def test_nothing_is_said_without_tls_or_once_it_is_renewed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    watch = ExpiryWatch()
    watch.look(None, NOW)
    watch.look(NOW + 31 * DAY_S, NOW)
    assert not caplog.records
    watch.look(NOW + 2 * DAY_S, NOW)
    assert len(caplog.records) == 1
    watch.look(NOW + 90 * DAY_S, NOW + 2 * DAY_S)
    assert len(caplog.records) == 1


def test_the_doctor_looks_at_certificates(tmp_path: Path) -> None:
    good, late = write(tmp_path, "good", days=80), write(tmp_path, "late", days=12)
    files = (str(good.certificate), str(late.certificate))
    keys = (str(good.key), str(late.key))
    first, second = rows(certificate=files, key=keys)
    assert (first.status, second.status) == ("ok", "warn")
    assert "12 days" in second.found or "11 days" in second.found
    (wrong,) = rows(certificate=files[:1], key=keys[1:])
    assert (wrong.name, wrong.status) == ("tls.key", "fail")
    assert rows() == []


def test_a_key_that_every_user_can_read(tmp_path: Path) -> None:
    files = write(tmp_path, "localhost", days=90)
    options = {"certificate": (str(files.certificate),), "key": (str(files.key),)}
    for mode, found in ((0o600, []), (0o640, []), (0o644, [("warn", f"chmod o= {files.key}")])):
        files.key.chmod(mode)
        assert [(row.status, row.remedy) for row in rows(**options) if row.name == "tls.key"] == found


def test_tls_on_the_device_port_is_counted(tmp_path: Path) -> None:
    files = write(tmp_path, "localhost")
    options = {"certificate": (str(files.certificate),), "key": (str(files.key),)}
    plain = bytes_per_connection(settings_with())
    assert bytes_per_connection(settings_with((TlsOptions, options))) == plain + TLS_BYTES_PER_CONNECTION
    assert bytes_per_connection(settings_with((TlsOptions, options | {"device": "off"}))) == plain
    memory = next(
        row for row in examine(settings_with((TlsOptions, options)), 2, 1_000_000_000) if row.name == "memory"
    )
    assert "for TLS" in memory.needed
    assert "proxy" in memory.remedy


def test_a_moment_is_shown_as_a_date() -> None:
    assert cell("certificate_expires", time.time()).startswith("20")
    assert cell("certificate_expires", None) == "-"
