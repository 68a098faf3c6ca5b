"""Commands about machines: instances, user-data.

Promise: `instances` puts what EC2 shows beside what is recorded, so that an orphaned instance, and
one that is missing, stand out; it changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from atemporal import tokens
from atemporal.cli import masks, output, usual
from atemporal.cli.arguments import attempt_of, known_ids
from atemporal.cli.output import distance, instant, note
from atemporal.cli.session import Session, output_option, pass_session
from atemporal.errors import Refused

if TYPE_CHECKING:
    from atemporal.cloud import Instance
    from atemporal.fleet.snapshot import Snapshot
    from atemporal.model import Attempt, Launch


@click.command
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="Also those that have ended, which EC2 shows for about an hour.",
)
@output_option
@pass_session
def instances(session: Session, everything: bool) -> None:
    """List the instances that EC2 has, and whose they are.

    \b
    The column RECORDED is the state of the attempt that an instance belongs to, or
        orphaned   no attempt accounts for it
        duplicate  its attempt has another instance
        foreign    another installation with this deployment's name launched it
    The state `absent` marks an attempt's instance that EC2 does not list.
    """
    from atemporal.cloud import Cloud
    from atemporal.fleet.reader import FleetReader

    with Cloud(session.settings) as cloud:
        snapshot = FleetReader(session.database, cloud).snapshot()
    present = {one.id for one in snapshot.listed}
    rows = [_shown(one, snapshot) for one in snapshot.listed if everything or not one.gone]
    rows += [
        _absent(one)
        for one in snapshot.attempts.values()
        if one.instance_id and one.instance_id not in present and one.closed_at is None
    ]
    if session.as_json:
        output.show_json(rows)
        return
    person = output.for_terminal()
    output.table(
        ("instance", "state", "recorded", "job", "attempt", "type", "address", "launched"),
        [_line(row, snapshot.now, person) for row in rows],
    )


@click.command("user-data")
@click.argument("job_id", metavar="ID", shell_complete=known_ids)
@click.option("--attempt", type=int, help="Which attempt, if not the last.")
@click.option("--reveal", is_flag=True, help="The very bytes, with the token and the environment.")
@click.option(
    "--os-family",
    type=click.Choice(usual.OS_FAMILIES),
    help="As a machine of this OS family would get it, not as the launch did.",
)
@output_option
@pass_session
def user_data(
    session: Session, job_id: str, attempt: int | None, reveal: bool, os_family: str | None
) -> None:
    """Print the user-data of an attempt's machine.

    The callback token and the environment's values are masked, inside the base64 too, unless
    --reveal is given, which needs the callback keys of the daemons. Machines that were launched
    together share one user-data, which names no job: each asks the API for its own. So does a machine
    whose job is delivered by claim.
    """
    from atemporal import userdata
    from atemporal.store import groups, jobs

    with session.database.begin() as tx:
        job = jobs.get(tx, jobs.resolve(tx, job_id))
        tries = {one.number: one for one in job.attempts}
        tried = attempt_of(tries, attempt, f"job {job.id} is {job.state}")
        group = None if tried.group_id is None else groups.get(tx, tried.group_id)
    launch = tried.launch if group is None else group.launch
    if os_family is not None:
        launch = launch.model_copy(update={"os_family": os_family})
    if group is None:
        token = masks.MASK
        if reveal:
            token = _token(session, launch, tried.ref.id, userdata.purpose_of(launch))
        env = masks.masked_env(job.spec.env, reveal=reveal)
        spec = job.spec.model_copy(update={"env": env})
        rendered = userdata.render(tried.ref, spec, launch, token)
    else:
        token = masks.MASK
        if reveal:
            token = _token(session, launch, str(group.id), "group")
        rendered = userdata.render_group(group.id, launch, token)
    if session.as_json:
        answer = {
            "id": str(job.id),
            "attempt": tried.number,
            "os_family": launch.os_family,
            "masked": not reveal,
        }
        output.show_json({**answer, "user_data": rendered.decode()})
        return
    if group is not None:
        note(f"shared by the machines of launch group {group.id}; each asks the API for its job")
    elif tried.launch.delivery == "claim":
        note("it asks the API for its job: command, environment and secrets are not in it")
    if not reveal:
        note("the token and the environment's values are masked; --reveal shows the very bytes")
    click.echo(rendered, nl=False)


def _token(session: Session, launch: Launch, holder: str, purpose: tokens.Purpose) -> str:
    settings = session.settings
    try:
        return tokens.mint(settings.keys, launch.key_id, settings.deployment, holder, purpose)
    except KeyError:
        raise Refused(
            f"the callback key {launch.key_id!r} that the machine was launched with is not "
            "among ATEMPORAL_CALLBACK_KEYS"
        ) from None


def _shown(instance: Instance, snapshot: Snapshot) -> dict[str, Any]:
    from atemporal.fleet.reconciliation import Status

    attempt = snapshot.attempts.get(instance.ref) if instance.ref else None
    if attempt is None:
        recorded = str(
            Status.FOREIGN if instance.foreign_to(snapshot.installation) else Status.ORPHANED
        )
    elif attempt.instance_id not in (None, instance.id):
        recorded = str(Status.DUPLICATE)
    else:
        recorded = str(attempt.state)
    return {
        "instance": instance.id,
        "state": instance.state,
        "state_reason": instance.state_reason,
        "recorded": recorded,
        "job": str(instance.ref.job_id) if instance.ref else None,
        "attempt": instance.ref.number if instance.ref else None,
        "type": attempt.launch.instance_type if attempt else None,
        "address": instance.public_dns or instance.public_ip or instance.private_ip,
        "launched_at": instant(instance.launched_at) or None,
    }


def _absent(attempt: Attempt) -> dict[str, Any]:
    return {
        "instance": attempt.instance_id,
        "state": "absent",
        "state_reason": None,
        "recorded": str(attempt.state),
        "job": str(attempt.job_id),
        "attempt": attempt.number,
        "type": attempt.launch.instance_type,
        "address": None,
        "launched_at": instant(attempt.launched_at) or None,
    }


def _line(row: Mapping[str, Any], now: datetime, person: bool) -> tuple[str, ...]:
    launched, job = row["launched_at"] or "", row["job"] or ""
    if person:
        launched = distance(datetime.fromisoformat(launched), now) if launched else ""
        job = job[-12:]
    middle = (str(row[name] or "") for name in ("attempt", "type", "address"))
    return (row["instance"], row["state"], row["recorded"], job, *middle, launched)


COMMANDS = {"instances": instances, "user-data": user_data}
