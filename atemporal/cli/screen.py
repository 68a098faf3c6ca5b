"""A view that is drawn anew in place, as `atemporal list --watch` and `atemporal top` do.

Promise: what was on the terminal before is there again afterwards, however it ends: by `q`, by Ctrl-C or
by SIGTERM. A view never scrolls and does not flicker: it is one write, over the one before. An API that
does not answer meanwhile is told below the last view, and asked again.
Mechanism: the terminal's alternate screen. Between two views the keyboard is waited for.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from types import FrameType
from typing import Any, TypeVar

import click

from atemporal.cli.output import for_terminal
from atemporal.errors import Unavailable
from atemporal.plural import counted

F = TypeVar("F", bound=Callable[..., Any])
EVERY_S = 2.0
"""How often a view is drawn unless the reader says otherwise, in seconds."""

_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
_HOME, _REST_OF_LINE, _REST_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"


def option(flag: str, what: str) -> Callable[[F], F]:
    """Make the option that asks for a view in place, with a number of seconds or without one."""
    return click.option(
        flag,
        type=click.FloatRange(0.5, 3600),
        metavar="[SECONDS]",
        is_flag=False,
        flag_value=EVERY_S,
        help=f"{what}, every {EVERY_S:.0f} s or so, until q or Ctrl-C.",
    )


def drawable() -> bool:
    """Whether standard output is a terminal that can draw."""
    return for_terminal() and os.environ.get("TERM", "dumb") != "dumb"


def check_terminal(what: str, instead: str) -> None:
    """Refuse what only a terminal can show.

    Raises:
        UsageError: standard output is none, or one that can not.
    """
    if not drawable():
        raise click.UsageError(f"{what} needs a terminal that can draw, not a pipe; {instead}")


def refresh(view: Callable[[], Sequence[str]], *, every_s: float) -> None:
    """Draw the lines of a view until the reader has had enough.

    Raises:
        AtemporalError: the first view could not be made, or a later one for another reason than that the
            API does not answer.
    """
    lines = list(view())
    with _alternate() as pressed:
        while True:
            _draw(lines)
            if pressed(every_s):
                return
            try:
                lines = list(view())
            except Unavailable as error:
                since = f"{datetime.now(UTC):%H:%M:%SZ}"
                lines = [*(one for one in lines if not one.startswith("! ")), f"! {since} {error}"]


def fitted(lines: Sequence[str], width: int, height: int) -> list[str]:
    """Cut a view to a terminal; the last of its lines says how many are left out."""
    if len(lines) > height:
        left_out = len(lines) - height + 1
        lines = [*lines[: height - 1], f"… {counted(left_out, 'line', more='more')}"]
    # A line with colours has been fitted by its table.
    return [line if "\x1b" in line else line[:width] for line in lines]


def _draw(lines: Sequence[str]) -> None:
    size = shutil.get_terminal_size()
    shown = fitted(lines, size.columns, size.lines)
    body = f"{_REST_OF_LINE}\n".join(shown)
    sys.stdout.write(f"{_HOME}{body}{_REST_OF_LINE}{_REST_OF_SCREEN}")
    sys.stdout.flush()


@contextmanager
def _alternate() -> Iterator[Callable[[float], bool]]:
    """Switch to the other screen; gives what waits so many seconds for the reader to leave."""
    before = signal.signal(signal.SIGTERM, _terminated)
    sys.stdout.write(_ENTER)
    try:
        with _keys() as pressed:
            yield pressed
    except KeyboardInterrupt:
        # Ctrl-C is how one leaves a view: no error.
        return
    finally:
        sys.stdout.write(_LEAVE)
        sys.stdout.flush()
        signal.signal(signal.SIGTERM, before)


def _terminated(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)


@contextmanager
def _keys() -> Iterator[Callable[[float], bool]]:
    """Read single keys while the view is there, if a keyboard is."""
    if not sys.stdin.isatty():

        def wait(seconds: float) -> bool:
            select.select([], [], [], seconds)
            return False

        yield wait
        return
    import termios
    import tty

    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)
    tty.setcbreak(keyboard)

    def pressed(seconds: float) -> bool:
        ready, _, _ = select.select([keyboard], [], [], seconds)
        # A keyboard that is gone reads as its end.
        return bool(ready) and os.read(keyboard, 1) in (b"q", b"Q", b"")

    try:
        yield pressed
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
