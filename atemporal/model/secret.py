"""Secrets of a job: values that only its container, its submitter and the database know.

Promise: whatever writes a specification out, writes of its secrets the names alone, each with null; so
does its `repr`. The values are had by `revealed` alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, SecretStr, WithJsonSchema

from atemporal import environment
from atemporal.model.secret_reference import REFERENCE
from atemporal.pattern import NO_NUL


def names_of(secrets: Mapping[str, Any]) -> dict[str, None]:
    """The secrets as they are shown: each name with null, in order."""
    return dict.fromkeys(sorted(secrets))


def revealed(secrets: Mapping[str, SecretStr]) -> dict[str, str]:
    """The secrets with their values: for the database, and for the machine that they are for."""
    return {name: value.get_secret_value() for name, value in secrets.items()}


def _have_values(given: Any) -> Any:
    """Tell what is shown of secrets from secrets."""
    if isinstance(given, Mapping):
        for name in given:
            environment.check_name(str(name), "a secret")
        if lacking := sorted(name for name, value in given.items() if value is None):
            raise ValueError(
                f"{', '.join(lacking)} without a value: null stands for a value that is not shown, and "
                "keeps it where a schedule that has it is edited"
            )
    return given


def check(secrets: Mapping[str, SecretStr], env: Mapping[str, str]) -> None:
    """Refuse what can not be the secrets of a job with this environment.

    Raises:
        ValueError: naming the first offender; no value is ever in the message.
    """
    environment.check(revealed(secrets))
    for name, value in revealed(secrets).items():
        if value.startswith(("ssm:/", "ssm:arn:", "secretsmanager:")) and REFERENCE.fullmatch(
            value
        ):
            raise ValueError(
                f"the value of {name} is a reference, which the program would get as it is: give it in "
                "secret_refs"
            )
    if both := sorted(secrets.keys() & env.keys()):
        raise ValueError(f"{both[0]} is in env as well: a variable has one value")


Secrets = Annotated[
    dict[str, SecretStr],
    BeforeValidator(_have_values),
    PlainSerializer(names_of, return_type=dict[str, None]),
    WithJsonSchema(
        {
            "type": "object",
            "propertyNames": {
                "pattern": environment.NAME_PATTERN,
                "not": {"pattern": environment.NO_NAME_PATTERN},
            },
            "additionalProperties": {"type": "string", "pattern": NO_NUL, "writeOnly": True},
        },
        mode="validation",
    ),
]
