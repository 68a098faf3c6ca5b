"""A new image on the servers: kind by kind, one server after the other.

Promise: at any time all but one server's daemon of a kind work, and no API of the release before works
when the first new scheduler starts (docs/runbook.md, Upgrading). An API is drained first: no load
balancer sends it anything when it stops. Whatever becomes of it, it is registered again. A daemon that
is not ready in time stops the rollout. Its server goes back to the image before, and nobody else has
been touched.
Mechanism: a parameter for each daemon names its image, also for a server that boots meanwhile. The
servers are told by Systems Manager to take it (`/opt/atemporal/server take`); nothing here logs in.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from atemporal.errors import Refused
from deploy.production.infra import AWS, IMAGE_HOW
from deploy.production.tools import IMAGE, Deployment, Needs, Tools

ORDER = ("api", "reaper", "scheduler", "launcher")
"""Each kind whole before the next begins; the other way round to go back."""
_BALANCERS = ("api", "machines")
_POLL_S = 3.0
_BOOT_S = 900.0
_TAKE_S = 600
_REPLACING = ("Pending", "InProgress", "Cancelling", "Baking", "RollbackInProgress")
_UNDER_WAY = ("Pending", "InProgress", "Delayed", "Cancelling")


class Rollout:
    """Of one image to one deployment's servers."""

    def __init__(self, tools: Tools, deployment: Deployment, image: str) -> None:
        """Nothing is asked yet."""
        self._tools = tools
        self._region = ("--region", deployment.region)
        self._name = deployment.name
        self._image = image

    def run(self, *, back: bool) -> None:
        """Carry it out; `back` is to an older release: in the reverse order, the tables as they are.

        Raises:
            Refused: a server or a daemon does not come; what has been done is said.
        """
        servers = self._servers()
        groups = [self._group(balancer) for balancer in _BALANCERS]
        before = self._images()
        self._wait_for_agents(servers)
        print(f"{len(servers)} servers: {' '.join(servers)}", flush=True)
        if not back:
            self._choose("api", self._image)
            print("the database is brought to the new release", flush=True)
            try:
                self._command(servers[0], "once", "db", "upgrade")
            except Refused:
                self._choose("api", before["api"])
                raise
        done: list[str] = []
        for daemon in reversed(ORDER) if back else ORDER:
            self._choose(daemon, self._image)
            for server in servers:
                under = groups if daemon == "api" else ()
                try:
                    self._take(daemon, server, under)
                except Refused as error:
                    self._give_up(daemon, server, under, before[daemon], done, error)
                done.append(f"{daemon} on {server}")
                print(f"{daemon} on {server}: {self._image}", flush=True)

    def _take(self, daemon: str, server: str, groups: Sequence[str]) -> None:
        target = ("--targets", f"Id={server}")
        # Registered again also when it failed: the one before may still serve, and the load balancer
        # looks for itself. Each is tried, whatever becomes of the others.
        with ExitStack() as again:
            for group in reversed(groups):
                again.callback(self._elb, "register-targets", group, *target)
            for group in groups:
                self._elb("deregister-targets", group, *target)
            for group in groups:
                self._elb("wait", "target-deregistered", group, *target)
            self._command(server, "take", daemon)
        for group in groups:
            self._elb("wait", "target-in-service", group, *target)

    def _give_up(
        self,
        daemon: str,
        server: str,
        groups: Sequence[str],
        before: str,
        done: Sequence[str],
        error: Refused,
    ) -> None:
        self._choose(daemon, before)
        try:
            self._command(server, "take", daemon)
            back = f"it runs {before} again"
        except Refused as worse:
            back = f"and does not come back with {before} either: {worse}"
        for group in groups:
            # Once more, for whom it failed; it does no harm to the others.
            try:
                self._elb("register-targets", group, "--targets", f"Id={server}")
            except Refused as worse:
                back += (
                    f"\nIt gets no calls until it is registered: {worse}: aws elbv2 register-targets "
                    f"{shlex.join(self._region)} --target-group-arn {group} --targets Id={server}"
                )
        raise Refused(
            f"{daemon} on {server} does not work with {self._image}: {_why(error)}\n{back}. "
            f"Done before: {', '.join(done) or 'nothing'}. The others were not touched. To go back "
            f"everywhere: make deploy BACK=1 DEPLOYMENT={self._name} IMAGE={before}"
        )

    def _servers(self) -> list[str]:
        group = f"atemporal-{self._name}-servers"
        found = self._aws(
            "autoscaling", "describe-auto-scaling-groups", "--auto-scaling-group-names", group
        )
        listed = [one for each in found["AutoScalingGroups"] for one in each["Instances"]]
        servers = sorted(
            one["InstanceId"] for one in listed if one["LifecycleState"] == "InService"
        )
        if not servers:
            raise Refused(f"{group} has no server in service: run `make infra-up` first")
        refreshes = self._aws(
            "autoscaling", "describe-instance-refreshes", "--auto-scaling-group-name", group
        )
        if any(one["Status"] in _REPLACING for one in refreshes["InstanceRefreshes"]):
            raise Refused(
                f"the servers of {group} are being replaced: wait for the end of that, which may take "
                "two hours, or end it with `aws autoscaling cancel-instance-refresh "
                f"{shlex.join(self._region)} --auto-scaling-group-name {group}`"
            )
        return servers

    def _group(self, balancer: str) -> str:
        name = f"{self._name}-{balancer}"
        found = self._aws("elbv2", "describe-target-groups", "--names", name)
        return str(found["TargetGroups"][0]["TargetGroupArn"])

    def _images(self) -> dict[str, str]:
        path = f"/atemporal/{self._name}/image"
        found = self._aws("ssm", "get-parameters-by-path", "--path", path)
        images = {one["Name"].rpartition("/")[2]: str(one["Value"]) for one in found["Parameters"]}
        if missing := sorted(set(ORDER) - set(images)):
            raise Refused(f"no parameter {path}/{missing[0]}: run `make infra-up` first")
        return images

    def _choose(self, daemon: str, image: str) -> None:
        name = f"/atemporal/{self._name}/image/{daemon}"
        self._aws("ssm", "put-parameter", "--overwrite", "--name", name, "--value", image)

    def _wait_for_agents(self, servers: Sequence[str]) -> None:
        end = self._tools.now() + _BOOT_S
        filters = f"Key=InstanceIds,Values={','.join(servers)}"
        while True:
            found = self._aws("ssm", "describe-instance-information", "--filters", filters)
            online = {
                one["InstanceId"]
                for one in found["InstanceInformationList"]
                if one["PingStatus"] == "Online"
            }
            if away := sorted(set(servers) - online):
                if self._tools.now() >= end:
                    raise Refused(
                        f"Systems Manager does not reach {' '.join(away)}: look at its console"
                    )
                self._tools.sleep(_POLL_S)
                continue
            return

    def _command(self, server: str, *argv: str) -> None:
        """Run `/opt/atemporal/server` there, and wait for its end."""
        line = shlex.join(["/opt/atemporal/server", *argv])
        parameters = {"commands": [line], "executionTimeout": [str(_TAKE_S)]}
        sent = self._aws(
            *("ssm", "send-command", "--document-name", "AWS-RunShellScript"),
            *("--instance-ids", server, "--parameters", json.dumps(parameters)),
        )
        command = str(sent["Command"]["CommandId"])
        asked = ("--command-id", command, "--instance-id", server)
        # Systems Manager gives up by itself, and says so.
        end = self._tools.now() + _TAKE_S + 60
        while True:
            try:
                found = self._aws("ssm", "get-command-invocation", *asked)
            except Refused as error:
                # For a moment it does not know of its own command.
                if "InvocationDoesNotExist" not in str(error):
                    raise
                found = {"Status": "Pending"}
            if found["Status"] == "Success":
                return
            if found["Status"] not in _UNDER_WAY or self._tools.now() >= end:
                words = (found.get("StandardErrorContent") or found["Status"]).strip()
                raise Refused(f"`{line}` on {server}: {words}")
            self._tools.sleep(_POLL_S)

    def _elb(self, *argv: str) -> None:
        *call, group, option, target = argv
        self._tools.ask(
            "aws", "elbv2", *call, *self._region, "--target-group-arn", group, option, target
        )

    def _aws(self, *argv: str) -> Any:
        return self._tools.json("aws", *argv[:2], *self._region, *argv[2:])


def _why(error: BaseException) -> str:
    """What went wrong first, and what after it."""
    first = error.__context__
    return f"{_why(first)}; {error}" if isinstance(first, Refused) else str(error)


def deploy(tools: Tools, name: str, image: str, *, back: bool) -> None:
    """Bring the image to all servers.

    Raises:
        Invalid: with all that is missing.
        Refused: it stopped; what has been done is said.
    """
    needs = Needs(tools)
    needs.programs(aws=AWS)
    needs.credentials()
    deployment = Deployment.find(needs, name)
    needs.value("IMAGE", image, IMAGE, IMAGE_HOW)
    needs.check()
    order = reversed(ORDER) if back else ORDER
    print(
        f"Bringing {image} to {name} in {deployment.region}, one after the other: {', '.join(order)}."
    )
    Rollout(tools, deployment, image).run(back=back)
    print(f"{name} runs {image}")
