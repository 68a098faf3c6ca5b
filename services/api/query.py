"""The names in a call's query: each is known, and stands once where once is meant."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import Request

from atemporal.errors import Invalid
from atemporal.model.text import storable


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
