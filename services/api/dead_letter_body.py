"""A dead letter's body as it is shown: without what may be a secret's value; pure.

Promise: shown is what has a known meaning: the fields of messages, jobs and schedules. Null is in place
of secrets, of what any other field has, and of text that begins as JSON does: it may be a whole job,
encoded twice. A body that is not one JSON object in UTF-8 is not shown at all.
Failure: why a body is not shown is said without a byte of it. It is stored as it came, and replayed so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from atemporal.errors import Invalid
from atemporal.json_object import read_object
from atemporal.messages import BODY_LIMIT, MESSAGES
from atemporal.model.job_spec import JobFields
from atemporal.model.machine import Machine
from atemporal.model.schedule import ScheduleFields
from atemporal.model.secret_reference import REFERENCE
from atemporal.plural import counted

_Mask: TypeAlias = Callable[[Any], Any]


class ShownBody(NamedTuple):
    """The text to be shown, or why none is."""

    text: str | None
    why_not: str | None = None


def shown(body: bytes, size: int) -> ShownBody:
    """What may be shown of a body that had so many bytes when it came."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return _hidden("it is not UTF-8", size)
    if size > BODY_LIMIT:
        return _hidden("only its beginning is kept", size)
    try:
        # Laxer than our readers: it may be dead because of what they refuse.
        read = json.loads(text)
    except (ValueError, RecursionError):
        return _hidden("it is not JSON", size)
    if not isinstance(read, dict):
        return _hidden("it is JSON, but not an object of fields", size)
    masked = _object(read, fields=_BODY)
    if masked == read and _strict(body):
        return ShownBody(text)
    written = json.dumps(masked, ensure_ascii=False)
    # Half of a surrogate pair is no text; JSON writes it like this.
    return ShownBody(written.encode(errors="backslashreplace").decode())


def _hidden(why: str, size: int) -> ShownBody:
    return ShownBody(
        None, f"{why}, so nobody can tell secrets from the rest of its {counted(size, 'byte')}"
    )


def _strict(body: bytes) -> bool:
    """Whether all of it was read: a name that is there twice was read once."""
    try:
        read_object(body)
    except Invalid:
        return False
    return True


# By whatever name: it may be dead because that is wrong.
_SPEAKS = re.compile("secret", re.IGNORECASE)
# Whether the rest of it is JSON does not matter: with one sign too many it has the same in it.
_LIKE_JSON = re.compile(r'[\s\ufeff]*[\[{"]')


def _plain(value: Any) -> Any:
    """A value, or a list of values, with nothing in them."""
    if isinstance(value, list):
        return [None if isinstance(one, list) else _plain(one) for one in value]
    like_json = isinstance(value, str) and _LIKE_JSON.match(value)
    return None if isinstance(value, dict) or like_json else value


def _object(value: Any, *, fields: Mapping[str, _Mask]) -> Any:
    """An object of fields; what is in one that is not known is not shown."""
    if not isinstance(value, dict):
        return None
    return {
        _name(name): fields[name](one) if name in fields else None for name, one in value.items()
    }


def _variables(value: Any) -> Any:
    if not isinstance(value, dict):
        return [] if value == [] else None
    return {
        _name(name): None if isinstance(one, list) or _SPEAKS.search(name) else _plain(one)
        for name, one in value.items()
    }


def _names(value: Any) -> Any:
    return dict.fromkeys(map(_name, value)) if isinstance(value, dict) else None


def _references(value: Any) -> Any:
    """Whoever wrote a secret in place of a reference meant neither to be shown."""
    if not isinstance(value, dict):
        return None
    return {
        _name(name): one if isinstance(one, str) and REFERENCE.fullmatch(one) else None
        for name, one in value.items()
    }


def _name(name: str) -> str:
    """A form's encoding makes a name of a whole body."""
    return "?" if _LIKE_JSON.match(name) else name


_MACHINE: dict[str, _Mask] = dict.fromkeys([*Machine.model_fields, "market"], _plain)
_JOB: dict[str, _Mask] = {
    **dict.fromkeys(JobFields.model_fields, _plain),
    "env": _variables,
    "labels": _variables,
    "machine": partial(_object, fields=_MACHINE),
    "secrets": _names,
    "secret_refs": _references,
}
_SCHEDULE: dict[str, _Mask] = {
    **dict.fromkeys(ScheduleFields.model_fields, _plain),
    "job": partial(_object, fields=_JOB),
}
# Of whichever message, or a bare job: it may be dead because it came by another's queue.
_BODY: dict[str, _Mask] = {
    **{name: _plain for kind in MESSAGES if kind.queue for name in kind.model_fields},
    **_JOB,
    "job": _SCHEDULE["job"],
    "schedule": partial(_object, fields=_SCHEDULE),
}
