"""The command line before any server: help, input, masks, exit codes, how answers look."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import click
import pytest
from click.testing import CliRunner, Result
from pydantic import SecretStr

from atemporal import client, errors
from atemporal.calendar import rules_version
from atemporal.cli import COMMANDS, columns, endings, exit_code, main, masks, output
from atemporal.client import JobDetail
from atemporal.model import Attempt, Job, JobSpec, Launch
from atemporal.settings import Settings
from atemporal.states import AttemptState, JobState, Outcome, Reason
from services.api import schemas

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SECRET = "hunter2-hunter2-hunter2"
# Nothing listens there: a command that connects fails, and says so.
NOWHERE = f"postgresql://someone:{SECRET}@127.0.0.1:1/nowhere"


def run(
    *words: str, given: str | None = None, env: Mapping[str, str | None] | None = None
) -> Result:
    nowhere = {"ATEMPORAL_DATABASE_URL": NOWHERE, "ATEMPORAL_API_URL": "http://127.0.0.1:1"}
    return CliRunner(env={**nowhere, **(env or {})}).invoke(main, words, input=given)


def a_job(outcome: Outcome | None, exit_code: int | None = None, **attempt: Any) -> JobDetail:
    """A job as the API sends it."""
    job_id = UUID("0198c5e0-7a11-7c3e-9d5b-2f4a6b8c0d1e")
    launch = Launch(
        image_id="ami-1",
        instance_type="t3.small",
        callback_base="http://127.0.0.1:9",
        key_id="k1",
        deadline_s=60,
    )
    because = attempt.pop("because", Reason.COMPLETED)
    tried = Attempt(
        job_id=job_id,
        number=1,
        state=AttemptState.EXITED if outcome else AttemptState.RUNNING,
        launch=launch,
        exit_code=exit_code,
        created_at=NOW,
        reason=because if outcome else None,
        **attempt,
    )
    job = Job(
        id=job_id,
        spec=JobSpec(image="nginx", env={"PASSWORD": SECRET}),
        state=JobState.FINISHED if outcome else JobState.RUNNING,
        outcome=outcome,
        reason=because if outcome else None,
        attempt=1,
        run_at=NOW,
        due_at=NOW,
        created_at=NOW,
        updated_at=NOW,
        read_at=NOW,
        attempts=(tried,),
    )
    shown = schemas.JobDetail.show(job, {}).model_dump_json()
    return cast(JobDetail, json.loads(shown))


@pytest.mark.parametrize(
    "words",
    [
        ["list"],
        ["cancel", "0198c5e0"],
        ["retry", "0198c5e0"],
        ["reschedule", "0198c5e0", "--in", "1h"],
        ["wait", "0198"],
        ["logs", "0198"],
        ["logs", "-f", "0198"],
        ["show", "0198"],
        ["top"],
        ["open", "0198"],
        ["events"],
        ["schedule", "list"],
        ["schedule", "show", "nightly"],
        ["schedule", "pause", "nightly"],
        ["dead", "list"],
        ["limit", "list"],
        ["webhook", "list"],
    ],
)
def test_a_command_about_jobs_starts_without_what_only_daemons_need(words: list[str]) -> None:
    code = f"""
import sys
from atemporal.cli import main
main({words}, standalone_mode=False)
heavy = ("pydantic", "sqlalchemy", "boto3", "kombu", "rich", "fastapi", "httpx", "structlog")
print(*[name for name in heavy if name in sys.modules])
"""
    env = {**os.environ, "ATEMPORAL_API_URL": "http://127.0.0.1:1"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert "does not answer" in done.stderr
    assert done.stdout == "\n"


def test_help_lists_every_command_and_imports_none() -> None:
    code = "import sys, atemporal.cli; atemporal.cli.main(['--help'], standalone_mode=False);"
    code += "print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *_, modules = done.stdout.splitlines()

    for name, (_, summary) in COMMANDS.items():
        assert name in done.stdout
        assert summary in done.stdout
    for heavy in ("pydantic", "sqlalchemy", "boto3", "kombu", "rich"):
        assert heavy not in modules.split()


def test_the_help_of_a_command_imports_nothing_that_only_its_work_needs() -> None:
    code = """
import sys
import click
from atemporal.cli import COMMANDS, main
heavy = {"pydantic", "sqlalchemy", "botocore", "kombu", "rich", "fastapi", "httpx", "structlog"}

def asked(*words):
    try:
        main([*words, "--help"], standalone_mode=False)
    except SystemExit:
        pass
    if found := heavy & sys.modules.keys():
        raise AssertionError(f"{words}: {found}")

for name in COMMANDS:
    # These show the fields of a job, which they have from the model.
    if name in ("submit", "schedule"):
        continue
    asked(name)
    command = main.get_command(click.Context(main), name)
    for inner in getattr(command, "commands", ()):
        # The twin's own program answers there.
        if (name, inner) != ("twin", "serve"):
            asked(name, inner)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_says_of_a_command_what_its_own_help_says_first(name: str) -> None:
    done = run(name, "--help")
    assert done.exit_code == 0, done.output

    command = main.get_command(click.Context(main), name)
    assert command is not None
    assert command.help is not None
    assert " ".join(command.help.split("\n\n")[0].split()) == COMMANDS[name][1]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_script_for_the_shell(shell: str) -> None:
    done = run("completion", shell)
    assert done.exit_code == 0
    assert "_ATEMPORAL_COMPLETE" in done.output


def test_completing_a_command_s_name_knows_the_commands() -> None:
    env = {**os.environ, "_ATEMPORAL_COMPLETE": "bash_complete", "COMP_CWORD": "1"}
    env["COMP_WORDS"] = "atemporal s"
    code = "from atemporal.cli import main; main(prog_name='atemporal')"
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.stdout.split() == ["plain,submit", "plain,show", "plain,schedule"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["submit", "Nginx:1.9"], "not an image reference"),
        (["submit", "nginx", "-e", "1A=x"], "must not begin with a digit"),
        (["submit", "nginx", "-c", "x"], "put -- before the command"),
        (["submit", "nginx", "--", ""], "the program to run, is empty"),
        (["submit", "nginx", "--key", ""], "'--key': it is empty"),
        (["submit", "nginx", "--retry-on", "0"], "1 to 255"),
        (["submit", "nginx", "--in", "400d"], "'--in': 400d is not within 0s and 365d"),
        (["submit", "nginx", "-e", "ATEMPORAL_X=x"], "reserved"),
        (["submit", "nginx", "-e", "SURELY_NOT_SET"], "is not in your environment"),
        (
            ["submit", "nginx", "--env-file", "-"],
            "line 1: what stands here is not a variable name",
        ),
        (["submit", "nginx", "--at", "tomorrow"], "is not a time"),
        (["submit", "nginx", "--in", "soon"], "is not a duration"),
        (["submit", "nginx", "--in", "1m", "--at", "2030-01-01T00:00:00Z"], "not both"),
        (["submit", "nginx", "--label", "novalue"], "write NAME=VALUE"),
        (["submit", "nginx", "--port", "80"], "HOST:CONTAINER"),
        (["submit", "nginx", "--instance-type", "big"], "not an instance type"),
        (["submit", "nginx", "--timeout", "0s"], "'--timeout': 0s is not within 1s and 365d"),
        (["submit", "nginx", "--max-attempts", "0"], "'--max-attempts': 0 is not in the range"),
        (["cancel", "0198c5e0", "e"], "'e' is too short"),
        (["retry", "d1e"], "'d1e' is too short"),
        (["list", "--state", "asleep"], "asleep"),
        (["wait"], "Missing argument"),
        (["token", "create", "ci", "--scope", "everything"], "everything"),
        (["surely-not-a-command"], "No such command"),
        (["submitt"], "Did you mean 'submit'?"),
        (["lst"], "Did you mean 'list'?"),
    ],
)
def test_bad_input_is_refused_before_anything_is_asked_of_a_server(
    words: list[str], says: str
) -> None:
    done = run(*words, given="bad line\n")
    assert done.exit_code == 2, done.output
    assert says in done.stderr
    assert done.stdout == ""


def test_every_bad_field_is_named() -> None:
    done = run("submit", "No Image", "-e", "1A=x", "--port", "80")
    assert done.exit_code == 2
    assert [line.split(":")[0].strip() for line in done.stderr.splitlines()] == [
        "atemporal",
        "image",
        "env",
        "ports",
    ]


def test_an_env_file_for_a_shell_is_told_from_ours() -> None:
    done = run("submit", "nginx", "--env-file", "-", given="export C=3\n")
    assert done.exit_code == 2
    assert "line 1: 'export C' is not a variable name; remove export" in done.stderr


@pytest.mark.parametrize(
    ("words", "variable", "helps"),
    [
        (["token", "list"], "ATEMPORAL_DATABASE_URL", "/atemporal/env"),
        (["broker", "declare"], "ATEMPORAL_BROKER_URL", "run RabbitMQ"),
    ],
)
def test_of_a_server_that_nobody_named_it_says_how_to_name_it(
    words: list[str], variable: str, helps: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    default = "postgresql://u@127.0.0.1:1/x" if words[0] == "token" else "amqp://u@127.0.0.1:1//"
    field = Settings.model_fields[variable.removeprefix("ATEMPORAL_").lower()]
    monkeypatch.setattr(field, "default", SecretStr(default))
    Settings.model_rebuild(force=True)
    try:
        silent = run(*words, env={variable: None})
        named = run(*words, env={variable: default})
    finally:
        monkeypatch.undo()
        Settings.model_rebuild(force=True)
    assert (silent.exit_code, named.exit_code) == (3, 3)
    assert f"{variable} is not set" in silent.stderr
    assert helps in silent.stderr
    assert "is not set" not in named.stderr


def test_of_an_api_that_nobody_named_it_says_how_to_name_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client, "DEFAULT_URL", "http://127.0.0.1:1")
    silent = run("list", env={"ATEMPORAL_API_URL": None})
    assert silent.exit_code == 3
    assert "ATEMPORAL_API_URL is not set" in silent.stderr
    assert "/atemporal/env" in silent.stderr
    mistyped = run("list", env={"ATEMPORAL_API_URL": None, "ATEMPORAL_API_ULR": "http://h"})
    assert "did you mean ATEMPORAL_API_URL?" in mistyped.stderr
    assert "is not set" not in run("list").stderr


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ATEMPORAL_API_URL", "atemporal.example.com"),
        ("ATEMPORAL_API_URL", "ftp://atemporal.example.com"),
        ("ATEMPORAL_API_URL", "http://h:port"),
        ("ATEMPORAL_API_URL", "http://user:word@h"),
        ("ATEMPORAL_API_URL", "http://h/?x=1"),
        ("ATEMPORAL_API_TOKEN", "atp_1\nHost: x"),
        ("ATEMPORAL_API_TOKEN", "\u2026"),
    ],
)
def test_an_address_or_a_token_that_can_be_none_is_bad_input(variable: str, value: str) -> None:
    done = run("list", env={variable: value})
    assert done.exit_code == 2
    assert variable in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_setting_is_named_and_help_does_not_care() -> None:
    env = {"ATEMPORAL_API_PORT": "many"}
    refused = run("token", "list", env=env)
    assert refused.exit_code == 2
    assert "ATEMPORAL_API_PORT" in refused.stderr
    assert run("list", "--help", env=env).exit_code == 0


@pytest.mark.parametrize(
    ("words", "where", "says"),
    [
        (["list"], ["-o", "json", "list"], "API at http://127.0.0.1:1 does not answer"),
        (["list"], ["list", "-o", "json"], "API at http://127.0.0.1:1 does not answer"),
        (["submit", "x"], ["-o", "json", "submit", "x"], "API at http://127.0.0.1:1 does not"),
        (["token", "list"], ["token", "list", "-o", "json"], "Postgres does not answer"),
    ],
)
def test_a_server_that_is_away_is_a_sentence_and_exit_code_3(
    words: list[str], where: list[str], says: str
) -> None:
    for asked in (words, where):
        done = run(*asked)
        assert done.exit_code == 3
        assert done.stdout == ""
        assert says in done.stderr
        assert "Traceback" not in done.stderr
        assert SECRET not in done.stderr
    assert set(json.loads(done.stderr)) == {"error"}


@pytest.mark.parametrize(
    "url", ["nonsense", f"mysql://u:{SECRET}@h/d", f"postgresql://u:{SECRET}@h:x/d"]
)
def test_a_url_that_is_none_is_bad_input(url: str) -> None:
    done = run("token", "list", env={"ATEMPORAL_DATABASE_URL": url})
    assert done.exit_code == 2
    assert "ATEMPORAL_DATABASE_URL" in done.stderr
    assert SECRET not in done.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.Refused("x"), 1),
        (errors.Denied("x"), 1),
        (errors.Invalid({"a": "b"}), 2),
        (errors.Unavailable("x"), 3),
        (errors.Retry("x"), 3),
        (errors.Unknown("x"), 3),
        (errors.NotFound("x"), 4),
        (errors.Conflict("x"), 5),
    ],
)
def test_an_exit_code_says_what_kind_of_error_it_was(
    error: errors.AtemporalError, code: int
) -> None:
    assert exit_code(error) == code
    assert f"  {code}  " in run("--help").output


@pytest.mark.parametrize("form", [[], ["-o", "json"]])
def test_config_names_all_settings_and_shows_no_secret(form: list[str]) -> None:
    env = {
        "ATEMPORAL_BROKER_URL": f"amqp://robot:{SECRET}@127.0.0.1:5672//",
        "ATEMPORAL_CALLBACK_KEYS": f"new:{SECRET},old:{SECRET}",
        "ATEMPORAL_DATABASE_URL": f"postgresql://someone@h/d?password={SECRET}",
        "ATEMPORAL_EC2_ENDPOINT_URL": f"http://u:{SECRET}@127.0.0.1:1",
        "ATEMPORAL_SUBNETS": "subnet-1 subnet-2",
    }
    done = run("config", *form, env=env)
    assert done.exit_code == 0, done.output
    assert SECRET not in done.output
    assert "new:***,old:***" in done.output
    assert "amqp://robot:***@127.0.0.1:5672//" in done.output


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("ATEMPORAL_QQQQQQQQ", "`atemporal config` lists all"),
        ("ATEMPORAL_DATABASE_URI", "did you mean ATEMPORAL_DATABASE_URL?"),
        ("ATEMPORAL_POLL_INTERVAL", "did you mean ATEMPORAL_POLL_INTERVAL_S?"),
        ("atemporal_subnet", "did you mean ATEMPORAL_SUBNETS?"),
    ],
)
def test_an_unknown_setting_of_our_prefix_is_told(name: str, says: str) -> None:
    done = run("config", env={name: "1"})
    assert done.exit_code == 0
    assert f"{name} is no setting; " in done.stderr
    assert says in done.stderr
    assert "is no setting" not in run("config", env={"ATEMPORAL_REGION": "eu-west-1"}).stderr


def test_config_tells_settings_from_defaults() -> None:
    rows = json.loads(run("config", "-o", "json", env={"ATEMPORAL_REGION": "eu-west-1"}).stdout)
    by_name = {row["name"]: row for row in rows}
    assert by_name["ATEMPORAL_REGION"]["value"] == "eu-west-1"
    assert by_name["ATEMPORAL_REGION"]["source"] == "environment"
    assert by_name["ATEMPORAL_API_PORT"]["source"] == "default"
    assert "callback" in by_name["ATEMPORAL_CALLBACK_URL"]["description"]


def test_config_shows_whose_zone_rules_cron_lines_follow() -> None:
    *_, last = json.loads(run("config", "-o", "json").stdout)
    assert (last["name"], last["value"], last["source"]) == ("tzdata", rules_version(), "package")
    assert rules_version() in run("config").stdout


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://u:{SECRET}@host/db",
        f"postgresql://u:p@{SECRET}@host/db",
        f"postgresql://host/db?user=u&password={SECRET}&x=1",
        f"postgresql://host/db?sslpassword={SECRET}",
        f"amqp://:{SECRET}@host//",
    ],
)
def test_a_url_is_shown_without_its_password(url: str) -> None:
    assert SECRET not in masks.masked_url(url)
    assert "host" in masks.masked_url(url)


@pytest.mark.parametrize(
    ("outcome", "code", "exits"),
    [
        (Outcome.SUCCEEDED, 0, 0),
        (Outcome.FAILED, 7, 7),
        (Outcome.FAILED, 0, 1),
        (Outcome.FAILED, None, 125),
        (Outcome.TIMED_OUT, 137, 124),
        (Outcome.CANCELLED, None, 125),
        (Outcome.LOST, None, 125),
    ],
)
def test_wait_exits_as_the_job_did(outcome: Outcome, code: int | None, exits: int) -> None:
    assert endings.exit_code(a_job(outcome, code)) == exits


@pytest.mark.parametrize(
    ("attempt", "says"),
    [
        ({"detail": "no such image\nmore"}, ": no such image"),
        ({"log_tail": b"\n docker: no command\nmore"}, ": docker: no command"),
        ({}, ": see `atemporal logs 0198c5e0-7a11-7c3e-9d5b-2f4a6b8c0d1e`"),
    ],
)
def test_wait_says_what_a_machine_failed_at(attempt: dict[str, Any], says: str) -> None:
    job = a_job(Outcome.FAILED, because=Reason.CREATE_FAILED, **attempt)
    assert endings._sentence(job).endswith(f"failed (create_failed){says}")
    own = a_job(Outcome.FAILED, 7, because=Reason.EXIT_NONZERO, log_tail=b"its own affair")
    assert endings._sentence(own).endswith("exit code 7")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59.9, "59s"), (60, "1m00s"), (3_671, "1h01m"), (90_000, "1d01h")],
)
def test_spans_are_short(seconds: float, text: str) -> None:
    assert output.span(seconds) == text
    assert output.distance(NOW - timedelta(seconds=seconds), NOW) == f"{text} ago"
    assert output.distance(NOW + timedelta(seconds=seconds + 60), NOW).startswith("in ")


def test_what_others_wrote_can_not_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(("a", "b"), [("\x1b[2J\r\nforged", "é")])
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert shown.count("\n") == 2
    assert "\\x1b[2J\\r\\nforged" in shown
    assert "é" in shown


def test_env_file_values_are_verbatim_and_words_win(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from atemporal.cli.arguments import read_environment

    monkeypatch.setenv("MINE", "a\nb")
    path = tmp_path / "env"
    path.write_text("# note\nA= spaced \nB='quoted'\nC=1\n")
    with path.open("rb") as file:
        env = read_environment([file], ["C=2=3", "MINE"])
    assert env == {"A": " spaced ", "B": "'quoted'", "C": "2=3", "MINE": "a\nb"}


def test_an_env_file_is_read_as_docker_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from atemporal.cli.arguments import read_environment

    monkeypatch.setenv("MINE", "own")
    monkeypatch.delenv("ABSENT", raising=False)
    path = tmp_path / "env"
    path.write_bytes(b"\xef\xbb\xbfFIRST=1\r\nMINE\nABSENT\nB=x\ry\n")
    with path.open("rb") as file:
        assert read_environment([file], []) == {"FIRST": "1", "MINE": "own", "B": "x\ry"}


def test_the_json_of_every_command_is_written_down() -> None:
    page = (Path(__file__).parents[2] / "docs" / "command-line.md").read_text()
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    assert [name for name in COMMANDS if not any(f"`{name}`" in row for row in rows)] == []


def test_every_column_is_written_down() -> None:
    page = (Path(__file__).parents[2] / "docs" / "command-line.md").read_text()
    names = [line.split()[0] for line in columns.help_text().splitlines()]
    assert [name for name in names if f"`{name}`" not in page] == []
