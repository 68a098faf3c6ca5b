"""`python -m deploy.production COMMAND`: what `make infra-plan` and the others call."""

from __future__ import annotations

import sys

import click

from atemporal.errors import AtemporalError, Invalid
from deploy.production import infra, registry, rollout
from deploy.production.infra import AWS
from deploy.production.tools import Deployment, Needs, Tools


@click.group(help=__doc__)
def main() -> None:
    """The commands."""


@main.command
@click.option("--deployment", default="")
@click.option("--image", default="")
@click.option("--state-bucket", default="")
def plan(deployment: str, image: str, state_bucket: str) -> None:
    """Say what would be created, what it costs, and, with credentials, what would change."""
    infra.plan(Tools(), deployment, image, state_bucket)


@main.command
@click.option("--deployment", default="")
@click.option("--image", default="")
@click.option("--state-bucket", default="")
@click.option("--yes", is_flag=True)
def up(deployment: str, image: str, state_bucket: str, yes: bool) -> None:
    """Create or change the infrastructure, once you have seen the plan and agreed."""
    infra.up(Tools(), deployment, image, state_bucket, yes=yes)


@main.command
@click.option("--deployment", default="")
@click.option("--state-bucket", default="")
@click.option("--confirm", default="", help="the deployment's name, where nobody can type it")
def down(deployment: str, state_bucket: str, confirm: str) -> None:
    """Take the infrastructure away, once you have typed its name."""
    infra.down(Tools(), deployment, state_bucket, confirm=confirm)


@main.command(name="registry")
@click.option("--deployment", default="")
@click.option("--local-image", default="atemporal")
@click.option("--tag", default="")
def registry_(deployment: str, local_image: str, tag: str) -> None:
    """Push this machine's image into the account's registry."""
    registry.push(Tools(), deployment, local_image, tag)


@main.command
@click.option("--deployment", default="")
@click.option("--image", default="")
@click.option("--back", is_flag=True, help="to the release before: in the reverse order")
def deploy(deployment: str, image: str, back: bool) -> None:
    """Bring an image to the servers, one daemon after the other."""
    rollout.deploy(Tools(), deployment, image, back=back)


@main.command
@click.option("--deployment", default="")
@click.option("--local-image", default="atemporal")
@click.option("--tag", default="")
@click.option("--state-bucket", default="")
@click.option("--yes", is_flag=True)
def deploy_all(deployment: str, local_image: str, tag: str, state_bucket: str, yes: bool) -> None:
    """Show the plan; once you agreed push the image, create all, bring the image to the servers."""
    tools = Tools()
    needs, found = infra.needs_of(tools, deployment, state_bucket)
    wanted = registry.Registry.find(needs, deployment, local_image, tag)
    needs.check()
    there = wanted.is_there()
    infra.say(found)
    print(f"Before it {local_image} is pushed as {wanted.image}" + " (done already)" * there + ".")
    infrastructure = infra.Infrastructure(tools, found, bucket=state_bucket)
    infrastructure.up(wanted.image, yes=yes, first=wanted.push)
    rollout.deploy(tools, deployment, wanted.image, back=False)


@main.command
@click.option("--deployment", default="")
@click.option("--daemon", default="", help="one daemon's alone")
@click.option("--since", default="10m")
def logs(deployment: str, daemon: str, since: str) -> None:
    """Follow the daemons' logs until Ctrl-C."""
    tools = Tools()
    needs = Needs(tools)
    needs.programs(aws=AWS)
    needs.credentials()
    found = Deployment.find(needs, deployment)
    if daemon and daemon not in rollout.ORDER:
        needs.missing["DAEMON"] = f"{daemon!r} is none; write one of {', '.join(rollout.ORDER)}"
    needs.check()
    stream = ("--log-stream-name-prefix", f"{daemon}/") if daemon else ()
    tools.run(
        *("aws", "logs", "tail", f"/atemporal/{deployment}", "--region", found.region),
        *("--follow", "--since", since, *stream),
    )


def run() -> int:
    """Run a command; return the exit code: 2 for what is missing, 1 for what failed."""
    try:
        main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return 2
    except (click.Abort, KeyboardInterrupt):
        return 130
    except Invalid as error:
        print("Nothing has been done. It needs:", file=sys.stderr)
        for what, why in error.fields.items():
            print(f"  {what}: {why}", file=sys.stderr)
        return 2
    except AtemporalError as error:
        print(f"Stopped: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(run())
