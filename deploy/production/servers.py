"""The servers' group: emptied before everything is taken away, and filled again if that is refused.

Promise: after `stop` no server works and no instance of a job lives, so none is launched any more and
none is left that nobody would end. Otherwise `Refused`, and the group is as large as before.
Mechanism: the group is set to nobody. Then EC2 is asked, as it tells of a new instance only after a
while: two looks in a row have to find none.
Failure: whoever kills this in between finds a group of nobody; `make infra-up` fills it, and
`make infra-down` goes on from there.
"""

from __future__ import annotations

from dataclasses import dataclass

from atemporal.errors import Refused
from deploy.production.tools import Deployment, Tools

_LIVING = "Name=instance-state-name,Values=pending,running,stopping,stopped,shutting-down"
_LOOK_S = 15.0
_SERVERS_S = 900.0
_JOBS_S = 300.0


@dataclass(frozen=True)
class Size:
    """How many servers a group has to have."""

    least: int
    wanted: int


class Servers:
    """One deployment's."""

    def __init__(self, tools: Tools, deployment: Deployment) -> None:
        """Nothing is asked yet."""
        self._tools = tools
        self._name = deployment.name
        self._region = ("--region", deployment.region)
        self._group = f"atemporal-{deployment.name}-servers"

    def check_jobs(self) -> None:
        """Look once whether instances of jobs live.

        Raises:
            Refused: they do.
        """
        if living := self._living("atemporal:deployment"):
            raise self._nobody_would_end(living)

    def stop(self) -> None:
        """Take all servers out of service, and wait until none and no instance of a job lives.

        Raises:
            Refused: one does not go; as many servers as before are wanted again.
        """
        before = self._size()
        if before is not None:
            self._resize(Size(0, 0))
        try:
            if servers := self._left("atemporal:server", _SERVERS_S):
                raise Refused(f"{' '.join(servers)} does not end: look at EC2's console")
            if jobs := self._left("atemporal:deployment", _JOBS_S):
                raise self._nobody_would_end(jobs)
        except (Refused, KeyboardInterrupt) as stopped:
            self._fill_again(before, stopped)
            raise

    @staticmethod
    def _nobody_would_end(living: list[str]) -> Refused:
        return Refused(
            f"{len(living)} instances of jobs live, {living[0]} for example: nobody would end them "
            "afterwards. `atemporal drain` waits for them and lets none begin; or cancel their jobs; "
            "or, if no server works any more, end them yourself (aws ec2 terminate-instances "
            f"--instance-ids {' '.join(living)}); then try again"
        )

    def _fill_again(self, before: Size | None, stopped: BaseException) -> None:
        if before is None or not before.wanted:
            print("No server works: `make infra-up` starts them again.", flush=True)
            return
        print(f"{before.wanted} servers are started again.", flush=True)
        try:
            self._resize(before)
        except Refused as worse:
            raise Refused(
                f"{stopped}. No server works, as they could not be started again: {worse}; "
                "`make infra-up` does it"
            ) from worse

    def _size(self) -> Size | None:
        """None: there is no group, after an earlier attempt that got further."""
        found = self._tools.json(
            *("aws", "autoscaling", "describe-auto-scaling-groups", *self._region),
            *("--auto-scaling-group-names", self._group),
        )["AutoScalingGroups"]
        return Size(int(found[0]["MinSize"]), int(found[0]["DesiredCapacity"])) if found else None

    def _resize(self, size: Size) -> None:
        self._tools.run(
            *("aws", "autoscaling", "update-auto-scaling-group", *self._region),
            *("--auto-scaling-group-name", self._group),
            *("--min-size", str(size.least), "--desired-capacity", str(size.wanted)),
        )

    def _left(self, tag: str, within_s: float) -> list[str]:
        """Who of the tag still lives after so many seconds; nobody once two looks agree on it."""
        end = self._tools.now() + within_s
        empty = 0
        while True:
            living = self._living(tag)
            empty = 0 if living else empty + 1
            if empty == 2 or (living and self._tools.now() >= end):
                return living
            self._tools.sleep(_LOOK_S)

    def _living(self, tag: str) -> list[str]:
        found = self._tools.json(
            *("aws", "ec2", "describe-instances", *self._region),
            *("--filters", f"Name=tag:{tag},Values={self._name}", _LIVING),
            *("--query", "Reservations[].Instances[].InstanceId"),
        )
        return [str(one) for one in found]
