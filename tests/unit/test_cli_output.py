"""How answers look on a terminal, however narrow it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import click
import pytest

from atemporal.cli import output, screen

COLUMNS = ("id", "state", "exit", "image", "due", "attempts", "labels")
ROWS = [
    (
        "0123456789ab",
        "succeeded",
        "0",
        "ghcr.io/acme/report:2030-04-25",
        "in 5m00s",
        "1",
        "team=a",
    ),
    ("0123456789ac", "running", "", "nginx:1.9", "2h03m ago", "12", "team=b,tier=" + "x" * 60),
]


@pytest.fixture(autouse=True)
def _terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "for_terminal", lambda: True)
    monkeypatch.delenv("NO_COLOR", raising=False)


@pytest.mark.parametrize("width", [200, 100, 80, 60, 40, 24])
def test_a_table_fits_its_terminal_with_ids_and_states_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    output.table(COLUMNS, ROWS, keep=("id", "state"))
    lines = click.unstyle(capsys.readouterr().out).splitlines()
    assert len(lines) == 1 + len(ROWS)
    assert max(map(len, lines)) <= width
    for line, row in zip(lines[1:], ROWS, strict=True):
        assert line.split()[:2] == list(row[:2])


def test_a_wide_terminal_shows_all_and_a_narrow_one_says_what_it_cuts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    output.table(COLUMNS, ROWS, keep=("id", "state"))
    assert "x" * 60 in capsys.readouterr().out
    monkeypatch.setenv("COLUMNS", "100")
    output.table(COLUMNS, ROWS, keep=("id", "state"))
    assert "xx…" in capsys.readouterr().out


def test_json_steers_no_terminal_either(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"log": "\x9b2J \x7f \u202e \u2066 \x1b[2J", "name": "b\u00f6nd \U0001f600"}
    output.show_json(value)
    printed = capsys.readouterr().out
    assert all(c.isprintable() or c == "\n" for c in printed)
    assert "b\u00f6nd \U0001f600" in printed
    assert json.loads(printed) == value


def test_no_color_is_no_escape_at_all(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert output._styled("running", "running", header=False) != "running"
    assert output._styled("ID", "id", header=True) != "ID"
    monkeypatch.setenv("NO_COLOR", "1")
    output.table(COLUMNS, ROWS)
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize("command", ["config", "--help", "config -o json"])
def test_a_reader_that_has_enough_is_no_error(command: str) -> None:
    code = f"import sys; sys.argv[1:] = {command.split()}; from atemporal.cli import main; main()"
    reader, writer = os.pipe()
    os.close(reader)
    try:
        words = [sys.executable, "-c", code]
        done = subprocess.run(words, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_view_never_scrolls_and_says_what_it_leaves_out() -> None:
    lines = [f"line {number} " + "x" * 90 for number in range(30)]
    shown = screen.fitted(lines, 40, 10)
    assert len(shown) == 10
    assert max(map(len, shown)) == 40
    assert shown[-1] == "… 21 more lines"
    assert screen.fitted(lines[:10], 200, 10) == lines[:10]
