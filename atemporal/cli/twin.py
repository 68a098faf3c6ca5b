"""Commands for the twin: serve it, inject faults, see its calls.

Promise: the commands for faults and calls talk to a running twin, by its own endpoint, and touch
nothing else. A server that is no twin and one that does not respond are different errors.
"""

from __future__ import annotations

import time
from typing import Any

import click

from atemporal.cli import arguments, output
from atemporal.cli.output import note
from atemporal.cli.session import Session, output_option, pass_session
from atemporal.errors import Conflict, Invalid, NotFound, Refused, Unavailable
from atemporal.twin.faults.kind import KINDS

RESPONSE_WITHIN_S = 10.0

_KINDS = "\n".join(
    ["\b", "Kinds:", *(f"  {name:18} {kind.summary}" for name, kind in KINDS.items())]
)

url_option = click.option(
    "--url", metavar="URL", help="The twin's; else ATEMPORAL_EC2_ENDPOINT_URL."
)


@click.group
def twin() -> None:
    """The twin, a local EC2: serve it, inject faults."""


@twin.command(
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
@click.argument("words", metavar="--dir DIR [OPTION]...", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def serve(context: click.Context, words: tuple[str, ...]) -> None:
    """Serve a twin until Ctrl-C; print its URL. `serve --help` lists the options."""
    from atemporal.twin.__main__ import main

    context.exit(main(words))


@twin.command
@click.option("--last", default=20, show_default=True, type=click.IntRange(1), help="How many.")
@url_option
@output_option
@pass_session
def calls(session: Session, last: int, url: str | None) -> None:
    """Show the last calls to the twin: when, what, how it ended, which fault was injected."""
    found = _request(session, url, "GET", "calls")["calls"][-last:]
    if session.as_json:
        output.show_json(found)
        return
    rows = [
        (
            time.strftime("%H:%M:%S", time.gmtime(call["at"])),
            call["action"],
            call["code"],
            call["fault"] or "",
            call["token"],
            " ".join(call["instances"][:3]) + (" ..." if len(call["instances"]) > 3 else ""),
        )
        for call in found
    ]
    output.table(("at", "call", "code", "fault", "token", "instances"), rows)


@twin.group
def fault() -> None:
    """Inject faults into a twin that runs."""


@fault.command(epilog=_KINDS)
@click.argument("kind", type=click.Choice(list(KINDS)), metavar="KIND")
@click.option("--call", metavar="NAME", help="Only this call; wild cards * and ?.")
@click.option(
    "--match",
    multiple=True,
    metavar="NAME=PATTERN",
    help="Only for instances whose instance_type, subnet, zone, capacity_type, token or instance "
    "matches. A fault of a machine whose rule names an instance is injected at once.",
)
@click.option("--probability", type=float, help="From 0 to 1; else 1.")
@click.option("--times", type=int, help="How often at most.")
@click.option("--seconds", type=float, help="Their meaning depends on the kind.")
@click.option("--after", type=float, help="Seconds after the launch; for some kinds.")
@click.option("--code", help="EC2's error code, where the kind has one.")
@url_option
@output_option
@pass_session
def add(
    session: Session, /, kind: str, match: tuple[str, ...], url: str | None, **given: Any
) -> None:
    """Add a rule by which a fault is injected; print the rule's id."""
    rule: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    rule |= {"kind": kind, "match": arguments.pairs(match, "--match")}
    added = _request(session, url, "POST", "faults", rule)
    if session.as_json:
        output.show_json(added)
    else:
        click.echo(added["id"])


@fault.command("list")
@url_option
@output_option
@pass_session
def list_faults(session: Session, url: str | None) -> None:
    """List the active rules, and how many faults of each kind there have been."""
    found = _request(session, url, "GET", "faults")
    if session.as_json:
        output.show_json(found)
        return
    rows = [
        (
            rule["id"],
            rule["kind"],
            rule["call"],
            " ".join(f"{name}={pattern}" for name, pattern in rule["match"].items()),
            f"{rule['probability']:g}",
            f"{rule['used']}/{rule['times']}" if "times" in rule else str(rule["used"]),
            f"{rule['seconds']:g}" if "seconds" in rule else "",
        )
        for rule in found["rules"]
    ]
    output.table(("id", "kind", "call", "match", "probability", "used", "seconds"), rows)
    if rows and found["injected"]:
        click.echo()
    output.table(("injected", "count"), [(k, str(n)) for k, n in found["injected"].items()])


@fault.command
@click.argument("ids", metavar="[ID]...", nargs=-1)
@url_option
@output_option
@pass_session
def clear(session: Session, ids: tuple[str, ...], url: str | None) -> None:
    """Remove rules: these, or all. What is planned for a machine stays."""
    for path in [f"faults/{one}" for one in ids] or ["faults"]:
        _request(session, url, "DELETE", path)
    if session.as_json:
        output.show_json({"cleared": list(ids) or "all"})
    else:
        note(f"{', '.join(ids) or 'all rules'} cleared")


def _request(
    session: Session, url: str | None, method: str, path: str, body: object = None
) -> dict[str, Any]:
    """Send a request to a twin's own endpoint.

    Raises:
        Unavailable: it does not respond.
        Refused: it is no twin, or it refuses the request: Invalid, NotFound, Conflict.
    """
    import httpx

    base = url or session.settings.ec2_endpoint_url
    if not base:
        raise Invalid({"url": "name the twin: --url, or ATEMPORAL_EC2_ENDPOINT_URL"})
    try:
        # A proxy of the environment is for elsewhere.
        with httpx.Client(trust_env=False, timeout=RESPONSE_WITHIN_S) as client:
            response = client.request(method, f"{base.rstrip('/')}/_twin/{path}", json=body)
    except (httpx.TransportError, httpx.InvalidURL) as error:
        raise Unavailable(f"no twin responds at {base}: {error}") from None
    try:
        content = response.json()
    except ValueError:
        content = None
    if not isinstance(content, dict) or (response.is_error and "error" not in content):
        raise Refused(f"the server at {base} is no twin")
    if response.is_error:
        if content.get("fields"):
            raise Invalid(content["fields"])
        kind = {404: NotFound, 409: Conflict}.get(response.status_code, Refused)
        raise kind(content["error"])
    return content


COMMANDS = {"twin": twin}
