"""`atemporal bundle`: a job's whole story in one file, for a bug report.

Promise: the file is new, of mode 0600, and whole or not there. It is written also where Postgres alone
answers: its manifest names each part that is missing, with the reason. Secrets that are known are in
none of its parts, and there is no option to show them.
"""

from __future__ import annotations

import io
import json
import os
import textwrap
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from atemporal import __version__
from atemporal.cli import output
from atemporal.cli.arguments import known_ids
from atemporal.cli.output import note
from atemporal.cli.scrubber import SHORTEST
from atemporal.cli.session import Session, output_option, pass_session
from atemporal.clock import format_utc
from atemporal.errors import Conflict, Refused

if TYPE_CHECKING:
    from atemporal.cli.evidence import Evidence

FORMAT = 1
"""Of the manifest; a part may be added without another number."""
_MASKED = (
    "values of environments; not the job's command, its labels, its tags",
    "callback tokens and keys, API tokens, passwords in URLs, AWS's secret keys",
    "in texts these too, also escaped, percent-encoded or in base64; "
    f"not values of fewer than {SHORTEST} characters",
)


@click.command
@click.argument("job_id", metavar="ID", shell_complete=known_ids)
@click.option(
    "--to",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="A new file.  [default: atemporal-bundle-ID.zip]",
)
@click.option(
    "--with-output/--without-output",
    default=False,
    show_default=True,
    help="What the container wrote, too. It may hold secrets that nobody can know.",
)
@output_option
@pass_session
def bundle(session: Session, job_id: str, to: Path | None, with_output: bool) -> None:
    """Write a job's whole story into one file, for a bug report.

    A zip file with the job, its history, its attempts and their calls to EC2, what EC2 shows of its
    instances, their consoles, dead letters, settings and releases. Values of environments and known
    secrets are masked, always. Its manifest names what is missing, and why. Read it before you send it:
    command, labels and tags are in it as they are.
    """
    from atemporal.cli.evidence import Evidence
    from atemporal.store import jobs

    with session.database.begin() as tx:
        whole_id = jobs.resolve(tx, job_id)
    path = to or Path(f"atemporal-bundle-{whole_id}.zip")
    _check_new(path)
    evidence = Evidence(session, whole_id, with_output=with_output)
    evidence.collect()
    manifest = {
        "format": FORMAT,
        "job": str(whole_id),
        "made_at": format_utc(datetime.now(UTC)),
        "atemporal": __version__,
        "with_output": with_output,
        "masked": list(_MASKED),
        "files": [
            {"name": name, "description": description, "bytes": len(data)}
            for name, (description, data) in sorted(evidence.files.items())
        ],
        "missing": evidence.missing,
    }
    manifest = evidence.scrubbed(manifest)
    _write(path, _packed(str(whole_id), manifest, evidence))
    if session.as_json:
        output.show_json({"file": str(path), **manifest})
        return
    click.echo(str(path))
    for one in evidence.missing:
        note(f"without {one['part']}: {one['why']}")
    kept = (
        "what the container wrote is in it"
        if with_output
        else "the container's output is not in it"
    )
    note(f"{kept}; read it before you send it: command, labels and tags are in it as they are")


def _check_new(path: Path) -> None:
    if path.exists() or path.is_symlink():
        raise Conflict(
            f"{path} is there already: name another file with --to; nothing was written"
        )
    if not path.absolute().parent.is_dir():
        raise Refused(f"there is no directory {path.parent}; nothing was written")


def _packed(job_id: str, manifest: dict[str, Any], evidence: Evidence) -> bytes:
    files = {
        "README.txt": _readme(manifest).encode(),
        "manifest.json": (json.dumps(manifest, indent=2) + "\n").encode(),
        **{name: data for name, (_, data) in sorted(evidence.files.items())},
    }
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(f"atemporal-bundle-{job_id}/{name}")
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o600 << 16
            archive.writestr(entry, data)
    return packed.getvalue()


def _write(path: Path, data: bytes) -> None:
    """Write a new file.

    Raises:
        Conflict: it is there already.
        Refused: it can not be written; nothing of it is left.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        raise Conflict(f"{path} is there already: name another file with --to") from None
    except OSError as error:
        raise Refused(f"{path} can not be written: {error.strerror}") from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise Refused(f"{path} can not be written: {error.strerror}; nothing is left") from error


def _readme(manifest: dict[str, Any]) -> str:
    """What each file is, for who opens the bundle."""
    from atemporal.cli.evidence import CONSOLES

    lines = [
        f"The story of job {manifest['job']}, written by atemporal {manifest['atemporal']}",
        f"at {manifest['made_at']}. manifest.json says the same for a program.",
        "",
        *(f"{one['name']:<24} {one['description']}" for one in manifest["files"]),
        "",
        "Times are UTC. EC2's calls are those that the records ask for: in attempts.json, RunInstances",
        "with its ClientToken, tags and placement; the user-data by its digest alone.",
        f"Consoles are those of the last {CONSOLES} attempts.",
        "",
        "Masked (***):",
        *(f"- {one}" for one in manifest["masked"]),
        "",
        "What the container wrote is " + ("in it." if manifest["with_output"] else "NOT in it."),
    ]
    if manifest["missing"]:
        lines += ["", "Missing:"]
        for one in manifest["missing"]:
            lines += textwrap.wrap(f"- {one['part']}: {one['why']}", 100, subsequent_indent="  ")
    return "\n".join(lines) + "\n"


COMMANDS = {"bundle": bundle}
