"""Text that Postgres can keep."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator


def storable(text: str) -> bool:
    """Tell whether Postgres takes the text: neither NUL nor half of a surrogate pair is in it."""
    return "\0" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text)


def escaped(text: str) -> str:
    """The text as Postgres can keep it: what it does not take is written as in Python's source."""
    return text.encode(errors="backslashreplace").decode().replace("\0", "\\x00")


def _checked(text: str) -> str:
    if not storable(text):
        raise ValueError("it holds a NUL character or is not valid Unicode text")
    return text


StorableText = Annotated[str, AfterValidator(_checked)]
