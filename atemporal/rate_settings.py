"""How much of EC2's limits on calls an installation may use: token buckets, as EC2 has them.

Source: docs.aws.amazon.com/ec2/latest/devguide/ec2-api-throttling.html.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic_settings import BaseSettings


class RateSettings(BaseSettings):
    """The buckets of the calls that are made often: the burst is how many tokens fit, the rate how many
    come a second."""

    run_instances_burst: Annotated[float, Field(ge=1)] = Field(
        default=5.0,
        description="RunInstances calls at once, of all launchers together; EC2's limit for the "
        "account and region, less what else uses it. So are all that follow, to delete_volume_rate",
    )
    run_instances_rate: Annotated[float, Field(gt=0)] = Field(
        default=2.0, description="RunInstances calls a second"
    )
    instances_burst: Annotated[float, Field(ge=1)] = Field(
        default=1000.0, description="instances launched at once; EC2's resource bucket"
    )
    instances_rate: Annotated[float, Field(gt=0)] = Field(
        default=2.0, description="instances launched a second"
    )
    terminate_instances_burst: Annotated[float, Field(ge=1)] = Field(
        default=100.0, description="TerminateInstances calls at once"
    )
    terminate_instances_rate: Annotated[float, Field(gt=0)] = Field(
        default=5.0, description="TerminateInstances calls a second"
    )
    terminated_burst: Annotated[float, Field(ge=1)] = Field(
        default=1000.0, description="instances terminated at once; EC2's resource bucket"
    )
    terminated_rate: Annotated[float, Field(gt=0)] = Field(
        default=20.0, description="instances terminated a second"
    )
    describe_burst: Annotated[float, Field(ge=1)] = Field(
        default=100.0, description="Describe calls at once, of all actions together"
    )
    describe_rate: Annotated[float, Field(gt=0)] = Field(
        default=20.0, description="Describe calls a second"
    )
    console_burst: Annotated[float, Field(ge=1)] = Field(
        default=100.0, description="GetConsoleOutput calls at once"
    )
    console_rate: Annotated[float, Field(gt=0)] = Field(
        default=20.0, description="GetConsoleOutput calls a second"
    )
    create_tags_burst: Annotated[float, Field(ge=1)] = Field(
        default=100.0, description="CreateTags calls at once"
    )
    create_tags_rate: Annotated[float, Field(gt=0)] = Field(
        default=10.0, description="CreateTags calls a second"
    )
    delete_volume_burst: Annotated[float, Field(ge=1)] = Field(
        default=50.0, description="DeleteVolume calls at once"
    )
    delete_volume_rate: Annotated[float, Field(gt=0)] = Field(
        default=5.0, description="DeleteVolume calls a second"
    )
