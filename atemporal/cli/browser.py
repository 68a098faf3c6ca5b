"""`atemporal open`: the page of the API, or of one job, in a browser.

Promise: the address is printed before a browser is started, so that it can be opened by hand as well.
"""

from __future__ import annotations

import click

from atemporal.cli import output
from atemporal.cli.arguments import known_ids
from atemporal.cli.output import note
from atemporal.cli.session import Session, output_option, pass_session


@click.command("open")
@click.argument("job_id", metavar="[ID]", required=False, shell_complete=known_ids)
@click.option("--print", "print_only", is_flag=True, help="Print its address, open nothing.")
@output_option
@pass_session
def open_page(session: Session, job_id: str | None, print_only: bool) -> None:
    """Open the page, or a job's, in a browser; prints its address.

    \b
        atemporal open
        atemporal open 3f9c01d2
        atemporal open --print
    """
    page = f"{session.api.url}/ui"
    if job_id is not None:
        page += f"/jobs/{session.api.job(job_id)['id']}"
    if session.as_json:
        output.show_json({"url": page})
        return
    click.echo(page)
    if not print_only and click.launch(page) != 0:
        note("no browser could be started here: open the address above")


COMMANDS = {"open": open_page}
