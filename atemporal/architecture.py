"""The processors of an instance type, by its name.

Promise: who submits a job is told at once that its instance types can not share an image, without a
question to EC2. Of EC2's types every one says it so but the Macs, which boot nothing of ours.
Source: the EC2 guide's page on instance type naming conventions: a family, a generation and letters
for what is special, among them `g` for Graviton, which is arm64; `a1` is older than the convention.

Failure: a name that breaks the convention gets an image of the wrong kind, and EC2 refuses the launch
and says so. `atemporal doctor` asks EC2 about the type of the settings.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from atemporal.errors import Invalid

_NAME = re.compile(r"(?P<family>[a-z]+|u-)(?P<generation>[0-9]+)(?P<special>[a-z-]*)")


def architecture(instance_type: str) -> str:
    """The processor architecture as EC2 names it: x86_64 or arm64."""
    name = _NAME.match(instance_type)
    if name is None:
        return "x86_64"
    is_arm = name["family"] + name["generation"] == "a1" or "g" in name["special"]
    return "arm64" if is_arm else "x86_64"


def check_one(instance_types: Sequence[str]) -> None:
    """Refuse types that can not share an image: one that is for both there is not.

    Raises:
        Invalid: naming a type of each architecture.
    """
    of = {architecture(one): one for one in reversed(instance_types)}
    if len(of) > 1:
        named = " and ".join(f"{one} has {what}" for what, one in sorted(of.items()))
        why = f"all have to be of one architecture, for one image: {named}; submit a job for each"
        raise Invalid({"machine.instance_types": why})
