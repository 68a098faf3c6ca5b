"""`Filter.N` of the Describe calls: which things match, and which filters exist.

Promise: as in EC2, values of one filter are alternatives, several filters must all match, and values
may hold the wild cards `*` and `?`. A filter that does not exist is an error.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from atemporal.twin.ec2.wire import ApiError, listed

T = TypeVar("T")
Values = Callable[[T], Iterable[str | None]]


def select(
    things: Iterable[T],
    parameters: Mapping[str, Any],
    names: Mapping[str, Values[T]],
    tags: Callable[[T], Mapping[str, str]],
) -> list[T]:
    """Return the things that match all filters of a request.

    `names` gives for each filter the values of a thing that it is compared with; `tag:<key>` and
    `tag-key` are always there.

    Raises:
        ApiError: a filter is unknown or has no values.
    """
    chosen = list(things)
    for entry in listed(parameters.get("Filter"), "Filter"):
        if not isinstance(entry, dict):
            raise ApiError("InvalidParameterValue", "A filter has a Name and Values")
        name = entry.get("Name", "")
        patterns = [_pattern(value) for value in listed(entry.get("Value"), "Filter.N.Value")]
        if not patterns:
            raise ApiError("InvalidParameterValue", f"The filter '{name}' has no values")
        values = _values(name, names, tags)
        chosen = [thing for thing in chosen if _matches(values(thing), patterns)]
    return chosen


def _values(
    name: str, names: Mapping[str, Values[T]], tags: Callable[[T], Mapping[str, str]]
) -> Values[T]:
    if name.startswith("tag:"):
        key = name.removeprefix("tag:")
        return lambda thing: [tags(thing).get(key)]
    if name == "tag-key":
        return lambda thing: list(tags(thing))
    if name not in names:
        raise ApiError("InvalidParameterValue", f"The filter '{name}' is invalid")
    return names[name]


def _matches(values: Iterable[str | None], patterns: Sequence[re.Pattern[str]]) -> bool:
    return any(
        value is not None and pattern.fullmatch(value) for value in values for pattern in patterns
    )


def _pattern(value: str) -> re.Pattern[str]:
    """Translate EC2's wild cards; a backslash makes the next character an ordinary one."""
    parts = re.findall(r"\\.|.", value, re.DOTALL)
    wild = {"*": ".*", "?": "."}
    return re.compile("".join(wild.get(part) or re.escape(part[-1]) for part in parts), re.DOTALL)
