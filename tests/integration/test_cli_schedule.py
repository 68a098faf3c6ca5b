"""`atemporal schedule` on a real API and Postgres: what it sends, says and exits with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import text

from atemporal.model.secret import revealed
from atemporal.store import schedules
from tests.api import Api
from tests.integration.command_line import Cli

pytestmark = pytest.mark.usefixtures("own_output")

CRON = ("--cron", "0 2 * * *", "--tz", "America/Sao_Paulo")
SECRET = "s3cret-of-the-job"


@pytest.fixture
def cli(database_url: str, api: Api) -> Iterator[Cli]:
    yield Cli(database_url, str(api.http.base_url))
    with api.database.begin() as tx:
        tx.execute(text("TRUNCATE schedules, fires, jobs, attempts, events"))


def test_a_schedule_is_made_with_the_options_of_a_submit(cli: Cli) -> None:
    done = cli(
        *("schedule", "create", "nightly", *CRON, "--catch-up", "one", "--window", "1h"),
        *("--overlap", "skip", "--start-deadline", "10m", "-e", f"KEY={SECRET}"),
        *("--timeout", "30m", "--label", "team=blue", "--instance-type", "t3.small"),
        *("--", "backup:7", "backup", "--all"),
    )
    assert done.stdout.startswith("nightly fires next 20")
    assert "T02:00:00-03:00 (" in done.stdout
    shown = cli.json("schedule", "show", "nightly")
    rules = [shown[name] for name in ("catch_up", "window_s", "overlap", "start_deadline_s")]
    assert rules == ["one", 3600, "skip", 600]
    job = shown["job"]
    assert (job["image"], job["command"]) == ("backup:7", ["backup", "--all"])
    assert (job["timeout_s"], job["labels"]) == (1800, {"team": "blue"})
    assert job["machine"]["instance_types"] == ["t3.small"]
    assert job["env"] == {"KEY": "***"}
    revealed = cli.json("schedule", "show", "nightly", "--reveal")
    assert revealed["job"]["env"] == {"KEY": SECRET}


def test_a_secret_is_exchanged_without_the_others_being_known(
    cli: Cli, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stored() -> dict[str, str]:
        with api.database.begin() as tx:
            return revealed(schedules.get(tx, "nightly").job.secrets)

    def references() -> dict[str, str]:
        with api.database.begin() as tx:
            return schedules.get(tx, "nightly").job.secret_refs

    monkeypatch.setenv("TOKEN", SECRET)
    monkeypatch.setenv("OTHER", "another-one")
    words = ("--secret", "TOKEN", "--secret", "OTHER")
    cli("schedule", "create", "nightly", *CRON, *words, "--", "nginx")
    shown = cli("schedule", "show", "nightly", "--reveal").stdout
    assert "secret    TOKEN" in shown
    assert SECRET not in shown
    monkeypatch.setenv("OTHER", "a-new-one")
    cli("schedule", "edit", "nightly", "--secret", "OTHER")
    assert stored() == {"TOKEN": SECRET, "OTHER": "a-new-one"}
    cli("schedule", "edit", "nightly", "--timeout", "5m")
    assert stored() == {"TOKEN": SECRET, "OTHER": "a-new-one"}
    cli("schedule", "edit", "nightly", "--secret", "OTHER=ssm:/other", "--secret", "A=ssm:/a")
    assert (stored(), references()) == ({"TOKEN": SECRET}, {"A": "ssm:/a", "OTHER": "ssm:/other"})
    cli("schedule", "edit", "nightly", "--secret", "OTHER")
    assert stored() == {"TOKEN": SECRET, "OTHER": "a-new-one"}
    assert references() == {"A": "ssm:/a"}
    assert "secret    A=ssm:/a" in cli("schedule", "show", "nightly").stdout
    cli("schedule", "edit", "nightly", "--clear", "secrets")
    assert (stored(), references()) == ({}, {})


def test_show_tells_the_next_fires_in_both_times_and_by_which_rules(cli: Cli) -> None:
    cli("schedule", "create", "nightly", *CRON, "-e", f"KEY={SECRET}", "--", "nginx", "true")
    shown = cli("schedule", "show", "nightly", "--next", "3").stdout
    assert shown.count("T02:00:00-03:00") == 3
    assert shown.count("T05:00:00.000Z") == 3
    rules = cli.json("schedule", "show", "nightly")["rules_version"]
    assert f"America/Sao_Paulo (rules {rules})" in shown
    assert "the latest fires" not in shown
    assert SECRET not in shown


def test_show_tells_what_became_of_the_latest_fires(cli: Cli, api: Api) -> None:
    cli("schedule", "create", "nightly", *CRON, "--", "nginx")
    with api.database.begin() as tx:
        tx.execute(
            text(
                "INSERT INTO fires (schedule_id, fire_time, outcome, reason, count, until, settled)"
                " SELECT id, '2026-01-01T05:00:00Z', 'missed', 'catch_up', 3,"
                " '2026-01-03T05:00:00Z', true FROM schedules"
            )
        )
    shown = cli("schedule", "show", "nightly").stdout
    (line,) = [one for one in shown.splitlines() if "missed" in one]
    words = ["2026-01-01T02:00:00-03:00", "2026-01-01T05:00:00.000Z", "missed", "catch_up", "3"]
    assert line.split()[:5] == words


def test_schedules_are_listed_by_name(cli: Cli) -> None:
    assert "there are no schedules yet" in cli("schedule", "list").stderr
    for name in ("b", "a"):
        cli("schedule", "create", name, *CRON, "--", "nginx")
    cli("schedule", "pause", "b")
    header, first, second = cli("schedule", "list").stdout.splitlines()
    assert header.split() == ["NAME", "STATE", "NEXT", "CRON", "ZONE", "IMAGE"]
    assert first.split()[:2] == ["a", "active"]
    assert second.split()[:3] == ["b", "paused", "-"]
    assert [one["name"] for one in cli.json("schedule", "list")] == ["a", "b"]


def test_one_that_can_not_be_read_is_listed_as_stuck_and_says_why(cli: Cli, api: Api) -> None:
    for name in ("a", "b"):
        cli("schedule", "create", name, *CRON, "--", "nginx")
    with api.database.begin() as tx:
        tx.execute(text("UPDATE schedules SET spec = '{}' WHERE name = 'a'"))
        tx.execute(text("UPDATE schedules SET zone = 'Mars/Base' WHERE name = 'b'"))
    _, first, second = cli("schedule", "list").stdout.splitlines()
    assert (first.split()[:2], second.split()[:2]) == (["a", "stuck"], ["b", "stuck"])
    assert "stuck: what is stored of schedule a" in cli("schedule", "show", "a").stdout
    resumed = cli("schedule", "resume", "b").stdout
    assert "mended" in resumed
    assert "Mars/Base" in resumed
    edited = cli("schedule", "edit", "b", "--window", "2h", code=2)
    assert "Mars/Base" in edited.stderr
    assert cli("schedule", "pause", "a").stdout == "a paused\n"
    assert cli("schedule", "delete", "a").stdout == "a deleted\n"


def test_what_is_left_out_has_a_default_in_create_and_stays_in_edit(cli: Cli) -> None:
    create, edit = (cli("schedule", verb, "--help").stdout for verb in ("create", "edit"))
    for default in ("UTC", "skip", "1d", "allow", "auto", "80:80"):
        assert f"[default: {default}]" in " ".join(create.split())
        assert f"[default: {default}]" not in " ".join(edit.split())


def test_paused_and_resumed(cli: Cli) -> None:
    cli("schedule", "create", "nightly", *CRON, "--", "nginx")
    assert cli("schedule", "pause", "nightly").stdout == "nightly paused\n"
    assert "paused since" in cli("schedule", "show", "nightly").stdout
    assert "nightly fires next" in cli("schedule", "resume", "nightly").stdout
    assert cli.json("schedule", "show", "nightly")["paused_at"] is None


def test_a_job_runs_now(cli: Cli) -> None:
    cli("schedule", "create", "nightly", *CRON, "--", "nginx")
    first = cli("schedule", "run-now", "nightly", "--key", "k").stdout.strip()
    again = cli("schedule", "run-now", "nightly", "--key", "k")
    shown = cli.json("schedule", "run-now", "nightly", "--key", "k")
    assert (shown["id"], shown["payload"]) == (first, "***")
    assert again.stdout.strip() == first
    assert "nothing new was made" in again.stderr
    assert cli.json("show", first)["labels"] == {"atemporal/schedule": "nightly"}
    assert cli.json("list", "--label", "atemporal/schedule=nightly")["total"] == 1


def test_an_edit_changes_what_is_given(cli: Cli) -> None:
    cli(
        *("schedule", "create", "nightly", *CRON, "--start-deadline", "10m"),
        *("-e", f"KEY={SECRET}", "--port", "none", "--", "nginx", "true"),
    )
    edited = cli("schedule", "edit", "nightly", "--cron", "30 3 * * *", "--timeout", "5m").stdout
    assert "T03:30:00-03:00" in edited
    cli("schedule", "edit", "nightly", "--start-deadline", "none", "--overlap", "cancel")
    shown = cli.json("schedule", "show", "nightly", "--reveal")
    assert (shown["version"], shown["start_deadline_s"], shown["overlap"]) == (3, None, "cancel")
    job = shown["job"]
    assert (job["timeout_s"], job["env"], job["ports"]) == (300, {"KEY": SECRET}, [])
    assert job["command"] == ["true"]
    cli("schedule", "edit", "nightly", "-e", "OTHER=1", "--", "alpine", "date", "-u")
    job = cli.json("schedule", "show", "nightly", "--reveal")["job"]
    assert (job["image"], job["command"]) == ("alpine:latest", ["date", "-u"])
    assert job["env"] == {"OTHER": "1"}
    assert "give what is to be changed" in cli("schedule", "edit", "nightly", code=2).stderr


def test_an_edit_takes_away_what_is_to_be_cleared(cli: Cli) -> None:
    cli(
        *("schedule", "create", "nightly", *CRON, "-e", f"KEY={SECRET}", "--label", "team=blue"),
        *("--instance-type", "t3.small", "--disk-gb", "20", "--retry-on", "75"),
        *("--", "nginx", "true"),
    )
    cli("schedule", "edit", "nightly", "--clear", "env", "--clear", "labels")
    job = cli.json("schedule", "show", "nightly", "--reveal")["job"]
    assert (job["env"], job["labels"], job["command"]) == ({}, {}, ["true"])
    cli(
        *("schedule", "edit", "nightly", "--clear", "command", "--clear", "instance-types"),
        *("--clear", "retry-on", "-e", "OTHER=1"),
    )
    shown = cli.json("schedule", "show", "nightly", "--reveal")
    job = shown["job"]
    assert (shown["version"], job["command"], job["retry_on"]) == (3, None, [])
    assert (job["machine"]["instance_types"], job["machine"]["disk_gb"]) == ([], 20)
    assert job["env"] == {"OTHER": "1"}


def test_what_is_given_is_not_taken_away_in_one_edit(cli: Cli) -> None:
    for words in (("-e", "A=1", "--clear", "env"), ("--disk-gb", "9", "--clear", "disk-gb")):
        refused = cli("schedule", "edit", "nightly", *words, code=2).stderr
        assert f"--clear {words[-1]} takes away what is given" in refused
    assert (
        "'image' is not one of"
        in cli(*("schedule", "edit", "nightly", "--clear", "image"), code=2).stderr
    )


def test_deleted_it_is_gone(cli: Cli) -> None:
    cli("schedule", "create", "nightly", *CRON, "--", "nginx")
    assert cli("schedule", "delete", "nightly").stdout == "nightly deleted\n"
    for verb in ("show", "pause", "resume", "run-now", "delete"):
        assert "no schedule named 'nightly'" in cli("schedule", verb, "nightly", code=4).stderr


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--", "nginx"), "--cron"),
        (CRON, "IMAGE"),
        (("--cron", "0 2 * *", "--", "nginx"), "cron"),
        (("--cron", "0 2 * * *", "--tz", "Berlin", "--", "nginx"), "Europe/Berlin"),
        ((*CRON, "--at", "2031-01-01T00:00:00Z", "--", "nginx"), "--at"),
        ((*CRON, "--key", "k", "--", "nginx"), "--key"),
        ((*CRON, "--window", "0", "--", "nginx"), "0"),
        ((*CRON, "--", "a b"), "job.image"),
    ],
)
def test_what_is_bad_is_refused_before_it_is_sent(
    words: tuple[str, ...], why: str, database_url: str
) -> None:
    # Nothing listens there.
    cli = Cli(database_url, "http://127.0.0.1:1")
    assert why in cli("schedule", "create", "nightly", *words, code=2).stderr


def test_a_name_is_taken_once(cli: Cli) -> None:
    cli("schedule", "create", "nightly", *CRON, "--", "nginx")
    assert "nightly" in cli("schedule", "create", "nightly", *CRON, "--", "nginx", code=5).stderr
