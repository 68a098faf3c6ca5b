"""`atemporal logs` on a real API and Postgres: the bytes on standard output, the rest beside them."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import text

from atemporal.model import AttemptRef
from atemporal.model.log import LogChunk
from atemporal.states import Reason
from atemporal.store import attempts, launches, logs
from atemporal.store.database import Database
from tests.answering import Answer, answering
from tests.api import Api
from tests.claims import claim_due
from tests.integration.command_line import Cli
from tests.integration.test_cli import end
from tests.launches import LAUNCH
from tests.terminal import terminal

pytestmark = pytest.mark.usefixtures("own_output")


@pytest.fixture
def database(api: Api) -> Database:
    return api.database


def running(database: Database, job_id: str, number: int = 1) -> AttemptRef:
    with database.begin() as tx:
        refs = {str(ref.job_id): ref for ref in claim_due(tx, 1000, actor="test")}
        ref = refs[job_id]
        assert ref.number == number
        assert launches.begin(tx, ref, LAUNCH, actor="test")
        attempts.claim(tx, ref, claim_id="c", instance_id=None, actor="test")
    return ref


def say(database: Database, ref: AttemptRef, start: int, data: bytes) -> None:
    with database.begin() as tx:
        tx.execute(text("UPDATE log_chunks SET at = at - interval '1 minute'"))
        assert logs.append(tx, ref, LogChunk(start, data), kept=256 * 1024).taken == len(data)


def test_of_a_running_job_it_prints_what_is_kept_so_far(cli: Cli, database: Database) -> None:
    job_id = cli.submit()
    ref = running(database, job_id)
    assert "has sent no output yet" in cli("logs", job_id, code=1).stderr
    say(database, ref, 0, b"one\n\x00\xff\n")
    say(database, ref, 20, b"two\n")
    shown = cli("logs", job_id)
    assert shown.stdout_bytes == b"one\n\x00\xff\ntwo\n"
    assert "13 bytes are missing here" in shown.stderr
    answer = cli.json("logs", job_id)
    assert answer["log_tail"] is None
    assert answer["output"] == [
        {"attempt": 1, "start": 0, "missing": 0, "text": "one\n\0\N{REPLACEMENT CHARACTER}\n"},
        {"attempt": 1, "start": 20, "missing": 13, "text": "two\n"},
    ]


def test_what_is_gone_from_the_beginning_is_told(cli: Cli, database: Database) -> None:
    job_id = cli.submit()
    ref = running(database, job_id)
    say(database, ref, 5000, b"late\n")
    shown = cli("logs", job_id)
    assert (shown.stdout, "the first 5000 bytes are not kept" in shown.stderr) == ("late\n", True)
    end(database, ref, Reason.COMPLETED, 0, b"x" * 32 * 1024)
    assert "some before it may be missing, or come again" in cli("logs", job_id).stderr


def test_it_follows_to_the_end_of_the_job_over_its_attempts(cli: Cli, database: Database) -> None:
    job_id = cli.submit("--max-attempts", "2", "--backoff", "0")
    with cli.background("logs", "-f", job_id) as follower:
        assert follower.stdout is not None
        assert follower.stderr is not None
        assert "waiting for its first attempt" in follower.stderr.readline()
        ref = running(database, job_id)
        say(database, ref, 0, b"first\n")
        assert follower.stdout.readline() == "first\n"
        say(database, ref, 6, b"more\n")
        assert follower.stdout.readline() == "more\n"
        end(database, ref, Reason.EXIT_NONZERO, 1, b"first\nmore\nlast\n")
        assert follower.stdout.readline() == "last\n"
        second = running(database, job_id, 2)
        end(database, second, Reason.COMPLETED, 0, b"second\n")
        out, err = follower.communicate(timeout=30)
    assert (out, follower.returncode) == ("second\n", 0)
    assert err.count("attempt 2 begins") == 1
    assert cli("logs", "-f", job_id, "--attempt", "1").stdout == "first\nmore\nlast\n"
    assert "there is 1, 2" in cli("logs", "-f", job_id, "--attempt", "3", code=4).stderr


def test_a_job_that_never_began_ends_it(cli: Cli) -> None:
    job_id = cli.submit("--in", "1h")
    cli("cancel", job_id)
    assert cli("logs", "-f", job_id).stdout == ""


def test_it_outlives_an_outage_and_a_cut_letter_is_shown_whole(
    cli: Cli, database: Database
) -> None:
    job_id = cli.submit()
    end(database, running(database, job_id), Reason.COMPLETED, 0)
    job = cli("show", job_id, "-o", "json").stdout.encode()

    def page(data: str, start: int, *, ended: bool) -> bytes:
        part = {"start": start, "missing": 0, "data": data}
        fields = {"attempt": 1, "parts": [part], "next": start + 2, "more": not ended}
        return json.dumps(
            {**fields, "ended": ended, "next_attempt": None, "finished": ended}
        ).encode()

    # "a", and the two bytes of an e with an accent, one in each page.
    answers = [(200, job), (200, page("YcM=", 0, ended=False)), (503, b"{}"), (0, b"")]
    answers += [(200, page("qWI=", 2, ended=True))]
    with answering(*(Answer(*one) for one in answers)) as (url, asked):
        done = cli("logs", "-f", job_id, "-o", "json", ATEMPORAL_API_URL=url)
    assert [json.loads(line)["text"] for line in done.stdout.splitlines()] == ["a", "\u00e9b"]
    assert done.stderr.count("waiting for it to come back") == 1
    assert [one.path for one in asked][-1] == f"/jobs/{job_id}/logs?after=2&attempt=1"


def test_a_terminal_gets_text_and_colours_and_a_pipe_the_bytes(
    cli: Cli, database: Database
) -> None:
    job_id = cli.submit()
    wrote = b"\x1b[32mgreen\x1b[m\x1b]0;title\x07\n"
    say(database, running(database, job_id), 0, wrote)
    assert cli("logs", job_id).stdout_bytes == wrote
    with terminal("logs", job_id, env=cli.env) as shown:
        assert shown.ends() == 0
    assert "\x1b[32mgreen\x1b[m\\x1b]0;title\\x07" in shown.text
    assert "\x1b]" not in shown.text
