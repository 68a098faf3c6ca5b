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


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_what_others_have_sent_forges_no_line_and_steers_no_terminal(
    log_format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr", out := io.StringIO())
    telemetry.configure("api", log_format=log_format)
    sent = "x\x1b]0;title\x07\r\n2026-01-01 [info] forged \x9b2J"
    telemetry.logger("http").info(f"request {sent}", path=sent)
    logging.getLogger("uvicorn").warning("odd: %s", sent)
    lines = out.getvalue().splitlines()
    assert len(lines) == 2
    # Its own colours are what a console shows beside them.
    assert all("\x1b]" not in line and "\x07" not in line and "\x9b" not in line for line in lines)


def test_a_traceback_steers_no_terminal_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", out := io.StringIO())
    telemetry.configure("api", log_format="console")
    try:
        raise ValueError("odd \x1b]0;title\x07")
    except ValueError:
        telemetry.logger("http").exception("request failed")
    assert "\x1b]" not in out.getvalue()
    assert "ValueError: odd \\x1b]0;title\\x07" in out.getvalue()
    assert "Traceback (most recent call last):\n" in out.getvalue()


def test_a_traceback_shows_no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    for log_format in ("console", "json"):
        monkeypatch.setattr("sys.stderr", out := io.StringIO())
        telemetry.configure("api", log_format=log_format)
        password = "canary" + "-of-a-frame"
        try:
            raise ValueError("no")
        except ValueError:
            telemetry.logger("http").exception("request failed")
        assert password not in out.getvalue()
