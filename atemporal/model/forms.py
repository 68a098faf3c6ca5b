"""The forms of a specification's texts, as its schemas show them.

Promise: whatever a schema refuses by these forms, `JobSpec` refuses, and the other way round, but for
what no expression can say. That is listed in docs/messages.md; `tests/unit/test_schema.py` compares.
Mechanism: a type here has a pattern for the schema only. Whether a text will do is decided by the rules
of `JobSpec`, which have a sentence for whoever wrote it. Where `Field` itself has the pattern, pydantic
decides by it.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import Field
from pydantic.fields import FieldInfo

from atemporal import environment, image
from atemporal.billing import AMOUNT
from atemporal.pattern import NO_NUL, whole

LONGEST_PATH = 4096
LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?")
# What a tag may hold, as far as ASCII goes: of the rest only letters, digits and spaces, for which
# engines have different names.
_LABEL_VALUE = r"^[^\x00-\x1f!-*,;<>?\[-\^`{-\x9f]*$"
PORT = re.compile(r"([0-9]{1,5}):([0-9]{1,5})(?:/(tcp|udp))?")
SCHEDULE_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?")
INSTANCE_TYPE = re.compile(r"[a-z0-9-]+\.[a-z0-9-]+")

# 1 to 65535, in five digits at most.
_PORT_NUMBER = (
    "(?:0{0,4}[1-9]|0{0,3}[1-9][0-9]|0{0,2}[1-9][0-9]{2}|0?[1-9][0-9]{3}|[1-5][0-9]{4}"
    "|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
)


def _shown(**schema: Any) -> Any:
    """What a schema says, and pydantic does not check."""
    return Field(json_schema_extra=schema)


def _not(pattern: str) -> dict[str, Any]:
    """What a text must not be: an expression could say it by look-around alone, which not all know."""
    return {"not": {"pattern": pattern}}


Image = Annotated[str, _shown(pattern=image.PATTERN, **_not(image.ID_PATTERN))]
InstanceType = Annotated[str, _shown(pattern=whole(INSTANCE_TYPE.pattern))]
ScheduleName = Annotated[str, _shown(pattern=whole(SCHEDULE_NAME.pattern))]
Subnet = Annotated[str, Field(pattern="^subnet-[0-9a-f]+$")]
Key = Annotated[str, Field(pattern=r"^[^\x00-\x1f]+$")]
Port = Annotated[str, _shown(pattern=whole(rf"{_PORT_NUMBER}:{_PORT_NUMBER}(?:/(?:tcp|udp))?"))]
Amount = Annotated[str, _shown(pattern=whole(AMOUNT), **_not(r"^0(?:\.0+)?$"))]
Command = Annotated[
    tuple[Annotated[str, _shown(pattern=NO_NUL)], ...],
    # The first is the program. Dialects of before 2020 pass over this.
    _shown(prefixItems=[{"type": "string", "minLength": 1, "pattern": NO_NUL}]),
]
Entrypoint = Annotated[
    tuple[Annotated[str, _shown(pattern=NO_NUL)], ...],
    # Its program is a word of docker's command line, as long as a path may be.
    _shown(
        prefixItems=[
            {"type": "string", "minLength": 1, "maxLength": LONGEST_PATH, "pattern": NO_NUL}
        ]
    ),
]
Environment = Annotated[
    dict[str, str],
    _shown(
        propertyNames={
            "pattern": environment.NAME_PATTERN,
            **_not(environment.NO_NAME_PATTERN),
        },
        additionalProperties={"type": "string", "pattern": NO_NUL},
    ),
]
Labels = Annotated[
    dict[str, str],
    _shown(
        propertyNames={"pattern": whole(LABEL.pattern)},
        additionalProperties={"type": "string", "maxLength": 255, "pattern": _LABEL_VALUE},
    ),
]
EACH_ONCE: FieldInfo = _shown(uniqueItems=True)
"""The list holds no element twice, as written."""
BOTH_TIMES: dict[str, Any] = {
    "properties": {"time": {"type": "string"}, "delay_s": {"type": "integer"}},
    "required": ["time", "delay_s"],
}
"""A time and a delay: one of them has to be null or absent."""


def checked_schedule_name(name: str) -> str:
    """The name, if a schedule may have it.

    Raises:
        ValueError: it may not; with what to write.
    """
    if not SCHEDULE_NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} is no name of a schedule; write up to 63 letters, digits, _ and -, a letter or "
            "digit first and last"
        )
    return name
