"""What somebody else has written steers no terminal: shown whole, and harmless."""

from __future__ import annotations

import pytest

from atemporal.visible import VisibleOutput, visible

STEERING = {
    "a title": "\x1b]0;done\x07",
    "the clipboard": "\x1b]52;c;aGk=\x07",
    "the screen": "\x1b[2J\x1b[H",
    "the cursor": "\x1b[3A\x1b[2K",
    "a question to the terminal": "\x1b[6n",
    "a link": "\x1b]8;;https://example.com\x1b\\",
    "8 bits": "\x9b2J",
    "backspaces": "secret\b\b\b\b\b\b",
    "a direction": "exe.\u202etxt",
    "a bell": "\a",
    "NUL": "\0",
}

every_one = pytest.mark.parametrize("text", STEERING.values(), ids=STEERING.keys())


def _all(shown: str) -> bool:
    return shown.isprintable() and shown.isascii()


@every_one
def test_text_is_shown_whole_and_steers_nothing(text: str) -> None:
    assert _all(visible(text))
    assert visible(f"{text}!").endswith("!")


@every_one
def test_output_steers_nothing_wherever_it_is_cut(text: str) -> None:
    data = text.encode()
    whole = VisibleOutput()
    expected = whole.shown(data) + whole.end()
    assert _all(expected)
    for cut in range(len(data) + 1):
        pieces = VisibleOutput()
        assert pieces.shown(data[:cut]) + pieces.shown(data[cut:]) + pieces.end() == expected


def test_output_keeps_lines_colours_and_letters_wherever_it_is_cut() -> None:
    text = "é\x1b[1;31mred\x1b[0m\tzwölf\r50 %\r\n"
    data = text.encode()
    for cut in range(len(data) + 1):
        pieces = VisibleOutput()
        assert pieces.shown(data[:cut]) + pieces.shown(data[cut:]) == text
        assert pieces.end() == "\x1b[m"
        assert pieces.end() == ""


def test_what_has_waited_is_not_lost() -> None:
    pieces = VisibleOutput()
    assert pieces.shown(b"a\xc3") == "a"
    assert pieces.end() == "\N{REPLACEMENT CHARACTER}"
    assert pieces.shown(b"b\x1b[3") == "b"
    assert pieces.end() == "\\x1b[3"
