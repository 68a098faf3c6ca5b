"""The command line on a real API and Postgres: what it writes, says and exits with.

What the daemons would do to a job is done here by the store's own transitions.
"""

from __future__ import annotations

import base64
import json
import os
import random
import shlex
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from atemporal import migrations, tokens
from atemporal.cloud import Cloud
from atemporal.model import AttemptRef, ExitRecord, JobSpec
from atemporal.model.secret import revealed
from atemporal.settings import Settings
from atemporal.states import Reason
from atemporal.store import attempts, groups, jobs, launches
from atemporal.store.database import Database
from atemporal.twin.server import Twin
from atemporal.userdata import render, render_group
from tests.answering import Answer, answering
from tests.api import Api, serving
from tests.claims import claim_due
from tests.integration.command_line import KEYS, Cli
from tests.launches import LAUNCH
from tests.servers.postgres import Postgres

pytestmark = pytest.mark.usefixtures("own_output")

SECRET = "s3cret-of-the-job"


@pytest.fixture
def database(database_url: str, cli: Cli) -> Iterator[Database]:
    made = Database(database_url)
    yield made
    made.dispose()


def begin(database: Database, job_id: str, instance_id: str | None = None) -> AttemptRef:
    """Bring a due job to an attempt, and that to an instance."""
    with database.begin() as tx:
        refs = {ref.job_id: ref for ref in claim_due(tx, 1000, actor="test")}
        ref = refs[UUID(job_id)]
        assert launches.begin(tx, ref, LAUNCH, actor="test")
        if instance_id:
            attempts.launched(tx, ref, instance_id, actor="test")
    return ref


def end(
    database: Database, ref: AttemptRef, reason: Reason, code: int | None = None, log: bytes = b""
) -> None:
    """End a running attempt."""
    record = ExitRecord(exit_code=code, log_tail=base64.b64encode(log))
    with database.begin() as tx:
        attempts.claim(tx, ref, claim_id="c", instance_id=None, actor="test")
        attempts.end(
            tx, ref, reason, actor="test", exit_record=record if code is not None else None
        )


def test_upgrade_makes_the_tables_and_may_be_repeated(postgres_server: Postgres) -> None:
    url = postgres_server.create_database()
    operator = Cli(url, "http://127.0.0.1:1")
    before = operator("token", "list", code=3)
    assert "atemporal db upgrade" in before.stderr

    first, again = (operator("db", "upgrade").stdout.splitlines() for _ in range(2))
    steps = (Path(migrations.__file__).parent / "versions").glob("0*.py")
    assert [line[:5] for line in first[:-1]] == [f"{step.name[:4]} " for step in sorted(steps)]
    assert again[0] == "nothing to do"
    assert first[-1] == again[-1]
    assert operator.json("db", "upgrade")["applied"] == []
    with serving(url) as served:
        cli = Cli(url, str(served.http.base_url))
        assert cli.json("list") == {
            "total": 0,
            "total_estimated": False,
            "jobs": [],
            "next": None,
        }
        assert cli("list").stdout == ""


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "which is now"),
        (["--at", "2015-04-25"], None),
        (["--at", "2015-04-25T05:27Z"], "which is now"),
        (["--in", "90m"], "in 1h30m"),
        (["--in", "2d"], "in 2d00h"),
        (["--at", "2099-04-25 07:27:27+02"], "due 2099-04-25T05:27:27.000Z, in "),
    ],
)
def test_submit_prints_the_id_alone_and_says_beside_it_when_it_is_due(
    cli: Cli, words: list[str], says: str | None
) -> None:
    options = ["nginx:1.9", "-e", f"PASSWORD={SECRET}", *words]
    if says is None:
        assert "no time of day" in cli("submit", *options, code=2).stderr
        return
    done = cli("submit", *options)
    assert str(UUID(done.stdout.strip())) + "\n" == done.stdout
    assert says in done.stderr
    assert SECRET not in done.stderr


@pytest.mark.parametrize("words", [["-o", "json", "submit"], ["submit", "-o", "json"]])
def test_submit_for_a_program_is_the_job(cli: Cli, words: list[str]) -> None:
    options = ["--label", "team=a", "--timeout", "90s", "--max-attempts", "3", "--priority", "5"]
    options += ["--instance-type", "m7i.large", "--port", "8080:80", "-e", f"PASSWORD={SECRET}"]
    job = json.loads(cli(*words, "nginx:1.9", *options, "--", "sh", "-c", "echo hi").stdout)

    assert job["image"] == "nginx:1.9"
    assert job["command"] == ["sh", "-c", "echo hi"]
    assert job["state"] == "scheduled"
    assert (job["timeout_s"], job["max_attempts"], job["priority"]) == (90, 3, 5)
    assert job["machine"]["instance_types"] == ["m7i.large"]
    assert job["ports"] == ["8080:80"]
    assert job["labels"] == {"team": "a"}
    assert job["env"] == {"PASSWORD": "***"}


def test_the_environment_arrives_as_it_was_given(
    cli: Cli, database: Database, tmp_path: Path
) -> None:
    value = "two\nlines 'and' \"quotes\" $HOME %s é"
    file = tmp_path / "env"
    file.write_text("FROM_FILE= as it is \n")
    job_id = cli(
        *("submit", "nginx", "--env-file", str(file), "-e", f"A={value}", "-e", "MINE"), MINE="own"
    ).stdout.strip()
    with database.begin() as tx:
        env = jobs.get(tx, UUID(job_id)).spec.env
    assert env == {"A": value, "FROM_FILE": " as it is ", "MINE": "own"}


def test_an_env_file_for_compose_is_read_as_compose_reads_it(
    cli: Cli, database: Database, tmp_path: Path
) -> None:
    file = tmp_path / "job.env"
    file.write_text("export USER='bond' # james\nURL=\"http://${HOST:-db}/$MINE\"\n")
    words = ("submit", "nginx", "--env-file", str(file))
    # Docker refuses the first line.
    assert "line 1 (USER), line 2 (URL)" in cli(*words, code=2).stderr
    done = cli(*words, "--env-file-format", "compose", MINE="own")
    assert "written for compose" not in done.stderr
    with database.begin() as tx:
        env = jobs.get(tx, UUID(done.stdout.strip())).spec.env
    assert env == {"USER": "bond", "URL": "http://db/own"}
    assert "give one" in cli("submit", "nginx", "--env-file-format", "compose", code=2).stderr


def test_who_submitted_is_in_the_history(cli: Cli) -> None:
    token = cli("token", "create", "alice", "--scope", "submit").stdout.strip()
    job_id = cli("submit", "nginx", ATEMPORAL_API_TOKEN=token).stdout.strip()
    assert cli.json("show", job_id)["events"][0]["actor"] == "api:alice"


def test_the_commands_about_jobs_need_an_address_and_a_token_alone(
    database_url: str, cli: Cli
) -> None:
    token = cli("token", "create", "dev", "--scope", "submit", "--scope", "read").stdout.strip()
    # An API whose machines call from elsewhere wants tokens.
    with serving(database_url, callback_url="https://atemporal.example.com") as guarded:
        user = Cli("", str(guarded.http.base_url))
        user.env["ATEMPORAL_CALLBACK_KEYS"] = ""
        nobody = user("list", code=1).stderr
        assert "needs an API token" in nobody
        assert "ATEMPORAL_API_TOKEN is not set" in nobody
        assert "no such API token" in user("list", code=1, ATEMPORAL_API_TOKEN="atp_x").stderr
        user.env["ATEMPORAL_API_TOKEN"] = token
        job_id = user.submit()
        for words in (["show", job_id], ["list"], ["wait", job_id, "--timeout", "0"]):
            user(*words, code=124 if words[0] == "wait" else 0)
        assert "does not allow 'cancel'" in user("cancel", job_id, code=1).stderr


def test_what_the_api_has_to_say_to_everybody_is_repeated(database_url: str) -> None:
    notice = "maintenance at noon: jobs wait until one"
    with serving(database_url, api_notice=notice) as served:
        cli = Cli(database_url, str(served.http.base_url))
        submitted = cli("submit", "nginx", "--in", "1h")
        job_id = submitted.stdout.strip()
        for done in (submitted, cli("show", job_id), cli("show", job_id, "-o", "json")):
            assert f"atemporal: {notice}\n" in done.stderr
    for bad in ("two\nlines", "\u2026", "x" * 301):
        refused = cli("config", code=2, ATEMPORAL_API_NOTICE=bad)
        assert "ATEMPORAL_API_NOTICE" in refused.stderr


def test_a_time_is_an_instant_or_a_distance(cli: Cli) -> None:
    at = cli.json("submit", "nginx", "--at", "2030-01-02T03:04:05+01:00")
    assert at["time"] == "2030-01-02T02:04:05.000Z"

    ahead = cli.json("submit", "nginx", "--in", "1h30m")
    distance = datetime.fromisoformat(ahead["time"]) - datetime.fromisoformat(ahead["created_at"])
    assert distance == timedelta(minutes=90)

    past = cli.json("submit", "nginx", "--at", "2015-04-25T05:27:27.069Z")
    assert past["due_at"] == past["created_at"]


def test_the_same_key_is_the_same_job(cli: Cli) -> None:
    words = ("--key", "nightly", "--in", "1h", "-e", f"PASSWORD={SECRET}")
    first = cli.submit(*words)
    again = cli("submit", "nginx", *words)
    assert again.stdout.strip() == first
    assert "nothing new" in again.stderr

    other = cli("submit", "nginx:2", *words[:4], "-e", "PASSWORD=another", code=5)
    assert other.stdout == ""
    assert first in other.stderr
    assert "image" in other.stderr
    assert "PASSWORD" in other.stderr
    assert SECRET not in other.stderr
    assert "another" not in other.stderr


def test_what_does_not_fit_into_a_machine_s_user_data_is_refused_if_it_has_to(cli: Cli) -> None:
    noise = random.Random(7).randbytes(10_000).hex()
    words = ("-e", f"BIG={noise}")
    refused = cli("submit", "nginx", *words, "--delivery", "inline", code=2)
    assert "bytes compressed (20009 as they are) and" in refused.stderr
    assert "delivery inline" in refused.stderr
    assert noise[:20] not in refused.stderr
    assert cli("submit", "nginx", *words, "--in", "1h").stdout


class TestSecrets:
    def test_a_secret_is_taken_from_the_environment_or_a_file_and_shown_by_name(
        self,
        cli: Cli,
        database: Database,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv("TOKEN", SECRET)
        file = tmp_path / "pass"
        file.write_text(f"{SECRET}\nand more\n")
        job_id = cli.submit("--in", "1h", "--secret", "TOKEN", "--secret", f"PASS=@{file}")
        with database.begin() as tx:
            stored = jobs.get(tx, UUID(job_id)).spec.secrets
        assert revealed(stored) == {"TOKEN": SECRET, "PASS": f"{SECRET}\nand more"}
        shown = cli("show", job_id, "--reveal").stdout
        assert "secret     TOKEN" in shown
        assert cli.json("show", job_id, "--reveal")["secrets"] == {"PASS": None, "TOKEN": None}
        for words in (("show", job_id, "--reveal"), ("list",)):
            for how in ((), ("-o", "json")):
                assert SECRET not in cli(*words, *how).output

    def test_where_its_machine_finds_it_is_kept_and_shown(self, cli: Cli) -> None:
        given = ("--secret", "TOKEN=ssm:/team/token:3", "--secret", "KEY=secretsmanager:key")
        job_id = cli.submit("--in", "1h", *given)
        asked = cli.json("show", job_id)
        assert asked["secret_refs"] == {"KEY": "secretsmanager:key", "TOKEN": "ssm:/team/token:3"}
        assert asked["secrets"] == {}
        assert "secret     TOKEN=ssm:/team/token:3" in cli("show", job_id).stdout
        refused = cli("submit", "nginx", "--secret", "TOKEN=ssm:", code=2).stderr
        assert "ssm:/team/password" in refused

    def test_a_value_on_the_command_line_is_refused_with_the_reason(self, cli: Cli) -> None:
        refused = cli("submit", "nginx", "--secret", f"TOKEN={SECRET}", code=2).stderr
        assert SECRET not in refused
        assert "history" in refused
        assert "TOKEN=@FILE" in refused

    @pytest.mark.parametrize(
        ("words", "why"),
        [
            (("NOT_THERE",), "is not in your environment"),
            (("A=@/nowhere/at/all",), "No such file"),
            (("PATH", "PATH=@/etc/hostname"), "given twice"),
            (("PATH", "PATH=ssm:/path"), "given twice"),
        ],
    )
    def test_what_can_not_be_had_is_refused(
        self, cli: Cli, words: tuple[str, ...], why: str
    ) -> None:
        given = [word for one in words for word in ("--secret", one)]
        assert why in cli("submit", "nginx", *given, code=2).stderr

    def test_another_value_under_the_same_key_is_refused_by_its_name(
        self, cli: Cli, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        words = ("submit", "nginx", "--in", "1h", "--key", "with-secret", "--secret", "TOKEN")
        monkeypatch.setenv("TOKEN", SECRET)
        first = cli(*words).stdout
        assert cli(*words).stdout == first
        monkeypatch.setenv("TOKEN", "another-value")
        other = cli(*words, code=5)
        assert "secrets: variables TOKEN" in other.stderr
        assert SECRET not in other.stderr
        assert "another-value" not in other.stderr


def test_a_job_is_named_by_the_end_of_its_id(cli: Cli) -> None:
    ids = [cli.submit("--in", "1h") for _ in range(17)]
    assert "more than one" in cli("show", ids[0][:4], code=4).stderr
    assert "too short" in cli("show", ids[0][-3:], code=4).stderr
    assert cli.json("show", ids[0][-12:])["id"] == ids[0]
    assert "no job" in cli("show", "0" * 12, code=4).stderr
    assert "is not a job id" in cli("show", "nonsense", code=4).stderr


def test_list_filters_and_pages(cli: Cli) -> None:
    ids = [cli.submit("--in", "1h", "--label", "batch=7") for _ in range(3)]
    cli("cancel", ids[1])

    found = cli.json("list", "--label", "batch=7")
    assert [job["id"] for job in found["jobs"]] == ids[::-1]
    oldest = cli.json("list", "--label", "batch=7", "--reverse", "--limit", "1")
    assert (oldest["next"], [job["id"] for job in oldest["jobs"]]) == (ids[0], ids[:1])
    for state in ("finished", "cancelled"):
        over = cli.json("list", "--label", "batch=7", "--state", state)
        assert [job["id"] for job in over["jobs"]] == [ids[1]]
    assert cli.json("list", "--label", "batch=7", "--state", "failed")["total"] == 0
    either = cli.json("list", "--label", "batch=7", "--state", "cancelled", "--state", "scheduled")
    assert either["total"] == 3

    page = cli("list", "--label", "batch=7", "--limit", "2")
    text, _, following = page.stderr.strip().partition("the next: atemporal ")
    assert "3 jobs in all" in text
    assert following == f"list --label batch=7 --limit 2 --after {ids[1]}"
    header, line = cli(*following.split()).stdout.splitlines()
    assert header.split()[:2] == ["ID", "STATE"]
    assert line.split()[:2] == [ids[0], "scheduled"]
    onward = cli.json("list", "--label", "batch=7", "--reverse", "--after", ids[1][-12:])
    assert [job["id"] for job in onward["jobs"]] == ids[2:]


def test_logs_of_a_job_that_was_cancelled_while_it_ran_may_come_until_its_machine_is_gone(
    cli: Cli, database: Database
) -> None:
    early, late = cli.submit(), cli.submit()
    with database.begin() as tx:
        refs = {str(ref.job_id): ref for ref in claim_due(tx, 1000, actor="test")}
        for job_id in (early, late):
            launches.begin(tx, refs[job_id], LAUNCH, actor="test")
        attempts.claim(tx, refs[late], claim_id="c", instance_id=None, actor="test")
    cli("cancel", early, late)
    assert "may still report" in cli("logs", late, code=1).stderr
    with database.begin() as tx:
        attempts.close(tx, refs[late], actor="test")
    assert "was not kept" in cli("logs", late, code=1).stderr
    assert "left no output (cancelled" in cli("logs", early).stderr


def test_wait_ends_with_the_job_and_exits_as_it_did(cli: Cli, database: Database) -> None:
    job_id = cli.submit()
    ref = begin(database, job_id, "i-0wait")
    with cli.background("wait", job_id) as waiting:
        end(database, ref, Reason.EXIT_NONZERO, 7)
        out, err = waiting.communicate(timeout=30)
    assert waiting.returncode == 7, err
    assert out == f"{job_id} failed (exit_nonzero), exit code 7\n"


def test_wait_outlives_an_outage_of_the_api(cli: Cli, api: Api, database: Database) -> None:
    job_id = cli.submit()
    ref = begin(database, job_id, "i-0outage")
    runs = api.http.get(f"/jobs/{job_id}").content
    end(database, ref, Reason.COMPLETED, 0)
    over = api.http.get(f"/jobs/{job_id}").content
    # Found, there, away as a load balancer and as the API say it, and back.
    answers = [
        (200, runs),
        (200, runs),
        (502, b"<html>"),
        (503, b'{"error": "away"}'),
        (200, over),
    ]
    with answering(*(Answer(*one) for one in answers)) as (url, _):
        done = cli("wait", job_id, ATEMPORAL_API_URL=url)
    assert done.stderr.count("waiting for it to come back") == 1
    assert "succeeded" in done.stdout


def test_wait_has_codes_for_what_has_no_exit_code(cli: Cli, database: Database) -> None:
    late, cancelled, timed_out = cli.submit("--in", "1h"), cli.submit(), cli.submit()
    assert (
        "1 of 1 job has not finished in time"
        in cli("wait", late, "--timeout", "0", code=124).stderr
    )
    cli("cancel", cancelled)
    cli("wait", cancelled, code=125)
    end(database, begin(database, timed_out), Reason.TIMED_OUT, 137)
    cli("wait", timed_out, code=124)

    both = cli.json("wait", timed_out, cancelled, code=124)
    assert [job["outcome"] for job in both] == ["timed_out", "cancelled"]
    cli("wait", cancelled, timed_out, code=125)


def test_logs_are_the_very_bytes(cli: Cli, database: Database) -> None:
    job_id = cli.submit()
    end(database, begin(database, job_id), Reason.COMPLETED, 0, b"one\r\n\xff\x00two")
    assert cli("logs", job_id).stdout_bytes == b"one\r\n\xff\x00two"
    assert cli.json("logs", job_id)["log_tail"] == "one\r\n\N{REPLACEMENT CHARACTER}\0two"


def test_logs_say_why_there_are_none(cli: Cli, database: Database) -> None:
    job_id = cli.submit()
    assert "no attempt has been begun" in cli("logs", job_id, code=4).stderr

    ref = begin(database, job_id)
    live = cli("logs", job_id, code=1)
    assert "attempt 1 is launching" in live.stderr
    assert live.stdout == ""
    assert "there is 1" in cli("logs", job_id, "--attempt", "2", code=4).stderr

    end(database, ref, Reason.COMPLETED, 0)
    assert "printed nothing" in cli("logs", job_id).stderr


def test_show_tells_the_history_and_hides_the_environment(cli: Cli, database: Database) -> None:
    job_id = cli.submit("-e", f"PASSWORD={SECRET}", "--label", "x=y")
    ref = begin(database, job_id, "i-0show")
    end(database, ref, Reason.EXIT_NONZERO, 3, b"out")
    with database.begin() as tx:
        # What an older release took for a label's value.
        spec = "jsonb_set(spec, '{labels,odd}', to_jsonb(E'\\x1b[2J'::text))"
        tx.execute(text(f"UPDATE jobs SET spec = {spec} WHERE id = :id"), {"id": job_id})
        tags = """launch || '{"tags": {"cost-center": "42"}, "label_tags": ["*"]}'"""
        tx.execute(text(f"UPDATE attempts SET launch = {tags} WHERE job_id = :id"), {"id": job_id})

    text_shown = cli("show", job_id).stdout
    assert "attempt 1: tags asked for: cost-center=42, x=y\n" in text_shown
    assert "PASSWORD=***" in text_shown
    assert "\x1b" not in text_shown
    assert "finished (failed: exit_nonzero), exit code 3" in text_shown
    history = [line.split()[:2] for line in text_shown.splitlines() if line.startswith("+")]
    assert history[0] == ["+0.000s", "job.scheduled"]
    assert history[-1][1] == "job.finished.failed"
    times = [float(time.strip("+s")) for time, _ in history]
    assert times == sorted(times)

    job = cli.json("show", job_id)
    assert SECRET not in json.dumps(job)
    (instance,) = job["instances"]
    assert instance.items() >= {"id": 1, "aws_id": "i-0show", "dns": None, "ip": None}.items()
    assert job["instances"][0]["log_tail"] == job["log_tail"] == "out"
    assert cli.json("show", job_id, "--reveal")["env"] == {"PASSWORD": SECRET}


def test_cancel_changes_nothing_unless_all_can_be_cancelled(cli: Cli, database: Database) -> None:
    running, waiting, over = cli.submit(), cli.submit("--in", "1h"), cli.submit()
    with database.begin() as tx:
        for ref in claim_due(tx, 1000, actor="test"):
            launches.begin(tx, ref, LAUNCH, actor="test")
    end(database, AttemptRef(UUID(over), 1), Reason.COMPLETED, 0)

    assert "has finished already" in cli("cancel", running, over, code=5).stderr
    assert cli.json("show", running)["state"] == "warming"

    cancelled = cli.json("cancel", running, waiting)
    assert [job["outcome"] for job in cancelled] == ["cancelled", "cancelled"]
    assert cancelled[0]["instances"][0]["state"] == "exited"
    cli("cancel", running, waiting)


def overdue(database: Database, job_id: str) -> None:
    with database.begin() as tx:
        tx.execute(
            text(
                "UPDATE jobs SET due_at = now() - interval '3 minutes', dispatch_at = NULL"
                " WHERE id = :id"
            ),
            {"id": job_id},
        )


def test_every_wait_names_who_has_to_act_since_when_and_until_when(
    database_url: str, database: Database
) -> None:
    with serving(database_url, queue_deadline_s=600, boot_deadline_s=120) as served:
        _every_wait(Cli(database_url, str(served.http.base_url)), database)


def _every_wait(cli: Cli, database: Database) -> None:
    waiting = cli.submit("--in", "1h")
    shown = cli("show", waiting).stdout
    assert "waits for  its time" in shown
    assert "(in 59m" in shown

    late = cli.submit("--in", "1h")
    overdue(database, late)
    assert "a scheduler to hand it on, since 3m" in cli("show", late).stdout
    assert cli.json("show", late)["waiting_for"] == "a scheduler to hand it on"

    with database.begin() as tx:
        (ref,) = claim_due(tx, 1, actor="test")
    # It waits for a launcher since it was dispatched, however late that was.
    assert "a launcher to take it, since 0s" in cli("show", late).stdout
    with database.begin() as tx:
        tx.execute(text("UPDATE jobs SET queued_at = queued_at - interval '3 minutes'"))
    shown = cli("show", late).stdout
    assert "a launcher to take it, since 3m" in shown
    assert "until" in shown
    assert "(in 6m" in shown

    with database.begin() as tx:
        launches.begin(tx, ref, LAUNCH, actor="test")
        attempts.launched(tx, ref, "i-0123456789abcdef0", actor="test")
    shown = cli("show", late).stdout
    assert "its machine to boot" in shown
    assert "(in 1m5" in shown


@pytest.mark.parametrize(
    ("reason", "log", "says"),
    [
        (
            Reason.CREATE_FAILED,
            b"\nError: invalid mount config\nmore",
            "Error: invalid mount",
        ),
        (Reason.START_FAILED, b"exec: no such file or directory", "exec: no such file"),
        (Reason.PULL_FAILED, b"toomanyrequests: slow down", "toomanyrequests: slow down"),
        (Reason.BOOT_DEADLINE, None, "can its machine reach ATEMPORAL_CALLBACK_URL?"),
        (Reason.PULL_DEADLINE, None, "the machine's console says why"),
    ],
)
def test_show_and_wait_say_why_an_attempt_failed_or_where_that_stands(
    cli: Cli, database: Database, reason: Reason, log: bytes | None, says: str
) -> None:
    job_id = cli.submit("--infra-retries", "0")
    ref = begin(database, job_id)
    record = ExitRecord(log_tail=base64.b64encode(log)) if log else None
    with database.begin() as tx:
        assert attempts.end(tx, ref, reason, actor="test", exit_record=record)
    (line,) = (
        line for line in cli("show", job_id).stdout.splitlines() if line.startswith("attempt 1:")
    )
    assert says in line
    assert says in cli("wait", job_id, code=125).stdout


def test_an_empty_list_says_so(cli: Cli, database: Database) -> None:
    with database.begin() as tx:
        tx.execute(text("TRUNCATE jobs, events CASCADE"))
    assert "there are no jobs yet" in cli("list").stderr
    cli.submit()
    assert cli("list").stderr == ""
    for words in (["--label", "no=such"], ["--state", "lost"]):
        assert "no job fits" in cli("list", *words).stderr


def test_an_id_is_found_by_its_beginning_and_an_ambiguous_one_lists_its_matches(
    cli: Cli,
) -> None:
    first, second = cli.submit(), cli.submit()
    for part in (first, first[:-3], first[-12:], first[-6:].upper()):
        assert cli.json("show", part)["id"] == first
    ambiguous = cli("show", first[:6], code=4).stderr
    assert first in ambiguous
    assert second in ambiguous


@pytest.mark.parametrize("command", ["show", "cancel", "retry", "wait", "logs", "user-data"])
def test_completion_knows_the_newest_jobs(cli: Cli, command: str) -> None:
    job_id = cli.submit()
    code = "from atemporal.cli import main; main(prog_name='atemporal')"
    for url, wanted in ((cli.env["ATEMPORAL_API_URL"], [job_id]), ("http://127.0.0.1:1", [])):
        env = {
            **os.environ,
            "ATEMPORAL_API_URL": url,
            "_ATEMPORAL_COMPLETE": "bash_complete",
            "COMP_WORDS": f"atemporal {command} {job_id[:-2]}",
            "COMP_CWORD": "2",
        }
        done = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True
        )
        assert done.stdout.split() == [f"plain,{one}" for one in wanted], done.stderr


def test_the_command_is_shown_as_it_can_be_pasted(cli: Cli) -> None:
    command = ["sh", "-c", 'echo "$NAME"; exit 7', "it's"]
    job_id = cli("submit", "nginx", *command).stdout.strip()
    (line,) = (line for line in cli("show", job_id).stdout.splitlines() if "command" in line)
    assert shlex.split(line)[1:] == command


def test_retry_is_for_finished_jobs(cli: Cli) -> None:
    job_id = cli.submit("--in", "1h")
    assert "only a finished job" in cli("retry", job_id, code=5).stderr
    cli("cancel", job_id)
    job = cli.json("retry", job_id)
    assert (job["state"], job["outcome"]) == ("scheduled", None)
    assert datetime.fromisoformat(job["due_at"]) <= datetime.now(UTC)


def test_user_data_are_masked_or_the_very_bytes(cli: Cli, database: Database) -> None:
    job_id = cli.submit("-e", f"PASSWORD={SECRET}")
    cli("user-data", job_id, code=4)
    ref = begin(database, job_id)
    spec = JobSpec(image="nginx", env={"PASSWORD": SECRET})
    token = tokens.mint(Settings(callback_keys=KEYS).keys, "k1", "default", ref.id)

    masked = cli("user-data", job_id)
    assert "masked" in masked.stderr
    manifest = next(line for line in masked.stdout.splitlines() if "content: YX" in line)
    decoded = base64.b64decode(manifest.split()[-1])
    assert b"env=PASSWORD=***" in decoded
    assert SECRET.encode() not in decoded
    assert token.encode() not in decoded

    assert cli("user-data", job_id, "--reveal").stdout_bytes == render(ref, spec, LAUNCH, token)
    as_fcos = LAUNCH.model_copy(update={"os_family": "fcos"})
    shown = cli("user-data", job_id, "--reveal", "--os-family", "fcos")
    assert shown.stdout_bytes == render(ref, spec, as_fcos, token)
    answer = json.loads(cli("user-data", job_id, "--os-family", "debian", "-o", "json").stdout)
    assert (answer["os_family"], answer["masked"]) == ("debian", True)
    assert SECRET not in answer["user_data"]
    assert "bootcmd" in answer["user_data"]
    other = cli("user-data", job_id, "--reveal", code=1, ATEMPORAL_CALLBACK_KEYS=f"k2{KEYS[2:]}")
    assert "k1" in other.stderr


def test_machines_that_were_launched_together_share_their_user_data(
    cli: Cli, database: Database
) -> None:
    group_id, ids = uuid4(), {UUID(cli.submit("-e", f"PASSWORD={SECRET}")) for _ in range(2)}
    not_called = LAUNCH.model_copy(update={"calls": 0})
    with database.begin() as tx:
        ref, other = (one for one in claim_due(tx, 1000, actor="test") if one.job_id in ids)
        launches.begin_many(tx, {ref: not_called, other: not_called}, actor="test")
        assert groups.form(tx, group_id, not_called, [ref, other]) == 2
    keys = Settings(callback_keys=KEYS).keys
    token = tokens.mint(keys, "k1", "default", str(group_id), "group")

    masked = cli("user-data", str(ref.job_id))
    assert str(group_id) in masked.stderr
    revealed = cli("user-data", str(ref.job_id), "--reveal").stdout_bytes
    assert revealed == render_group(group_id, not_called, token)
    assert revealed == cli("user-data", str(other.job_id), "--reveal").stdout_bytes
    assert masked.stdout_bytes == render_group(group_id, not_called, "***")


def test_the_user_data_of_a_job_by_claim_has_nothing_of_it(cli: Cli, database: Database) -> None:
    job_id = cli.submit("-e", f"PASSWORD={SECRET}", "--delivery", "claim")
    launch = LAUNCH.model_copy(update={"delivery": "claim"})
    with database.begin() as tx:
        (ref,) = (one for one in claim_due(tx, 1000, actor="test") if str(one.job_id) == job_id)
        assert launches.begin(tx, ref, launch, actor="test")
        spec = jobs.get(tx, ref.job_id).spec
    masked = cli("user-data", job_id)
    assert "it asks the API for its job" in masked.stderr
    assert masked.stdout_bytes == render(ref, spec, launch, "***")
    keys = Settings(callback_keys=KEYS).keys
    token = tokens.mint(keys, "k1", "default", ref.id, "assignment")
    assert cli("user-data", job_id, "--reveal").stdout_bytes == render(ref, spec, launch, token)
    assert "delivery   claim" in cli("show", job_id).stdout


def test_instances_stand_beside_their_attempts(
    cli: Cli, database: Database, tmp_path: Path
) -> None:
    lost, known = cli.submit(), cli.submit()
    with database.begin() as tx:
        refs = {str(ref.job_id): ref for ref in claim_due(tx, 1000, actor="test")}
        for job_id, instance_id in ((lost, "i-00000000000lost1"), (known, None)):
            launches.begin(tx, refs[job_id], LAUNCH, actor="test")
            if instance_id:
                attempts.launched(tx, refs[job_id], instance_id, actor="test")
    stranger = AttemptRef(UUID(int=7), 1)
    with Twin(tmp_path, engine="process") as twin:
        settings = Settings(ec2_endpoint_url=twin.url)
        with Cloud(settings) as cloud:
            launch = LAUNCH.model_copy(update={"image_id": cloud.resolve_image()})
            own = cloud.run(refs[known], launch, b"#!/bin/true\n")
            unknown = cloud.run(stranger, launch, b"#!/bin/true\n")
            launch = launch.model_copy(update={"installation": UUID(int=9)})
            foreign = cloud.run(AttemptRef(UUID(int=8), 1), launch, b"#!/bin/true\n")
        with database.begin() as tx:
            attempts.launched(tx, refs[known], own.id, actor="test")
        rows = {
            row["instance"]: row
            for row in cli.json("instances", ATEMPORAL_EC2_ENDPOINT_URL=twin.url)
        }
        text = cli("instances", ATEMPORAL_EC2_ENDPOINT_URL=twin.url).stdout

    assert (rows[own.id]["job"], rows[own.id]["recorded"]) == (known, "warming")
    assert (rows[unknown.id]["job"], rows[unknown.id]["recorded"]) == (
        str(UUID(int=7)),
        "orphaned",
    )
    assert rows[foreign.id]["recorded"] == "foreign"
    absent = rows["i-00000000000lost1"]
    assert (absent["job"], absent["state"]) == (lost, "absent")
    assert text.splitlines()[0].split()[:3] == ["INSTANCE", "STATE", "RECORDED"]


def test_an_api_token_is_shown_once(cli: Cli) -> None:
    secret = cli("token", "create", "ci", "--scope", "submit", "--scope", "read").stdout.strip()
    assert secret.startswith("atp_")
    assert "revoke it" in cli("token", "create", "ci", "--scope", "read", code=5).stderr
    listed = cli("token", "list", "-o", "json").stdout
    assert secret not in listed
    assert ("ci", ["submit", "read"]) in [
        (one["name"], one["scopes"]) for one in json.loads(listed)
    ]
    cli("token", "revoke", "ci")
    cli("token", "revoke", "ci", code=4)


def test_broker_declare_makes_the_queues(cli: Cli, broker_url: str) -> None:
    made = cli.json("broker", "declare", ATEMPORAL_BROKER_URL=broker_url)
    assert "atemporal.launch" in made["queues"]
    away = cli("broker", "declare", code=3, ATEMPORAL_BROKER_URL="amqp://u:hidden@127.0.0.1:1//")
    assert "does not answer" in away.stderr
    assert "hidden" not in away.stderr
