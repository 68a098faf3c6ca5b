"""What does a process take, when it has nothing to do and after it has worked?

`idle`: each daemon as a process on its own, told by `ATEMPORAL_*`, against the given servers and a twin;
resident memory and processor time over a minute.
`growth`: the scheduler's and the API's memory before and after 10,000 jobs came in by HTTP, were due,
and were handed to the broker with their history.
`command_line`: from the start of `atemporal` to its end, the median of several, as a shell calls it:
`--help`, what people call with an API that answers (`list` with 100 jobs), the completion of an id, and
of the operators' commands `token list`. Also on the build before its commands imported only what they
need; the two take turns. The processor's time is the process's own, in user mode, and in both modes.
Not cheated: resident memory is the kernel's VmRSS, shared pages included; bytecode is compiled
beforehand, as an installation's is.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from statistics import median
from typing import Any

import psycopg2

from atemporal import migrations

DAEMONS = ("scheduler", "launcher", "reaper", "api")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_START_S = 60.0
_LISTED = 100


def idle(
    database_url: str, broker_url: str, settle_s: float = 20.0, over_s: float = 60.0
) -> dict[str, Any]:
    """Megabytes of each daemon, and percent of a core."""
    with _running(database_url, broker_url, DAEMONS) as (daemons, _):
        time.sleep(settle_s)
        before = {name: _cpu_s(pid) for name, pid in daemons.items()}
        time.sleep(over_s)
        figures: dict[str, Any] = {}
        for name, pid in daemons.items():
            figures[f"{name}_mb"] = _rss_mb(pid)
            figures[f"{name}_cpu_percent"] = 100 * (_cpu_s(pid) - before[name]) / over_s
        return figures


def growth(database_url: str, broker_url: str, jobs: int = 10_000) -> dict[str, Any]:
    """Megabytes of scheduler and API before and after so many jobs, and by how much they grew."""
    with _running(database_url, broker_url, ("scheduler", "api")) as (daemons, api_url):
        _submit(api_url, 200)
        _await_relayed(database_url)
        before = {name: _rss_mb(pid) for name, pid in daemons.items()}
        for _ in range(0, jobs, 500):
            _submit(api_url, 500)
        _await_relayed(database_url)
        figures: dict[str, Any] = {"jobs": jobs}
        for name, pid in daemons.items():
            after = _rss_mb(pid)
            figures[f"{name}_before_mb"], figures[f"{name}_after_mb"] = before[name], after
            figures[f"{name}_growth_percent"] = 100 * (after / before[name] - 1)
        return figures


def command_line(database_url: str, broker_url: str, times: int = 9) -> dict[str, Any]:
    """Milliseconds of each command from start to end; and of the processor."""
    figures: dict[str, Any] = {}
    with _running(database_url, broker_url, ("api",)) as (_, api_url):
        _submit(api_url, _LISTED)
        env = {"ATEMPORAL_API_URL": api_url, "ATEMPORAL_DATABASE_URL": database_url}
        listed = _call(["list", "-o", "json"], env).stdout
        job = json.loads(listed)["jobs"][0]["id"]
        for name, (words, more) in _commands(job).items():
            if words and not _has(words[0], env):
                continue  # An older build has fewer.
            spent = [_spent(words, env | more) for _ in range(times)]
            for kind, figure in zip(
                ("ms", "cpu_ms", "user_ms"), zip(*spent, strict=True), strict=True
            ):
                figures[f"{name}_{kind}"] = 1e3 * median(figure)
    return figures


def _commands(job: str) -> dict[str, tuple[list[str], dict[str, str]]]:
    """What is called, each with its words and what else its environment has."""
    asked = {"_ATEMPORAL_COMPLETE": "bash_complete", "COMP_CWORD": "2"}
    return {
        "help": (["--help"], {}),
        "list": (["list"], {}),
        "show": (["show", job], {}),
        "schedules": (["schedule", "list"], {}),
        "dead_letters": (["dead", "list"], {}),
        "completion": (["completion", "zsh"], {}),
        "completing": ([], {**asked, "COMP_WORDS": f"atemporal show {job[:8]}"}),
        "tokens": (["token", "list"], {}),
    }


def _has(command: str, env: Mapping[str, str]) -> bool:
    return _call([command, "--help"], env, check=False).returncode == 0


def _call(
    words: list[str], env: Mapping[str, str], *, check: bool = True
) -> subprocess.CompletedProcess[bytes]:
    code = "import sys; sys.argv[0] = 'atemporal'; from atemporal.start import cli; cli()"
    argv = [sys.executable, "-c", code, *words]
    return subprocess.run(argv, env={**os.environ, **env}, capture_output=True, check=check)


def _spent(words: list[str], env: Mapping[str, str]) -> tuple[float, float, float]:
    """Seconds from start to end; of the processor; of that in user mode."""
    before, began = getrusage(RUSAGE_CHILDREN), time.perf_counter()
    _call(words, env)
    took, after = time.perf_counter() - began, getrusage(RUSAGE_CHILDREN)
    user, system = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
    return took, user + system, user


@contextmanager
def _running(
    database_url: str, broker_url: str, names: tuple[str, ...]
) -> Iterator[tuple[dict[str, int], str]]:
    """The daemons as processes, ready; their process ids, and where the API is."""
    migrations.upgrade(database_url)
    with ExitStack() as stack:
        folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="atemporal-footprint-"))
        )
        env = {
            **os.environ,
            "ATEMPORAL_DATABASE_URL": database_url,
            "ATEMPORAL_BROKER_URL": broker_url,
            "ATEMPORAL_CALLBACK_KEYS": "k1:0123456789abcdef0123456789abcdef",
            "ATEMPORAL_API_PORT": "0",
            "ATEMPORAL_HEALTH_PORT": "0",
            "ATEMPORAL_LOG_FORMAT": "json",
            "AWS_ACCESS_KEY_ID": "any",
            "AWS_SECRET_ACCESS_KEY": "any",
            "PYTHONPYCACHEPREFIX": str(folder / "bytecode"),
        }
        env.pop("PYTHONDONTWRITEBYTECODE", None)
        twin = [
            sys.executable,
            "-m",
            "atemporal.twin",
            "--dir",
            str(folder / "twin"),
            "--port",
            "0",
        ]
        server = stack.enter_context(_process(twin, env, folder / "twin.log"))
        env["ATEMPORAL_EC2_ENDPOINT_URL"] = _line(folder / "twin.log", server, "http://").split()[
            -1
        ]
        for name in names:
            compiled = [sys.executable, "-c", f"import services.{name}.__main__"]
            subprocess.run(compiled, env=env, check=True)
        found: dict[str, int] = {}
        api_url = ""
        for name in names:
            log = folder / f"{name}.log"
            argv = [sys.executable, "-m", f"services.{name}"]
            process = stack.enter_context(_process(argv, env, log))
            line = json.loads(_line(log, process, '"http://'))
            api_url = line.get("url", api_url)
            found[name] = process.pid
        yield found, api_url


@contextmanager
def _process(
    argv: list[str], env: Mapping[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(argv, env=env, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


def _line(log: Path, process: subprocess.Popen[bytes], holds: str) -> str:
    """The first line of the log that holds this text."""
    until = time.monotonic() + _START_S
    while time.monotonic() < until and process.poll() is None:
        for line in log.read_text(errors="replace").splitlines():
            if holds in line:
                return line
        time.sleep(0.1)
    raise RuntimeError(f"it did not start:\n{log.read_text(errors='replace')[-2000:]}")


def _submit(api_url: str, count: int) -> None:
    """So many jobs, one request each, due at once."""
    body = json.dumps({"image": "busybox:1.36", "command": ["true"], "env": {"NAME": "bond"}})
    for _ in range(count):
        request = urllib.request.Request(
            f"{api_url}/jobs", body.encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            response.read()


def _await_relayed(database_url: str) -> None:
    """Return when every job is queued and all of its history published."""
    until = time.monotonic() + 240
    with closing(psycopg2.connect(database_url)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        while time.monotonic() < until:
            cursor.execute(
                "SELECT (SELECT count(*) FROM jobs WHERE state = 'scheduled' AND due_at <= now())"
                " + (SELECT count(*) FROM events WHERE NOT relayed)"
            )
            if not cursor.fetchone()[0]:
                return
            time.sleep(0.5)
    raise RuntimeError("the scheduler did not come to an end with the jobs")


def _rss_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
