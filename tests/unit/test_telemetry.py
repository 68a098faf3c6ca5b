"""Log lines: one JSON object each, whenever the logger was made."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from atemporal import telemetry


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root, before = logging.getLogger(), structlog.get_config()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.configure(**before)


def test_a_logger_made_before_logging_was_set_up_follows_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.stderr", out := io.StringIO())
    log = telemetry.logger("api")
    telemetry.configure("api", log_format="json")
    log.warning("unavailable", error="no answer")
    line = json.loads(out.getvalue())
    assert line["event"] == "unavailable"
    assert (line["service"], line["part"], line["error"]) == ("api", "api", "no answer")
