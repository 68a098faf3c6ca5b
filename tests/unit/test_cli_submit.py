"""The options of `submit` are the fields of a job."""

from __future__ import annotations

from typing import Annotated, cast

import click
import pytest
from click.testing import CliRunner
from pydantic import Field

from atemporal.cli import main, schedule_making
from atemporal.cli.show import wishes
from atemporal.cli.submit import ARGUMENTS, BY_ANOTHER, SPECIAL, option_of, options, submit
from atemporal.client import Job
from atemporal.model import JobSpec, Machine, parse_spec
from atemporal.model.frozen import Frozen

FIELDS = {**JobSpec.model_fields, **Machine.model_fields}


def test_every_field_of_a_job_can_be_given_on_the_command_line() -> None:
    given = {option.name for option in options()}
    fields = FIELDS.keys() - {"machine"} - ARGUMENTS - BY_ANOTHER
    assert fields <= given
    assert given - fields == {"env_file", "env_file_format", "market"}, (
        "an option that is no field"
    )
    assert SPECIAL.keys() <= FIELDS.keys(), "a field that is not there any more"


def test_every_field_says_what_it_means() -> None:
    assert [name for name, field in FIELDS.items() if not field.description] == []


class Example(Frozen):
    """Fields as somebody may add them."""

    shm_mb: Annotated[int, Field(ge=1, le=64)] | None = Field(default=None, description="Shared.")
    grace_s: Annotated[int, Field(ge=1, le=90)] = Field(default=60, description="The grace.")
    zones: tuple[str, ...] = Field(default=(), description="The zones.")
    tty: bool = Field(default=False, description="A terminal.")
    title: str | None = Field(default=None, description="A title.")
    broken: list[float] = Field(default=[], description="No option.")


@pytest.mark.parametrize(
    ("name", "words", "value"),
    [
        ("shm_mb", ["--shm-mb", "64"], 64),
        ("grace_s", ["--grace", "1m30s"], 90),
        ("zones", ["--zone", "a", "--zone", "b"], ("a", "b")),
        ("tty", ["--tty"], True),
        ("title", ["--title", "Nightly"], "Nightly"),
    ],
)
def test_a_new_field_has_its_option_by_its_type(
    name: str, words: list[str], value: object
) -> None:
    option = option_of(name, Example.model_fields[name])
    command = click.Command("submit", params=[option], callback=lambda **given: given[name])
    assert command.main(words, standalone_mode=False) == value
    assert str(Example.model_fields[name].description) in (option.help or "")
    assert command.main([], standalone_mode=False) in (None, ())


def test_a_value_beyond_its_bounds_is_refused() -> None:
    for name, words in {"shm_mb": ["--shm-mb", "65"], "grace_s": ["--grace", "91s"]}.items():
        option = option_of(name, Example.model_fields[name])
        with pytest.raises(click.BadParameter):
            click.Command("submit", params=[option]).main(words, standalone_mode=False)


def test_a_field_without_a_natural_option_has_to_be_spelled_out() -> None:
    with pytest.raises(TypeError, match="broken"):
        option_of("broken", Example.model_fields["broken"])


@pytest.mark.parametrize(
    "words",
    [
        ["--disk-gb", "7"],
        ["--subnet", "subnet-X"],
        ["--backoff", "2h"],
        ["--infra-retries", "101"],
        ["--capacity-type", "spots"],
        ["--market", "spot", "--capacity-type", "spot"],
        ["--label", "a=1", "--label", "a=2"],
        ["--label", "a=1", "--label", "a=1"],
        ["-e", "A=1", "-e", "A=2"],
        ["-e", "A=1", "--env", "A=1"],
        ["--port", "80:80", "--port", "80:81"],
        ["--timeout", "1m", "--timeout", "2m"],
        ["--at", "2030-01-01T00:00Z", "--at", "2031-01-01T00:00Z"],
    ],
)
def test_a_bad_value_is_refused_before_anything_happens(words: list[str]) -> None:
    done = CliRunner().invoke(main, ["submit", "nginx", *words])
    assert done.exit_code == 2, done.output


def read(*words: str) -> dict[str, object]:
    """What the words of a submit mean, without what was not given."""
    params = submit.make_context("submit", list(words)).params
    return {name: value for name, value in params.items() if value not in (None, (), False)}


@pytest.mark.parametrize(
    "command",
    [
        ("gunicorn", "app:app", "--timeout", "120"),
        ("curl", "http://example.com", "--key", "client.pem"),
        ("sh", "-c", "exit 7"),
        ("env", "-e", "A=1", "--label", "a=b"),
        ("backup", "--help"),
        ("report", "-o", "json", "--at", "tomorrow"),
        ("xargs", "--", "rm", "--in", "x"),
        ("tar", "-xf-"),
    ],
)
def test_options_behind_the_commands_first_word_are_the_jobs(command: tuple[str, ...]) -> None:
    assert read("nginx", *command) == {"image": "nginx", "command": command}
    assert read("nginx", "--", *command) == {"image": "nginx", "command": command}
    assert read("--in", "5m", "nginx", "--timeout=9", *command) == {
        "image": "nginx",
        "command": command,
        "delay_s": 300,
        "timeout_s": 9,
    }


@pytest.mark.parametrize("made", [schedule_making.create, schedule_making.edit])
def test_a_schedules_options_end_at_the_commands_first_word_too(made: click.Command) -> None:
    words = ["nightly", "--cron", "0 2 * * *", "backup:7", "--timeout", "9", "backup", "-o", "x"]
    for given in (words, [*words[:-3], "--", *words[-3:]], [*words[:3], "backup:7", "-e", "A=1"]):
        params = made.make_context("create", list(given)).params
        assert (params["name"], params["image"]) == ("nightly", "backup:7")
        assert params["cron"] == "0 2 * * *"
    whole = made.make_context("create", list(words)).params
    assert (whole["command"], whole["timeout_s"]) == (("backup", "-o", "x"), 9)
    behind = made.make_context("create", ["n", "--cron", "* * * * *", "--", "i", "-o", "x"]).params
    assert (behind["image"], behind["command"]) == ("i", ("-o", "x"))


def test_a_command_that_begins_with_a_dash_stands_behind_two() -> None:
    assert read("nginx", "--in", "5m", "--", "--in", "9") == {
        "image": "nginx",
        "command": ("--in", "9"),
        "delay_s": 300,
    }
    assert read("--", "nginx", "--in") == {"image": "nginx", "command": ("--in",)}


def as_sent(spec: JobSpec) -> Job:
    return cast(Job, spec.model_dump(mode="json"))


def test_show_tells_of_every_field_that_is_not_at_its_default() -> None:
    spec = parse_spec({"image": "nginx", "backoff_s": 90, "labels": {"a": "b"}, "priority": 3})
    assert wishes(as_sent(spec)) == {
        "ports": "80:80",
        "backoff": "1m30s",
        "labels": "a=b",
        "priority": "3",
    }
    machine = {"disk_gb": 40, "subnets": ["subnet-1", "subnet-2"], "capacity_type": "spot"}
    spec = parse_spec({"image": "nginx", "ports": [], "machine": machine})
    assert wishes(as_sent(spec)) == {
        "ports": "none",
        "disk gb": "40",
        "subnets": "subnet-1, subnet-2",
        "capacity type": "spot",
    }
