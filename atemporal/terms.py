"""The terms of an installation: what it accepts of a job beyond what every installation does.

Promise: a job that its operator does not want, or that could not be held to its bounds, is refused at
every door (HTTP, batch, AMQP, schedules) before anything happens, with what to do.
Mechanism: settings list the options of docker's that jobs may use, and the directories of a machine that
they may have; a container gets GPUs only where every instance it may get has some (EC2's families g and
p: docs.aws.amazon.com/ec2/latest/instancetypes, Accelerated computing). Prices say whether a bound on
the cost can be held.
Failure: terms are those of the process that accepts the job. One that was accepted before they changed
runs as it was accepted.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from atemporal.errors import Invalid
from atemporal.model import JobSpec
from atemporal.model.container import FIELDS, JOB_OPTIONS, host_path
from atemporal.prices import Prices
from atemporal.settings import PREFIX, Settings

# g4ad has AMD's; docker's --gpus is NVIDIA's.
_WITH_GPUS = re.compile(r"(?!g4ad\.)(?:gr|g|p)[0-9][a-z0-9-]*\..+")


@dataclass(frozen=True)
class Terms:
    """What is accepted of a job here."""

    prices: Prices = field(default_factory=Prices)
    options: frozenset[str] = frozenset(JOB_OPTIONS)
    host_paths: Sequence[str] = ()
    instance_type: str = ""

    @classmethod
    def of(cls, settings: Settings, prices: Prices) -> Terms:
        """Those of a deployment."""
        return cls(
            prices, frozenset(settings.job_options), settings.host_paths, settings.instance_type
        )

    def check(self, spec: JobSpec, *, within: str = "") -> None:
        """Refuse what is not accepted; `within` is what the job's fields are part of.

        Raises:
            Invalid: with each such field, why, and what to do.
        """
        self.prices.check(spec, within=within)
        wrong = {f"{within}{name}": why for name, why in self._refused(spec).items()}
        if wrong:
            raise Invalid(wrong)

    def _refused(self, spec: JobSpec) -> dict[str, str]:
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
        types = spec.machine.instance_types or (self.instance_type,)
        without = [name for name in types if not _WITH_GPUS.fullmatch(name)]
        if spec.gpus is not None and without:
            wrong.setdefault(
                "gpus",
                f"{', '.join(without)} has no NVIDIA GPU: ask for instance types that have, like "
                "g6.xlarge",
            )
        return wrong

    def _is_forbidden(self, spec: JobSpec, name: str) -> bool:
        value = getattr(spec, name)
        return name != "network" and value not in (None, ()) and name not in self.options

    def _may_have(self, path: str) -> bool:
        return any(path == one or path.startswith(f"{one}/") for one in self.host_paths)


ANY_TERMS = Terms()
"""Those of a deployment that sets nothing."""


def _not_allowed(option: str) -> str:
    return (
        f"the operator of this installation does not allow it: leave it out, or have {option} added to "
        f"{PREFIX}JOB_OPTIONS"
    )
