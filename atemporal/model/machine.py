"""The instance that a job wants.

Promise: what EC2 could not mean by such a type or subnet is refused at the submit; whether it has such a
type, and room for one, only the launch can tell.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AliasChoices, Field, Strict, field_validator

from atemporal.model import forms
from atemporal.model.frozen import Frozen

CapacityType = Literal["on-demand", "spot", "spot-then-on-demand"]


class Machine(Frozen):
    """The instance a job wants; what is left out comes from the deployment's settings."""

    instance_types: tuple[forms.InstanceType, ...] = Field(
        default=(),
        max_length=20,
        description="The kinds of machine that will do, like t3.small, the first one first.",
    )
    # The first name of this field, which clients may still write.
    capacity_type: CapacityType = Field(
        default="on-demand",
        validation_alias=AliasChoices("capacity_type", "market"),
        description="How to pay for the machine.",
    )
    subnets: tuple[forms.Subnet, ...] = Field(
        default=(), description="The subnets that will do, the first one first."
    )
    disk_gb: Annotated[int, Strict(), Field(ge=8, le=16_384)] | None = Field(
        default=None, description="The size of the machine's disk, in GiB."
    )

    @field_validator("instance_types")
    @classmethod
    def _types_look_right(cls, types: tuple[str, ...]) -> tuple[str, ...]:
        for name in types:
            if not forms.INSTANCE_TYPE.fullmatch(name):
                raise ValueError(f"{name!r} is not an instance type; write for example t3.small")
        return types
