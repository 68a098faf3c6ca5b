"""Numbers of things, for a reader: `1 attempt`, `2 attempts`."""

from __future__ import annotations


def counted(number: int, noun: str, *, more: str = "") -> str:
    """A number and its noun, which takes an s where there is not just one; `more` goes in between."""
    words = (f"{number:d}", more, noun if number == 1 else f"{noun}s")
    return " ".join(filter(None, words))
