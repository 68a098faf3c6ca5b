"""Commands of local mode: up, down, demo.

Promise: the first Ctrl-C or SIGTERM ends everything in order within seconds, the second at once; what
is printed on standard output is the answer, progress and logs go to standard error.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from atemporal.cli import output
from atemporal.cli.masks import masked_url
from atemporal.cli.output import clean, instant, note
from atemporal.cli.session import Session, output_option, pass_session
from atemporal.errors import NotFound
from atemporal.local import demo_image
from atemporal.local.home import Home, default_directory, forget_other
from atemporal.plural import counted
from atemporal.states import LIVE_ATTEMPT
from atemporal.stop_request import StopRequest
from atemporal.twin.containers.engine import CHOICES, detect

# What runs everything takes a second to import: for that which runs it, and not for its help.
if TYPE_CHECKING:
    from atemporal.local.demo import Demo, Look, Result
    from atemporal.local.stack import Stack
    from atemporal.model import Job

_HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """Signals as an event; the second one ends the process at once, after `kill`."""

    def __init__(self) -> None:
        self.asked = StopRequest()
        self.kill: Callable[[], None] = lambda: None

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Take the signals, and give them back at the end."""
        before = {number: signal.getsignal(number) for number in _HANDLED}
        for number in _HANDLED:
            # A process that was told to outlive its terminal does.
            if number != signal.SIGHUP or before[number] is not signal.SIG_IGN:
                signal.signal(number, self._on_signal)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self.asked.is_set():
            self.kill()
            os._exit(128 + number)
        self.asked.set()


dir_option = click.option(
    "--dir",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where its state is kept.  [default: ~/.local/share/atemporal]",
)


@click.command
@dir_option
@click.option(
    "--port",
    type=click.IntRange(1, 65_535),
    help="The API's port.  [default: the one it had, 8080, or a free one]",
)
@click.option(
    "--engine",
    type=click.Choice(CHOICES),
    default="auto",
    help="What runs the jobs; auto is docker or podman if one answers, else processes.",
)
@output_option
@pass_session
def up(session: Session, directory: Path | None, port: int | None, engine: str) -> None:
    """Run everything on this machine until Ctrl-C.

    Postgres, broker and EC2 are our own, unless ATEMPORAL_DATABASE_URL, ATEMPORAL_BROKER_URL or
    ATEMPORAL_EC2_ENDPOINT_URL name others. Machines that run when it stops run on, and the next
    `up` with the same --dir takes them back. Whoever can connect to loopback on this machine can
    run programs as you.
    """
    from atemporal import telemetry
    from atemporal.local.stack import Stack

    directory = directory or default_directory()
    _forget_other(directory)
    settings = session.settings
    telemetry.configure("local", log_format=settings.log_format, level=settings.log_level)
    interrupts = Interrupts()
    with interrupts.handled(), ExitStack() as open_things:
        home = Home(directory)
        open_things.callback(home.close)
        try:
            stack = Stack(home, port=port, engine=detect(engine))
            interrupts.kill = stack.kill
            stack.start()
        except BaseException:
            home.discard()
            raise
        try:
            _welcome(session, stack, home.directory)
            interrupts.asked.wait()
            left = _machines_left(stack)
        finally:
            cut = stack.stop()
    if cut:
        note(f"these had to be cut off: {', '.join(cut)}")
    if left:
        runs = "runs" if left == 1 else "run"
        note(
            f"{counted(left, 'machine')} {runs} on; the next `atemporal up` on {home.directory} takes "
            f"them back, `{_down(home.directory)}` ends them"
        )
    note("stopped")


@click.command
@dir_option
@click.option(
    "--engine", type=click.Choice(CHOICES), default="auto", help="What `up` ran the jobs with."
)
@output_option
@pass_session
def down(session: Session, directory: Path | None, engine: str) -> None:
    """End what an `up` that has stopped left on this machine.

    Its machines are powered off, and a Postgres that a killed `up` left is stopped; jobs and logs
    stay in the directory. To the next `up` a job whose machine was ended is one whose machine was
    lost, and runs again within its budget: `atemporal cancel` it before, if it is not to.
    """
    from atemporal import telemetry
    from atemporal.local.stack import take_down

    directory = directory or default_directory()
    _forget_other(directory)
    if not directory.expanduser().is_dir():
        raise NotFound(f"there is no installation in {directory}")
    telemetry.configure("local", log_format="console", level="error")
    with ExitStack() as open_things:
        home = Home(directory)
        open_things.callback(home.close)
        ended = take_down(home, detect(engine))
    if session.as_json:
        output.show_json({"dir": str(home.directory), "machines_ended": ended})
    else:
        click.echo(f"{counted(ended, 'machine')} ended")


@click.command
@output_option
@pass_session
def demo(session: Session) -> None:
    """Run three jobs on this machine and show what happens.

    Everything is in a temporary directory and gone at the end; no docker, RabbitMQ, Postgres or AWS
    account is needed, and ATEMPORAL_* settings are passed over. Exits with 0 only if every job
    ended as planned and no instance is left. `-o json` prints one line into a pipe or file.
    """
    from atemporal import telemetry
    from atemporal.local.demo import Demo
    from atemporal.local.stack import Stack
    from atemporal.settings import PREFIX

    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        del os.environ[name]
    telemetry.configure("demo", log_format="console", level="error")
    interrupts = Interrupts()
    with interrupts.handled(), ExitStack() as open_things:
        ground = demo_image.find(detect("auto"))
        open_things.callback(ground.remove)
        folder = open_things.enter_context(tempfile.TemporaryDirectory(prefix="atemporal-demo-"))
        home = Home(Path(folder))
        open_things.callback(home.close)
        stack = Stack(home, port=home.port("api"), engine=ground.engine, durable=False)
        interrupts.kill = stack.kill
        note(f"starting Postgres, broker, EC2's twin and the daemons in {folder}")
        stack.start()
        try:
            note(f"the API is at {stack.api_url}; {ground.says}")
            result = _play(session, Demo(stack, ground.image), interrupts.asked)
        finally:
            stack.stop(power_off=True)
    if interrupts.asked.is_set():
        note("interrupted; everything has been taken down")
        click.get_current_context().exit(128 + signal.SIGINT)
    _summarise(session, result)
    click.get_current_context().exit(1 if result.surprises else 0)


def _forget_other(directory: Path) -> None:
    from atemporal.local.stack import SHARED_VARIABLES

    found = forget_other(directory, os.environ, SHARED_VARIABLES)
    if found and found[1]:
        note(f"this shell's {', '.join(found[1])} belong to {found[0]}: they are passed over")


def _program() -> str:
    """What to type for `atemporal`, which may be in a virtual environment that is not active."""
    beside = Path(sys.executable).with_name("atemporal")
    return "atemporal" if shutil.which("atemporal") or not beside.exists() else str(beside)


def _down(directory: Path) -> str:
    if directory == default_directory():
        return "atemporal down"
    return f"atemporal down --dir {shlex.quote(str(directory))}"


def _welcome(session: Session, stack: Stack, directory: Path) -> None:
    url, env = stack.api_url, stack.env
    servers = {name: masked_url(value) for name, value in stack.servers.items()}
    if session.as_json:
        where = {"api": url, "page": f"{url}/ui", "env": str(env), "dir": str(directory)}
        record = {**where, "runs_on": stack.runs_on}
        output.show_json({**record, "from_environment": servers})
        return
    body = '{"image": "busybox", "command": ["echo", "hello"]}'
    submit = f"curl -H 'Content-Type: application/json' -d '{body}' {url}/jobs"
    facts = [
        ("page", f"{url}/ui   (`atemporal open` opens it in a browser)"),
        ("API", f"{url}   (its documentation: {url}/docs)"),
        ("try", submit),
        ("CLI", f". {shlex.quote(str(env))} && {_program()} submit busybox -- echo hello"),
        ("jobs", stack.runs_on),
        *(("not ours", f"{value}, by {name}") for name, value in servers.items()),
        ("state", str(directory)),
        (
            "stop",
            "Ctrl-C; machines that run then run on: the next `atemporal up` takes them back, "
            f"`{_down(directory)}` ends them",
        ),
    ]
    for line in output.aligned(facts):
        click.echo(line)


def _machines_left(stack: Stack) -> int:
    from atemporal.store import attempts

    with stack.database.begin() as tx:
        opened = attempts.still_open(tx)
    return sum(one.state in LIVE_ATTEMPT and one.instance_id is not None for one in opened)


def _play(session: Session, demo: Demo, stop: StopRequest) -> Result:
    """Follow the demo to its end: a live table for a person, a line for each change otherwise."""
    if session.as_json or not output.for_terminal():
        for view in demo.looks(stop):
            _print_news(view)
    else:
        from rich.live import Live

        with Live(auto_refresh=False) as live:
            for view in demo.looks(stop):
                live.update(_board(view), refresh=True)
    return demo.result()


def _print_news(view: Look) -> None:
    for part, event in view.news:
        detail = " ".join(f"{name}={value}" for name, value in event.detail.items())
        line = f"{instant(event.at)}  {part.name:<12} {event.type:<24} {detail}"
        click.echo(clean(line).rstrip(), err=True)


def _board(view: Look) -> Any:
    from atemporal.local.demo import PARTS

    rows = []
    for part, job in zip(PARTS, view.jobs, strict=True):
        last = job.attempts[-1] if job.attempts else None
        rows.append(
            (
                part.name,
                _how_it_is(job),
                "" if job.exit_code is None else str(job.exit_code),
                (last.instance_id or "") if last else "",
                str(last.state) if last else "",
            )
        )
    return output.rich_table(("job", "state", "exit", "instance", "which is"), rows)


def _ending(job: Job) -> dict[str, Any]:
    """A job by its end alone: what it printed, how it ended, where it ran."""
    from atemporal.job_view import JobView, log_text

    shown = {"id", "image", "state", "outcome", "exit_code", "instances"}
    tail = log_text(job.attempts[-1].log_tail) if job.attempts else None
    view = JobView.of(job, deadlines={})
    return {**view.model_dump(mode="json", include=shown), "log_tail": tail}


def _how_it_is(job: Job) -> str:
    return str(job.outcome or job.state)


def _summarise(session: Session, result: Result) -> None:
    from atemporal.local.demo import PARTS

    for surprise in result.surprises:
        note(surprise)
    if session.as_json:
        output.show_json(
            one_line=not output.for_terminal(),
            value={
                "jobs": [_ending(job) for job in result.jobs],
                "instances_launched": result.launched,
                "instances_left": result.left,
            },
        )
        return
    for part, job in zip(PARTS, result.jobs, strict=True):
        code = "" if job.exit_code is None else f", exit code {job.exit_code}"
        click.echo(f"\n{part.name}: {part.summary}\n{job.id} {_how_it_is(job)}{code}; its log:")
        for line in (_ending(job)["log_tail"] or "").splitlines():
            click.echo(f"  | {clean(line)}")
    click.echo(
        f"\n{counted(len(result.jobs), 'job')}, {counted(result.launched, 'instance')} launched, "
        f"{result.left} left: " + ("not as planned" if result.surprises else "as planned")
    )


COMMANDS = {"up": up, "down": down, "demo": demo}
