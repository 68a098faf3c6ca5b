"""The names in a call's query: each is known, and stands once where once is meant."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import Request
from pydantic import BeforeValidator

from atemporal.errors import Invalid
from atemporal.model.text import storable

LARGEST_NUMBER = 2**63 - 1
"""The largest number that the database takes."""

or_absent = BeforeValidator(lambda value: value or None)
"""What makes of a parameter without a value one that is not given."""


def only_query(*once: str, repeated: tuple[str, ...] = ()) -> Callable[[Request], Awaitable[None]]:
    """Make a call's check of its query's names: those that may stand once, those more than once.

    The framework passes over unknown names, takes the last of several, and any text.
    """
    names = ", ".join((*once, *repeated)) or "none"

    async def check(request: Request) -> None:
        given, wrong = request.query_params, {}
        for name in given:
            if name not in (*once, *repeated):
                wrong[name] = f"is no parameter of this call; known: {names}"
            elif name in once and len(given.getlist(name)) > 1:
                wrong[name] = "is given more than once"
            elif not all(map(storable, given.getlist(name))):
                wrong[name] = "holds a NUL character"
        if wrong:
            raise Invalid(wrong)

    return check


def labels_of(given: list[str]) -> dict[str, str]:
    """Read the labels of a filter.

    Raises:
        Invalid: one is not name=value, or contradicts another.
    """
    labels: dict[str, str] = {}
    for pair in filter(None, given):
        name, equals, value = pair.partition("=")
        if not equals or labels.setdefault(name, value) != value:
            raise Invalid({"label": f"{pair!r} is not name=value, or contradicts another"})
    return labels
