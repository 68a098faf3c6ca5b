"""The terms of an installation: what it accepts of a job beyond what every installation does.

Promise: a job that its operator does not want, or that could not be launched as it wants, is refused at
every door (HTTP, batch, AMQP, schedules) before anything happens, with what to do.
Mechanism: settings list the options of docker's that jobs may use, and the directories of a machine that
they may have. A container gets GPUs only where every instance it may get has some (EC2's families g and
p: docs.aws.amazon.com/ec2/latest/instancetypes, Accelerated computing). A bound on the cost has prices;
what is delivered by claim has machines that can prove which instance they are.
Failure: terms are those of the process that accepts the job, which has read its settings when it
started. A job that was accepted under others runs as it was accepted, or fails at its launch and says
why.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from atemporal import prices as price_tables
from atemporal import registries as registry_files
from atemporal.errors import Invalid
from atemporal.identity.trusted import can_verify
from atemporal.model import JobSpec
from atemporal.model.container import FIELDS, JOB_OPTIONS, host_path
from atemporal.prices import NO_PRICES, Prices
from atemporal.registries import NO_REGISTRIES, Registries
from atemporal.settings import PREFIX, Settings
from atemporal.userdata import delivery_of

# g4ad has AMD's; docker's --gpus is NVIDIA's.
_WITH_GPUS = re.compile(r"(?!g4ad\.)(?:gr|g|p)[0-9][a-z0-9-]*\..+")


@dataclass(frozen=True)
class Terms:
    """What is accepted of a job here."""

    prices: Prices = NO_PRICES
    claims: bool = True
    """Whether machines can be told their jobs by claim."""
    registries: Registries = NO_REGISTRIES
    options: frozenset[str] = frozenset(JOB_OPTIONS)
    host_paths: Sequence[str] = ()
    instance_type: str = ""
    roles: bool = True
    """Whether instances have a role, by which they get secrets by reference."""

    @classmethod
    def of(cls, settings: Settings) -> Terms:
        """Those of a deployment.

        Raises:
            Invalid: the price table, or what opens registries, can not be read.
        """
        return cls(
            price_tables.load(settings),
            can_verify(settings),
            registry_files.load(settings),
            frozenset(settings.job_options),
            settings.host_paths,
            settings.instance_type,
            bool(settings.instance_profile),
        )

    def check(self, spec: JobSpec, *, within: str = "") -> None:
        """Refuse what is not accepted; `within` is what the job's fields are part of.

        Raises:
            Invalid: with each such field, why, and what to do.
        """
        self.prices.check(spec, within=within)
        wrong = self._not_wanted(spec) | self._not_possible(spec)
        if wrong:
            raise Invalid({f"{within}{name}": why for name, why in wrong.items()})

    def _not_wanted(self, spec: JobSpec) -> dict[str, str]:
        wrong = {name: _not_allowed(name) for name in FIELDS if self._is_forbidden(spec, name)}
        if spec.network != "bridge" and f"network={spec.network}" not in self.options:
            wrong["network"] = _not_allowed(f"network={spec.network}")
        for volume in spec.volumes:
            path = host_path(volume)
            if path is not None and not self._may_have(path):
                wrong["volumes"] = (
                    f"{path} of the machine may not be had here: name a directory of the container "
                    f"alone, or have the operator add it to {PREFIX}HOST_PATHS"
                )
        return wrong

    def _is_forbidden(self, spec: JobSpec, name: str) -> bool:
        value = getattr(spec, name)
        return name != "network" and value not in (None, ()) and name not in self.options

    def _may_have(self, path: str) -> bool:
        return any(path == one or path.startswith(f"{one}/") for one in self.host_paths)

    def _not_possible(self, spec: JobSpec) -> dict[str, str]:
        wrong = {}
        types = spec.machine.instance_types or (self.instance_type,)
        without = [name for name in types if not _WITH_GPUS.fullmatch(name)]
        if spec.gpus is not None and without:
            wrong["gpus"] = (
                f"{', '.join(without)} has no NVIDIA GPU: ask for instance types that have, like "
                "g6.xlarge"
            )
        if spec.secret_refs and not self.roles:
            wrong["secret_refs"] = (
                "the role of the job's instance would get them from AWS, and here instances have none: "
                "have the operator name an instance profile whose role may read them "
                f"({PREFIX}INSTANCE_PROFILE), or give their values as secrets"
            )
        private = self.registries.opens(spec.image) is not None
        if private and spec.delivery == "inline":
            wrong["delivery"] = (
                "what opens its image's registry is told by claim alone: leave delivery out"
            )
        elif not self.claims and (private or delivery_of(spec) == "claim"):
            wrong[_why_by_claim(spec)] = (
                "is delivered by claim, and here no machine can prove which instance it is: have the "
                "operator name the certificate of EC2's instance identity documents "
                f"({PREFIX}IDENTITY_CERTIFICATES), or believe machines without a proof "
                f"({PREFIX}INSTANCE_IDENTITY=off)"
            )
        return wrong


NO_TERMS = Terms()
"""Those of a deployment that sets nothing."""


def _why_by_claim(spec: JobSpec) -> str:
    """The field for which a job is delivered by claim."""
    if delivery_of(spec) == "inline":
        return "image"
    if spec.secret_refs:
        return "secret_refs"
    return "secrets" if spec.secrets else "delivery" if spec.delivery == "claim" else "env"


def _not_allowed(option: str) -> str:
    return (
        f"the operator of this installation does not allow it: leave it out, or have {option} added to "
        f"{PREFIX}JOB_OPTIONS"
    )
