"""What sends a container's output while it runs: all of it or a gap that is counted, and nobody waits.

It is the script that a machine gets, beside the agent's own functions; its API is a real HTTP server,
and its docker a program that prints what the test says. Its five seconds are a quarter of one here.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from atemporal.model import JobSpec
from atemporal.model.log import CHUNK_LIMIT
from atemporal.twin import processes
from cloud_config import AGENT, LOG_SHIPPER
from tests import callback_api
from tests.unit.test_agent import DOCKER, TOKEN, Machine

# What the agent has when it executes the script; a second is a twentieth of one.
AROUND = r"""
set -euo pipefail
state=$1 name=atemporal-1 callback=$2 token=$3
now() { local ns; ns=$(date +%s%N); echo $((ns / 50000000)); }
sleep() { command sleep 0.02; echo >>"$state/slept"; }
. "$4"
"""

# What follows the log gets it from a pipe, all else from a file.
ENGINE = """#!/bin/sh
case $* in
  "logs --follow atemporal-1") exec cat {pipe} ;;
  "logs atemporal-1") cat {log}; [ ! -e {running}.fails ] ;;
  inspect*) [ -e {running} ] && echo "true {log}" || echo "false {log}" ;;
  *) exit 1 ;;
esac
"""


class Api:
    """Takes chunks: `statuses` one after the other, the last one for ever."""

    def __init__(self) -> None:
        self.statuses = [204]
        self.taken: list[tuple[int, bytes]] = []
        self.tried: list[int] = []
        self.tokens: set[str] = set()
        self.answers = threading.Event()
        self.answers.set()
        self.url = ""

    def take(self, start: int, data: bytes) -> int:
        self.tried.append(start)
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        if status == 204:
            self.taken.append((start, data))
        return status


@contextmanager
def serve() -> Iterator[Api]:
    api = Api()

    class Handler(BaseHTTPRequestHandler):
        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            """Print nothing."""

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            api.tokens.add(self.headers["Authorization"])
            api.answers.wait(20)
            path = urlsplit(self.path)
            assert path.path == "/jobs/7/callback/log"
            self.send_response(api.take(int(parse_qs(path.query)["start"][0]), body))
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    api.url = f"http://127.0.0.1:{server.server_port}/jobs/7/callback"
    try:
        yield api
    finally:
        api.answers.set()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def api() -> Iterator[Api]:
    with serve() as api:
        yield api


class Shipper:
    """The script beside a docker that writes what comes down a pipe."""

    def __init__(self, folder: Path, api: Api) -> None:
        self.state = folder / "state"
        self.state.mkdir()
        (folder / "bin").mkdir()
        docker = folder / "bin/docker"
        self.pipe = folder / "pipe"
        os.mkfifo(self.pipe)
        self.log = folder / "log"
        self.running = folder / "running"
        self.running.touch()
        docker.write_text(ENGINE.format(pipe=self.pipe, log=self.log, running=self.running))
        docker.chmod(0o755)
        script = folder / "script"
        script.write_text(LOG_SHIPPER)
        self.process = subprocess.Popen(
            ["bash", "-c", AROUND, "agent", self.state, api.url, TOKEN, script],
            env={**os.environ, "PATH": f"{folder}/bin:{os.environ['PATH']}", "LC_ALL": "C"},
            process_group=0,
        )
        self.output = self.pipe.open("wb", buffering=0)

    def end(self) -> int:
        """End the container; return what the script exits with."""
        self.output.close()
        return self.process.wait(20)

    @property
    def counted(self) -> int | None:
        path = self.state / "log_bytes"
        return int(path.read_text()) if path.exists() else None


@pytest.fixture
def shipper(tmp_path: Path, api: Api) -> Iterator[Shipper]:
    shipper = Shipper(tmp_path, api)
    yield shipper
    processes.send(processes.tree({shipper.process.pid}), signal.SIGKILL)
    shipper.output.close()
    shipper.process.wait()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.01)


def reached(api: Api) -> int:
    return api.taken[-1][0] + len(api.taken[-1][1]) if api.taken else 0


def test_output_is_sent_by_its_position_to_the_byte(shipper: Shipper, api: Api) -> None:
    pieces = [b"one\n", b"\0\xff half a li", b"ne\n"]
    for piece in pieces:
        before = reached(api)
        shipper.output.write(piece)
        until(lambda: reached(api) == before + len(piece))  # noqa: B023 - called here
    assert shipper.end() == 0
    assert b"".join(data for _, data in api.taken) == b"".join(pieces)
    assert [start for start, _ in api.taken] == [0, 4, 16]
    assert api.tokens == {f"Bearer {TOKEN}"}
    assert shipper.counted == sum(map(len, pieces))


def test_without_anything_new_nothing_is_sent(shipper: Shipper, api: Api) -> None:
    shipper.output.write(b"a")
    until(lambda: len(api.taken) == 1)
    slept = shipper.state / "slept"
    # For longer than two of its intervals.
    until(lambda: slept.exists() and slept.stat().st_size > 40)
    assert len(api.tried) == 1


def test_what_was_not_taken_is_sent_again_with_what_came_meanwhile(
    shipper: Shipper, api: Api
) -> None:
    api.statuses = [503, 425, 204]
    shipper.output.write(b"abc")
    until(lambda: len(api.tried) == 2)
    shipper.output.write(b"def")
    until(lambda: reached(api) == 6)
    assert set(api.tried) == {0}
    assert b"".join(data for _, data in api.taken) == b"abcdef"


@pytest.mark.parametrize("status", [401, 404, 405, 413, 422, 302])
def test_a_refusal_is_final_and_the_bytes_are_counted_all_the_same(
    shipper: Shipper, api: Api, status: int
) -> None:
    api.statuses = [status]
    shipper.output.write(b"abc")
    until(lambda: len(api.tried) == 1)
    shipper.output.write(b"x" * 40_000)
    assert shipper.end() == 0
    assert len(api.tried) == 1
    assert shipper.counted == 40_003


def test_a_silent_api_does_not_hold_up_the_container(shipper: Shipper, api: Api) -> None:
    api.answers.clear()
    shipper.output.write(b"first\n")
    until(lambda: (shipper.state / "log_chunk").exists())
    # More than any pipe holds, and nobody answers: it is taken all the same, and its end waits.
    much = b"".join(b"%09d\n" % n for n in range(1_000_000))
    begun = time.monotonic()
    shipper.output.write(much)
    assert time.monotonic() - begun < 15
    api.answers.set()
    total = len(b"first\n") + len(much)
    until(lambda: reached(api) == total)
    start, data = api.taken[-1]
    assert start + len(data) == total
    assert len(data) <= CHUNK_LIMIT
    assert (b"first\n" + much)[start:] == data
    assert (shipper.state / "log_new").stat().st_size <= 4 * 1024 * 1024 + CHUNK_LIMIT


def test_of_much_at_once_the_latest_is_sent_and_the_rest_is_a_gap(
    shipper: Shipper, api: Api
) -> None:
    much = os.urandom(2_000_000)
    shipper.output.write(much)
    until(lambda: reached(api) == len(much))
    for start, data in api.taken:
        assert len(data) <= CHUNK_LIMIT
        assert much[start : start + len(data)] == data
    assert sum(len(data) for _, data in api.taken) < len(much)
    assert shipper.end() == 0
    assert shipper.counted == len(much)


def test_asked_to_end_it_ends_at_once_and_claims_no_count(shipper: Shipper, api: Api) -> None:
    shipper.output.write(b"abc")
    until(lambda: reached(api) == 3)
    # As systemd does it: all of them.
    processes.send(processes.tree({shipper.process.pid}), signal.SIGTERM)
    assert shipper.process.wait(3) == 0
    assert shipper.counted is None, "the container has not ended"


class TestAskedToEndBeforeTheClientIsDone:
    """The run is over, and systemd ends docker's client with all else before it has read the end."""

    def end(self, shipper: Shipper, api: Api, log: bytes) -> None:
        shipper.log.write_bytes(log)
        shipper.output.write(log[:3])
        until(lambda: reached(api) == 3)
        # It knows that they came: while one chunk is under way it sends no other.
        until(lambda: (shipper.state / "log_new").stat().st_size == 0)
        shipper.running.unlink()
        processes.send(processes.tree({shipper.process.pid}), signal.SIGTERM)
        assert shipper.process.wait(20) == 0

    def test_the_rest_is_counted(self, shipper: Shipper, api: Api) -> None:
        self.end(shipper, api, b"one\ntwo\n")
        assert shipper.counted == 8

    def test_what_the_report_has_no_room_for_is_sent(self, shipper: Shipper, api: Api) -> None:
        log = os.urandom(50_000)
        self.end(shipper, api, log)
        assert shipper.counted == len(log)
        until(lambda: reached(api) == len(log))
        assert b"".join(data for _, data in api.taken) == log

    def test_a_rest_that_breaks_off_is_neither_counted_nor_sent(
        self, shipper: Shipper, api: Api
    ) -> None:
        shipper.running.with_name("running.fails").touch()
        self.end(shipper, api, os.urandom(50_000))
        assert shipper.counted is None
        assert (shipper.state / "log_new").stat().st_size == 0
        assert reached(api) == 3

    def test_nothing_is_claimed_of_a_log_that_was_rotated(
        self, shipper: Shipper, api: Api
    ) -> None:
        shipper.log.with_name("log.1").touch()
        self.end(shipper, api, b"one\ntwo\n")
        assert shipper.counted is None


class TestFetch:
    """How the agent comes to the script."""

    @pytest.fixture
    def callbacks(self) -> Iterator[callback_api.CallbackApi]:
        with callback_api.serve() as api:
            yield api

    def run(
        self, folder: Path, callbacks: callback_api.CallbackApi, script: str | None
    ) -> tuple[Machine, list[str]]:
        machine = Machine(folder, callbacks)
        machine.order(JobSpec(image="nginx"))
        callbacks.log_script = script
        mark = machine.root / "executed"
        wait = f"  wait)\n    for _ in {{1..100}}; do [[ -e {mark} ]] && break; /bin/sleep 0.05; done\n"
        docker = machine.bin / "docker"
        docker.write_text(DOCKER.replace("  wait) ", f"{wait}    ", 1))
        machine.environment["BEFORE_LOG"] = "0"
        (machine.root / "opt/atemporal/agent").write_text(
            AGENT.replace(digest(LOG_SHIPPER), digest('touch "$ATEMPORAL_ROOT/executed"\n'))
        )
        machine.boot()
        return machine, callbacks.methods

    def test_the_script_that_the_user_data_names_is_executed(
        self, tmp_path: Path, callbacks: callback_api.CallbackApi
    ) -> None:
        machine, methods = self.run(tmp_path, callbacks, 'touch "$ATEMPORAL_ROOT/executed"\n')
        assert (machine.root / "executed").exists()
        assert callbacks.script_tokens == [TOKEN]
        assert methods == ["PUT", "PATCH", "DELETE"]

    @pytest.mark.parametrize(
        "script", ['touch "$ATEMPORAL_ROOT/executed"; echo\n', "", None], ids=["other", "", "none"]
    )
    def test_no_other_is_and_the_job_runs_all_the_same(
        self, tmp_path: Path, callbacks: callback_api.CallbackApi, script: str | None
    ) -> None:
        machine, methods = self.run(tmp_path, callbacks, script)
        assert not (machine.root / "executed").exists()
        assert callbacks.script_tokens == [TOKEN]
        assert methods == ["PUT", "PATCH", "DELETE"]
        assert machine.record.exit_code == 7

    def test_what_was_counted_is_reported(
        self, tmp_path: Path, callbacks: callback_api.CallbackApi
    ) -> None:
        machine = Machine(tmp_path, callbacks)
        docker = machine.bin / "docker"
        counted = machine.root / "run/atemporal/log_bytes"
        docker.write_text(DOCKER.replace("  wait) ", f"  wait) echo 12 >{counted}; ", 1))
        machine.boot()
        assert machine.record.log_bytes == 12
        assert f'"log_bytes":{12}' in "".join(machine.console)


def digest(script: str) -> str:
    return hashlib.sha256(script.encode()).hexdigest()[:32]
