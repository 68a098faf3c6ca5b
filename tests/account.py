"""An AWS account as `deploy.production` sees it: stand-ins for aws, terraform and docker."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from deploy.production.rollout import ORDER
from tests.stand_ins import StandIns

ACCOUNT = "111122223333"
HOST = f"{ACCOUNT}.dkr.ecr.eu-central-1.amazonaws.com"
OLD, NEW = f"{HOST}/atemporal:1.0", f"{HOST}/atemporal:1.1"
SERVERS = ("i-0a", "i-0b", "i-0c")
ARNS = {"api": "arn:api", "machines": "arn:machines"}
COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONFIG, MANIFEST = "sha256:" + "c" * 64, "sha256:" + "d" * 64
HELD = (
    "aws_db_instance.this",
    'aws_lb.this["api"]',
    'aws_lb.this["machines"]',
    'aws_secretsmanager_secret.this["stores"]',
)
STATE = ("aws_autoscaling_group.servers", *HELD, "aws_lb_target_group.this")


def built(revision: str | None = COMMIT, digests: Sequence[str] = ()) -> dict[str, object]:
    """An image on this machine, as docker tells of it."""
    labels = None if revision is None else {"org.opencontainers.image.revision": revision}
    return {
        "Id": CONFIG,
        "RepoDigests": [f"{HOST}/atemporal@{one}" for one in digests],
        "Config": {"Labels": labels},
    }


def pushed(config: str | None = CONFIG) -> dict[str, object]:
    """What the registry has under a tag; without a configuration it is an index."""
    manifest = {} if config is None else {"config": {"digest": config}}
    image = {"imageId": {"imageDigest": MANIFEST}, "imageManifest": json.dumps(manifest)}
    return {"images": [image], "failures": []}


class Clock:
    """Passes when somebody sleeps; `when` lets something happen by then."""

    def __init__(self) -> None:
        """At 0 s."""
        self.now = 0.0
        self._later: list[tuple[float, Callable[[], None]]] = []

    def when(self, at: float, happens: Callable[[], None]) -> None:
        """Once `at` has come, in seconds."""
        self._later.append((at, happens))

    def sleep(self, seconds: float) -> None:
        """The time passes, and what is due happens."""
        self.now += seconds
        due = [happens for at, happens in self._later if at <= self.now]
        self._later = [one for one in self._later if one[0] > self.now]
        for happens in due:
            happens()


def account(folder: Path) -> StandIns:
    """One with three servers in `production` that run the old image."""
    made = StandIns(folder, "aws", "terraform", "docker", "git")
    made.answers("sts get-caller-identity", {"Account": ACCOUNT})
    made.answers("ec2 describe-instances", [])
    made.answers("rds describe-db-instances", ["available"])
    made.answers("rds describe-db-snapshots", [])
    made.answers("terraform state list", "\n".join(STATE))
    made.answers("ecr describe-repositories", ["atemporal"])
    made.answers(
        "ecr batch-get-image", {"images": [], "failures": [{"failureCode": "ImageNotFound"}]}
    )
    made.answers("docker image inspect", built())
    made.answers("git rev-parse", "", code=1)
    made.answers("ecr get-login-password", "a-password")
    group = [{"InstanceId": one, "LifecycleState": "InService"} for one in SERVERS]
    sized = {"Instances": group, "MinSize": 3, "DesiredCapacity": 3}
    made.answers("describe-auto-scaling-groups", {"AutoScalingGroups": [sized]})
    made.answers("describe-instance-refreshes", {"InstanceRefreshes": [{"Status": "Successful"}]})
    for name, arn in ARNS.items():
        made.answers(f"--names production-{name}", {"TargetGroups": [{"TargetGroupArn": arn}]})
    images = [{"Name": f"/atemporal/production/image/{one}", "Value": OLD} for one in ORDER]
    made.answers("get-parameters-by-path", {"Parameters": images})
    online = [{"InstanceId": one, "PingStatus": "Online"} for one in SERVERS]
    made.answers("describe-instance-information", {"InstanceInformationList": online})
    made.answers("ssm send-command", {"Command": {"CommandId": "good"}})
    made.answers("get-command-invocation", {"Status": "Success"})
    return made
