"""The tags of instances and volumes beside our own: the deployment's, and those of a job's labels.

Promise: a key or a value that passes here is one that EC2 takes, and so does every service of AWS that
reads it from there: for cost allocation, for conditions of IAM. One resource never has more than `MOST`.
Mechanism: EC2's user guide (Tag your Amazon EC2 resources, Tag restrictions) gives the number and the
lengths; of a key its API reference (Tag) takes 127 characters where the guide has 128. The guide says
that EC2 itself takes any character, and other services letters, digits, spaces and `+ - = . _ : / @`
alone. Which letters, the pattern of the type Tag says in the API references of these services: Unicode's
categories L, N and Z. No page says what a character counts as. They are UTF-16 units here: never fewer
than code points, so that what passes is short enough by either count.
Failure: a label that does not pass, of a job that an older release took, is left out. So is one whose
tag would take the place of another, which is no failure: ours and the deployment's come first.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

KEY_LIMIT, VALUE_LIMIT = 127, 256
MOST = 50
"""So many tags one resource may have; those that AWS gives it (`aws:`) do not count."""
OURS = 6
"""So many of them are our own: `Name`, deployment, installation, group, job and attempt."""
NAME = "Name"
OWN_PREFIX, AWS_PREFIX = "atemporal:", "aws:"

EVERY, NONE = "*", "-"
"""Which labels become tags, where it is not a list of their names."""

_SIGNS = frozenset("+-=._:/@")
_CATEGORIES = frozenset("LNZ")


class LabelTags(NamedTuple):
    """The tags of a job's labels, and the names of the labels that AWS's rules leave out."""

    tags: dict[str, str]
    left_out: tuple[str, ...]


def check_key(key: str) -> None:
    """Refuse what can not be the key of a tag that is not ours.

    Raises:
        ValueError: saying why.
    """
    if not 1 <= _units(key) <= KEY_LIMIT:
        raise ValueError(f"{key[:40]!r} is no tag key: it has 1 to {KEY_LIMIT} characters")
    if strange := _strange(key):
        raise ValueError(f"the tag key {key!r} holds {strange!r}; {_ALLOWED}")
    if key.casefold().startswith((AWS_PREFIX, OWN_PREFIX)) or key == NAME:
        raise ValueError(f"the tag key {key!r} is not free: AWS's or atemporal's own tags have it")


def check_value(value: str) -> None:
    """Refuse what can not be the value of a tag.

    Raises:
        ValueError: saying why, without the value.
    """
    if strange := _strange(value):
        raise ValueError(f"holds {strange!r}; {_ALLOWED}")
    if _units(value) > VALUE_LIMIT:
        raise ValueError(f"is longer than {VALUE_LIMIT} characters")


def parse(value: Any) -> Any:
    """Read `KEY=VALUE,KEY=VALUE`: no tag holds a comma, and the key ends at the first `=`.

    What is not text is returned as it is.

    Raises:
        ValueError: a part of it is no pair, or a key is there twice.
    """
    if not isinstance(value, str):
        return value
    tags: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in value.split(","))):
        key, equals, given = (piece.strip() for piece in part.partition("="))
        if not equals:
            raise ValueError(
                f"{part!r} is not KEY=VALUE; write them as team=platform,cost-center=42"
            )
        if key in tags:
            raise ValueError(f"the tag key {key!r} is there twice")
        tags[key] = given
    return tags


def check_all(tags: Mapping[str, str], *, most: int) -> None:
    """Refuse what can not be the deployment's tags, `most` of them.

    Raises:
        ValueError: saying which one, and why.
    """
    if len(tags) > most:
        raise ValueError(
            f"{len(tags)} are too many; of the {MOST} tags of a resource {OURS} are atemporal's own "
            f"and most others are for labels: write {most} at most"
        )
    cases: dict[str, str] = {}
    for key, value in tags.items():
        check_key(key)
        try:
            check_value(value)
        except ValueError as error:
            raise ValueError(f"the value of tag {key!r} {error}") from None
        if (other := cases.setdefault(key.casefold(), key)) != key:
            raise ValueError(f"{other!r} and {key!r} are one key to IAM, whatever their case")


def of_labels(
    labels: Mapping[str, str], *, deployment: Mapping[str, str], chosen: Collection[str]
) -> LabelTags:
    """The tags of a job's labels, of those that are `chosen` by name (or `EVERY`, or `NONE`).

    The deployment's tags come first, in whatever case: IAM takes no notice of the case of a key, so a
    label `Team` could pass for the tag `team` of an account's owner.
    """
    taken = {key.casefold() for key in deployment}
    room = MOST - OURS - len(deployment)
    tags: dict[str, str] = {}
    left_out = []
    for name, value in sorted(labels.items()):
        if (
            (EVERY not in chosen and name not in chosen)
            or name.casefold() in taken
            or name == NAME
        ):
            continue
        try:
            check_key(name)
            check_value(value)
        except ValueError:
            left_out.append(name)
            continue
        if len(tags) < room:
            tags[name] = value
        else:
            left_out.append(name)
    return LabelTags(tags, tuple(left_out))


_ALLOWED = "AWS allows letters, digits, spaces and + - = . _ : / @"


def _units(text: str) -> int:
    return len(text.encode("utf-16-le", errors="surrogatepass")) // 2


def _strange(text: str) -> str | None:
    """The first character that a tag may not hold."""
    for letter in text:
        if letter not in _SIGNS and unicodedata.category(letter)[0] not in _CATEGORIES:
            return letter
    return None
