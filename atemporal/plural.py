"""Numbers of things, for a reader: `1 attempt`, `2 attempts`."""

from __future__ import annotations


def counted(number: int, noun: str, *, more: str = "", form: str = "d") -> str:
    """A number and its noun, which takes an s where there is not just one.

    `more` goes in between; `form` is the number's, like `,` for a mark at each thousand.
    """
    return " ".join(filter(None, (f"{number:{form}}", more, plural(number, noun))))


def plural(number: int, noun: str) -> str:
    """The noun for so many."""
    return noun if number == 1 else f"{noun}s"
