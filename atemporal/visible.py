"""Text that somebody else has written, so that it steers no terminal and no reader's eye.

Promise: what can not be printed (control characters, escapes that begin a sequence, marks of direction)
is shown as an escape of Python's source, and no character is lost. A program's output keeps its colours,
tabs and lines, and a carriage return, by which it may write over its own line.
Failure: bytes that are not UTF-8 are replacement characters.
"""

from __future__ import annotations

import codecs
import re

OUTPUT_LAYOUT = "\n\t\r"
_COLOUR = r"\x1b\[[0-9;]{0,32}m"
_COLOURS = re.compile(f"({_COLOUR})")
# What may become a colour with the next piece.
_BEGUN = re.compile(r"\x1b(?:\[[0-9;]{0,32})?\Z")
_PLAIN = "\x1b[m"


def visible(text: str, layout: str = "") -> str:
    """The text on one harmless line; the characters of `layout` are left as they are."""
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() or one in layout else one.encode("unicode_escape").decode()
        for one in text
    )


class VisibleOutput:
    """What a container writes, piece by piece, for a terminal."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""
        self._coloured = False

    def shown(self, data: bytes) -> str:
        """The next piece; half of a character or of a colour at its end waits for the one after."""
        text = self._held + self._decoder.decode(data)
        begun = _BEGUN.search(text)
        end = begun.start() if begun else len(text)
        self._held = text[end:]
        return self._clean(text[:end])

    def end(self) -> str:
        """What has waited, and the terminal's own colour again; then it begins anew."""
        rest = self._clean(self._held + self._decoder.decode(b"", final=True))
        plain = _PLAIN if self._coloured else ""
        self._decoder.reset()
        self._held, self._coloured = "", False
        return rest + plain

    def _clean(self, text: str) -> str:
        parts = _COLOURS.split(text)
        self._coloured = self._coloured or len(parts) > 1
        parts[::2] = [visible(part, OUTPUT_LAYOUT) for part in parts[::2]]
        return "".join(parts)
