"""Secrets by reference: variables of a job whose values its machine asks AWS for.

Promise: neither our records nor a message, a log or a user-data ever has such a value: the role of the
instance gets it, and the job's container has it. The reference itself is no secret, and is shown.
Mechanism: `ssm:` and the name of a parameter of the Systems Manager, perhaps with `:VERSION` or `:LABEL`
behind it (docs.aws.amazon.com/systems-manager/latest/APIReference/API_GetParameter), or
`secretsmanager:` and the name of a secret (API_GetSecretValue of the Secrets Manager); or the ARN of
either. `#FIELD` behind it is one field of a value that is a JSON object. `cloud_config/secret_resolver`
asks for it.
Failure: what the role may not have, or is not there, ends the attempt before its container starts, and
its end says what AWS answered.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, WithJsonSchema

from atemporal import environment
from atemporal.pattern import whole

_ARN = "arn:[a-z0-9-]+:{}:[a-z0-9-]+:[0-9]{{12}}:"
_STEPS = "(?:/[A-Za-z0-9_.-]+)+"
_PARAMETER = (
    f"(?:{_STEPS}|[A-Za-z0-9_.-]+|{_ARN.format('ssm')}parameter{_STEPS})(?::[A-Za-z0-9_.-]+)?"
)
# Those that RDS makes have a `!` in their names.
_SECRET = f"(?:{_ARN.format('secretsmanager')}secret:)?[A-Za-z0-9/_+=.@!-]+"
_FIELD = "(?:#[A-Za-z0-9_.-]+)?"
REFERENCE: Final = re.compile(f"(?:ssm:{_PARAMETER}|secretsmanager:{_SECRET}){_FIELD}")
LONGEST: Final = 2048


def _have_names(given: Any) -> Any:
    """A value that was put in the place of a name is not repeated."""
    if isinstance(given, Mapping):
        for name in given:
            environment.check_name(str(name), "a secret")
    return given


def check(references: Mapping[str, str], *others: Mapping[str, Any]) -> None:
    """Refuse what can not be references of a job with these other variables.

    Raises:
        ValueError: naming the first offender, and what a reference is.
    """
    environment.check(references)
    for name, reference in references.items():
        if not REFERENCE.fullmatch(reference) or len(reference) > LONGEST:
            raise ValueError(
                f"{name} refers to nothing that can be had; write ssm:NAME for a parameter of the "
                "Systems Manager, for example ssm:/team/password (:VERSION or :LABEL may follow), or "
                "secretsmanager:NAME; each may be an ARN, and #FIELD behind it is one field of an "
                "object that is JSON"
            )
        if any(name in variables for variables in others):
            raise ValueError(f"{name} is in env or in secrets as well: a variable has one value")


References = Annotated[
    dict[str, str],
    BeforeValidator(_have_names),
    WithJsonSchema(
        {
            "type": "object",
            "propertyNames": {
                "pattern": environment.NAME_PATTERN,
                "not": {"pattern": environment.NO_NAME_PATTERN},
            },
            "additionalProperties": {
                "type": "string",
                "maxLength": LONGEST,
                "pattern": whole(REFERENCE.pattern),
            },
        },
    ),
]
