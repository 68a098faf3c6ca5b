"""What a container writes, followed while it runs: real processes, and the machine's own agent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import httpx

from atemporal.client import Client
from atemporal.model import AttemptRef
from atemporal.model.log import CHUNK_LIMIT
from atemporal.states import AttemptState, JobState, Outcome
from atemporal.store import logs
from tests.e2e.system import System


@contextmanager
def following(system: System, job_id: UUID, *words: str) -> Iterator[subprocess.Popen[str]]:
    """`atemporal logs -f` of a job, as a process."""
    cli = (sys.executable, "-c", "from atemporal.cli import main; main(prog_name='atemporal')")
    command = [*cli, "logs", "-f", str(job_id), *words]
    process = subprocess.Popen(
        command,
        env={**os.environ, "ATEMPORAL_API_URL": system.api_url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def signal_file(directory: Path, name: str) -> tuple[Path, str]:
    """A file, and the command that a container waits for it with."""
    path = directory / name
    return path, f"while [ ! -e {path} ]; do sleep 0.1; done"


def sent(system: System, job_id: UUID) -> int:
    """How much of the first attempt's output has been sent while it runs."""
    with system.database.begin() as tx:
        return logs.end(tx, AttemptRef(job_id, 1))


def test_lines_are_shown_while_the_container_runs_and_each_once(
    system: System, tmp_path: Path
) -> None:
    go, until = signal_file(tmp_path, "go")
    job_id = system.submit("sh", "-c", f"echo one; echo two >&2; {until}; echo three; exit 3")
    with following(system, job_id) as follower:
        assert follower.stdout is not None
        assert sorted([follower.stdout.readline(), follower.stdout.readline()]) == [
            "one\n",
            "two\n",
        ]
        assert system.job(job_id).state is JobState.RUNNING
        go.touch()
        out, _ = follower.communicate(timeout=60)
        assert out == "three\n"
        assert follower.returncode == 0
    (attempt,) = system.wait_closed(job_id).attempts
    assert attempt.log_bytes == len("one\ntwo\nthree\n")


def test_what_is_written_while_the_api_is_away_comes_when_it_is_back(
    system: System, tmp_path: Path
) -> None:
    away, until_away = signal_file(tmp_path, "away")
    written, back, until_back = tmp_path / "written", *signal_file(tmp_path, "back")
    job_id = system.submit(
        *("sh", "-c"),
        f"echo before; {until_away}; echo meanwhile; touch {written}; {until_back}; echo after",
    )
    with following(system, job_id) as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline() == "before\n"
        system.kill("api")
        away.touch()
        system.wait("the container to write", written.exists)
        system.start("api")
        assert follower.stdout.readline() == "meanwhile\n"
        back.touch()
        out, errors = follower.communicate(timeout=60)
    assert out == "after\n"
    assert "waiting for it to come back" in errors
    assert "missing" not in errors


def test_of_a_container_that_writes_a_lot_the_end_is_kept_and_each_gap_is_counted(
    system: System, tmp_path: Path
) -> None:
    go, until = signal_file(tmp_path, "go")
    lines = 400_000
    job_id = system.submit("sh", "-c", f"sleep 6; seq {lines}; {until}; echo over")
    size = len("".join(f"{one}\n" for one in range(1, lines + 1)))
    system.wait("all of it to be counted", lambda: sent(system, job_id) == size)
    kept = [
        (one.start, one.missing, one.data)
        for one in Client(system.api_url).logs(str(job_id), attempt=1)
    ]
    assert sum(len(data) for *_, data in kept) <= 256 * 1024 + CHUNK_LIMIT
    assert kept[-1][2].endswith(f"\n{lines}\n".encode())
    position = 0
    for start, missing, data in kept:
        assert missing == start - position
        position = start + len(data)
    assert position == size
    go.touch()
    (attempt,) = system.wait_closed(job_id).attempts
    assert attempt.log_bytes == size + len("over\n")
    *_, last = Client(system.api_url).logs(str(job_id), attempt=1)
    assert last.data.endswith(f"\n{lines}\nover\n".encode())
    assert last.end == attempt.log_bytes


def test_the_last_words_of_a_cancelled_container_are_kept(system: System, tmp_path: Path) -> None:
    up, trap = tmp_path / "up", "trap 'echo stopped in order; exit 0' TERM"
    job_id = system.submit(
        "sh", "-c", f"{trap}; echo begun; touch {up}; while :; do sleep 0.1; done"
    )
    system.wait("the container to run", up.exists)
    with following(system, job_id) as follower:
        httpx.delete(f"{system.api_url}/jobs/{job_id}").raise_for_status()
        out, _ = follower.communicate(timeout=60)
    assert out == "begun\nstopped in order\n"
    job = system.wait_closed(job_id)
    assert job.outcome is Outcome.CANCELLED
    assert job.attempts[-1].log_tail == b"begun\nstopped in order\n"


def test_it_goes_on_with_the_next_attempt(system: System, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    job_id = system.submit(
        *("sh", "-c", f"[ -e {mark} ] && echo second && exit 0; touch {mark}; echo first; exit 1"),
        max_attempts=2,
        backoff_s=0,
    )
    with following(system, job_id, "-o", "json") as follower:
        out, _ = follower.communicate(timeout=60)
    shown = [json.loads(line) for line in out.splitlines()]
    assert [(one["attempt"], one["text"]) for one in shown] == [(1, "first\n"), (2, "second\n")]
    with following(system, job_id, "--attempt", "1") as follower:
        out, _ = follower.communicate(timeout=60)
    assert out == "first\n"
    with system.database.begin() as tx:
        assert logs.end(tx, AttemptRef(job_id, 1)) == 0, "a short run sends no chunks"
    assert system.job(job_id).attempts[-1].state in (AttemptState.EXITED, AttemptState.CLOSED)
