"""What an instance type's name says.

Source: the EC2 guide's page on instance type naming conventions: a family, a generation and letters
for what is special, among them `g` for Graviton, which is arm64; `a1` is older than the convention.
"""

from __future__ import annotations

import re

_NAME = re.compile(r"(?P<family>[a-z]+|u-)(?P<generation>[0-9]+)(?P<special>[a-z-]*)")


def architecture(instance_type: str) -> str:
    """The processor architecture as EC2 names it: x86_64 or arm64."""
    name = _NAME.match(instance_type)
    if name is None:
        return "x86_64"
    is_arm = name["family"] + name["generation"] == "a1" or "g" in name["special"]
    return "arm64" if is_arm else "x86_64"
