"""The infrastructure: planned, created or changed, and taken away, by Terraform."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from atemporal.errors import Refused
from deploy.production.servers import Servers
from deploy.production.tools import FOLDER, IMAGE, Deployment, Needs, Tools, agree
from deploy.terraform import summary

TERRAFORM = "https://developer.hashicorp.com/terraform/install (1.10 or newer)"
AWS = "https://aws.amazon.com/cli/"
IMAGE_HOW = (
    "make ... IMAGE=ACCOUNT.dkr.ecr.REGION.amazonaws.com/atemporal:TAG, "
    "as `make registry` prints it"
)
# What refuses to be deleted, and what AWS keeps for a while, as long as var.protected is true.
PROTECTED = ("aws_db_instance.this", "aws_lb.this", "aws_secretsmanager_secret.this")


class Infrastructure:
    """One deployment's, in one state."""

    def __init__(self, tools: Tools, deployment: Deployment, *, bucket: str) -> None:
        """Nothing is asked yet."""
        self._tools = tools
        self._deployment = deployment
        self._bucket = bucket

    def _terraform(self, *argv: str) -> None:
        self._tools.run("terraform", *argv, cwd=FOLDER)

    def _init(self) -> None:
        options = {
            "bucket": self._bucket,
            "key": f"atemporal/{self._deployment.name}.tfstate",
            "region": self._deployment.region,
            "encrypt": "true",
            "use_lockfile": "true",
        }
        backend = [f"-backend-config={name}={value}" for name, value in options.items()]
        self._terraform("init", "-input=false", "-reconfigure", *backend)

    def _variables(self, image: str, **more: str) -> list[str]:
        named = {"deployment": self._deployment.name, "image": image, **more}
        pairs = [f"-var={name}={value}" for name, value in named.items()]
        return ["-input=false", f"-var-file={self._deployment.file}", *pairs]

    def plan(self, image: str) -> None:
        """Show what would change."""
        self._init()
        self._terraform("plan", *self._variables(image))

    def up(self, image: str, *, yes: bool, first: Callable[[], None] | None = None) -> None:
        """Create or change everything, once a person has seen the plan; before it, what is `first`."""
        self._init()
        # The plan holds passwords: it is gone with the folder.
        with tempfile.TemporaryDirectory() as folder:
            plan = str(Path(folder) / "plan")
            self._terraform("plan", f"-out={plan}", *self._variables(image))
            agree("Carry that out? It costs money from then on. (yes)", "yes", given="yes" * yes)
            if first is not None:
                first()
            self._terraform("apply", "-input=false", plan)
        self._terraform("output")

    def down(self) -> None:
        """Take everything away; the database's final snapshot stays. Again, after a failure.

        Raises:
            Refused: jobs' instances live, or a snapshot of that name is there already.
        """
        servers = Servers(self._tools, self._deployment)
        # While servers work, which end them.
        servers.check_jobs()
        self._check_snapshot()
        self._init()
        servers.stop()
        variables = self._variables("none:none", protected="false")
        # By address: what an earlier attempt took away would be made anew.
        if held := [one for one in self._state() if one.partition("[")[0] in PROTECTED]:
            targets = [f"-target={one}" for one in held]
            self._terraform("apply", "-auto-approve", *targets, *variables)
        self._terraform("destroy", "-auto-approve", *variables)

    def _check_snapshot(self) -> None:
        """Refuse if the database could not leave its snapshot; without one there is none to leave."""
        database = f"atemporal-{self._deployment.name}"
        region = ("--region", self._deployment.region)
        states = self._tools.json(
            *("aws", "rds", "describe-db-instances", *region, "--query"),
            f"DBInstances[?DBInstanceIdentifier=='{database}'].DBInstanceStatus",
        )
        if not states:
            return
        if "deleting" in states:
            raise Refused(
                f"the database {database} is being deleted already: wait for the end of that, and try "
                "again; nothing has been done"
            )
        snapshot = f"{database}-final"
        taken = self._tools.json(
            *("aws", "rds", "describe-db-snapshots", *region),
            *("--query", "DBSnapshots[].DBSnapshotIdentifier"),
        )
        if snapshot in taken:
            raise Refused(
                f"there is a snapshot {snapshot} already, of an earlier time: copy it under another "
                "name (aws rds copy-db-snapshot), delete it once the copy is available, and try again; "
                "nothing has been done"
            )

    def _state(self) -> list[str]:
        """The addresses of all that Terraform knows to be there."""
        return self._tools.ask("terraform", "state", "list", cwd=FOLDER).splitlines()


def needs_of(tools: Tools, name: str, bucket: str) -> tuple[Needs, Deployment]:
    """What every command here needs."""
    needs = Needs(tools)
    needs.programs(terraform=TERRAFORM, aws=AWS)
    needs.credentials()
    deployment = Deployment.find(needs, name)
    if not bucket:
        needs.missing["STATE_BUCKET"] = (
            "not given: the S3 bucket for Terraform's state, private and with versions; see "
            f"{FOLDER / 'README.md'}"
        )
    return needs, deployment


def plan(tools: Tools, name: str, image: str, bucket: str) -> None:
    """Say what would be created and what it costs; with all that is needed, Terraform's plan too."""
    needs, deployment = needs_of(tools, name, bucket)
    print(summary.text(deployment.region or summary.REGIONS[0]))
    if needs.missing:
        print("\nTerraform's own plan, of what would change in your account, needs besides:")
        for what, why in needs.missing.items():
            print(f"  {what}: {why}")
        return
    Infrastructure(tools, deployment, bucket=bucket).plan(image or "none:none")


def up(tools: Tools, name: str, image: str, bucket: str, *, yes: bool) -> None:
    """Create or change the infrastructure.

    Raises:
        Invalid: with all that is missing.
    """
    needs, deployment = needs_of(tools, name, bucket)
    needs.value("IMAGE", image, IMAGE, IMAGE_HOW)
    needs.check()
    say(deployment)
    Infrastructure(tools, deployment, bucket=bucket).up(image, yes=yes)
    print(f"\nNext: make deploy DEPLOYMENT={name} IMAGE={image}")


def say(deployment: Deployment) -> None:
    """What `up` is about to do."""
    print(
        f"Creating or changing {deployment.name} in {deployment.region}; "
        "half an hour if nothing is there yet."
    )


def down(tools: Tools, name: str, bucket: str, *, confirm: str) -> None:
    """Take the infrastructure away, once a person has typed its name.

    Raises:
        Invalid: with all that is missing.
        Refused: another name was typed, or something lives that would be left behind.
    """
    needs, deployment = needs_of(tools, name, bucket)
    needs.check()
    print(
        f"This takes away {name} in {deployment.region}: servers, broker, network, logs, secrets, and "
        f"the database with all jobs. What stays is its snapshot atemporal-{name}-final."
    )
    agree("Type the deployment's name to go on:", name, given=confirm)
    Infrastructure(tools, deployment, bucket=bucket).down()
