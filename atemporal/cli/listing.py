"""`atemporal list`: jobs by their filters, in the columns that are asked for.

Promise: with a filter by image too, each page costs the API a bounded look; what was not looked at is
told, with the call that goes on.
"""

from __future__ import annotations

import shlex
from typing import Any

import click

from atemporal.cli import columns, output, screen
from atemporal.cli.arguments import duration_text, known_schedules, pairs, when
from atemporal.cli.masks import masked_job
from atemporal.cli.output import note
from atemporal.cli.session import Session, output_option, pass_session
from atemporal.cli.usual import SCHEDULE_LABEL
from atemporal.client import PAGE, Client, Job, JobPage
from atemporal.plural import counted
from atemporal.states import JobState, Outcome

_STATES = [state.value for state in (*JobState, *Outcome)]
# So many pages are asked for in search of an image, each of some thousand jobs.
_PAGES_OF_IMAGE = 20
_FILTERS = ("state", "label", "schedule", "image")
_TIMES = ("since", "until")

_HELP = f"""List jobs, the newest first.

Filters of different kinds have all to fit; of several states any. --image takes a part of the
image's name, and looks through the latest jobs for it. --since and --until ask for jobs by the time
that they were made for, which may be to come; they are listed in the order of these times then.

\b
    atemporal list --state running --label team=mi6
    atemporal list --schedule nightly --columns id,state,started,finished,reason
    atemporal list --state failed --image reports --limit 20
    atemporal list --since 7d --until 1d --state failed
    atemporal list --since 2026-01-31 --until 2026-02-01T12:00Z --reverse
    atemporal list --watch

\b
The columns; without --columns they are {",".join(columns.USUAL)}:
{columns.help_text()}"""


@click.command("list", help=_HELP)
@click.option(
    "--state",
    multiple=True,
    type=click.Choice(_STATES),
    help="Jobs in this state, or with this outcome.",
)
@click.option("--label", multiple=True, metavar="NAME=VALUE", help="Jobs that have it.")
@click.option("--schedule", metavar="NAME", shell_complete=known_schedules, help="Its jobs.")
@click.option("--image", metavar="PART", default="", help="Jobs with this in their image's name.")
@click.option(
    "--since",
    callback=when,
    metavar="TIME",
    help="Jobs whose time is not before it: so long ago like 7d, a day or an instant.",
)
@click.option(
    "--until", callback=when, metavar="TIME", help="Jobs whose time is before it, written alike."
)
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True)
@click.option("--after", metavar="ID", help="Go on behind this job, the last one of a page.")
@click.option("--reverse", is_flag=True, help="The oldest first.")
@click.option(
    "--columns",
    "shown",
    metavar="A,B,...",
    callback=columns.read,
    shell_complete=columns.complete,
    help="Which columns, in this order; all are above.",
)
@screen.option("--watch", "Show it again and again, in place")
@output_option
@pass_session
def list_jobs(session: Session, /, **given: Any) -> None:
    """List jobs, the newest first."""
    if given["watch"] is not None:
        if session.as_json:
            raise click.UsageError("--watch is for people; `atemporal events -f -o json` follows")
        screen.check_terminal("--watch", "leave it out, or follow with `atemporal events -f`")
        screen.refresh(lambda: _watched(session.api, given), every_s=given["watch"])
        return
    found, page = _listed(session.api, given)
    if session.as_json:
        jobs = [masked_job(job) for job in found]
        output.show_json({**page, "jobs": jobs})
        return
    for line in _table(found, given):
        click.echo(line)
    for footer in _footers(found, page, given):
        note(footer)


def _watched(api: Client, given: dict[str, Any]) -> list[str]:
    found, page = _listed(api, given)
    footers = [output.clean(one) for one in _footers(found, page, given)]
    return [*_table(found, given), *(["", *footers] if footers else [])]


def _table(found: list[Job], given: dict[str, Any]) -> list[str]:
    shown, person = given["shown"], output.for_terminal()
    rows = [columns.row(job, shown, person=person) for job in found]
    return output.table_lines(shown, rows, keep=columns.KEPT)


def _footers(found: list[Job], page: JobPage, given: dict[str, Any]) -> list[str]:
    """What is to stand below the table."""
    footers, following = [], page["next"]
    if not found and not (following and given["image"]):
        filtered = any(given[name] for name in (*_FILTERS, *_TIMES, "after"))
        footers.append(
            "no job fits" if filtered else "there are no jobs yet; `atemporal submit` makes one"
        )
    if following:
        prefix = "about " if page.get("total_estimated") else ""
        many = f"{prefix}{counted(page['total'], 'job')} in all"
        if given["image"]:
            enough = len(found) >= given["limit"]
            many = "there may be more" if enough else "the older ones were not looked through"
        footers.append(f"{many}; the next: {shlex.join(_again(given, following))}")
    return footers


def _again(given: dict[str, Any], after: str) -> list[str]:
    """The call that shows what comes next."""
    words = ["atemporal", "list", *(["--reverse"] if given["reverse"] else [])]
    for name in _FILTERS:
        values = given[name] if isinstance(given[name], tuple) else filter(None, [given[name]])
        words += [word for one in values for word in (f"--{name}", one)]
    for name in _TIMES:
        for parameter, value in given[name].items():
            ago = parameter.endswith("_s")
            words += [f"--{name}", duration_text(int(value)) if ago else str(value)]
    if given["shown"] != columns.USUAL:
        words += ["--columns", ",".join(given["shown"])]
    return [*words, "--limit", str(given["limit"]), "--after", after]


def _listed(api: Client, given: dict[str, Any]) -> tuple[list[Job], JobPage]:
    """As many jobs as are wanted, by as many pages as that takes, and the last of these."""
    labels, left = pairs(given["label"], "--label"), given["limit"]
    if given["schedule"]:
        name = SCHEDULE_LABEL
        if labels.setdefault(name, given["schedule"]) != given["schedule"]:
            raise click.UsageError(f"--label {name}=... is another schedule than --schedule")
    after = api.job(given["after"])["id"] if given["after"] else None
    found: list[Job] = []
    pages = 0
    while True:
        page = api.jobs(
            states=given["state"],
            labels=labels,
            limit=min(left, PAGE),
            after=after,
            newest_first=not given["reverse"],
            image=given["image"],
            times={**given["since"], **given["until"]},
        )
        found += page["jobs"]
        left -= len(page["jobs"])
        pages += 1
        # A page that leads nowhere new is the last one for now: its jobs can still change places.
        if left <= 0 or page["next"] in (None, after):
            return found, page
        # One of those with an image may be empty, and yet there are more.
        over = pages >= _PAGES_OF_IMAGE if given["image"] else not page["jobs"]
        if over:
            return found, page
        after = page["next"]


COMMANDS = {"list": list_jobs}
