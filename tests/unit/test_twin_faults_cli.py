"""`atemporal twin`: its faults and its calls from the command line."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from atemporal.cli.session import Session
from atemporal.cli.twin import twin as command
from atemporal.errors import Invalid, NotFound, Refused, Unavailable
from atemporal.twin.faults.kind import KINDS
from atemporal.twin.server import Twin
from tests.callback_api import serve
from tests.unit.test_twin_faults import UNKNOWN, client


@pytest.fixture
def twin(tmp_path: Path) -> Iterator[Twin]:
    with Twin(tmp_path, engine="process") as twin:
        yield twin


def run(url: str, *words: str) -> Result:
    runner = CliRunner(env={"ATEMPORAL_EC2_ENDPOINT_URL": url})
    return runner.invoke(command, words, obj=Session())


def test_rules_are_added_listed_and_cleared(twin: Twin) -> None:
    words = ("--call", "Describe*", "--match", "market=spot", "--match", "zone=*a")
    numbers = ("--probability", "0.5", "--times", "3", "--code", "SlowDown")
    assert run(twin.url, "fault", "add", "throttle", *words, *numbers).output == "f1\n"
    assert run(twin.url, "fault", "add", "dies", "--seconds", "4", "--after", "2").exit_code == 0

    rules = {rule.id: rule for rule, _ in twin.faults.rules()}
    match = rules["f1"].match.model_dump(exclude_none=True)
    assert match == {"capacity_type": "spot", "zone": "*a"}, "market is an alias"
    assert (rules["f1"].probability, rules["f1"].times, rules["f1"].code) == (0.5, 3, "SlowDown")
    assert (rules["f2"].seconds, rules["f2"].after) == (4, 2)
    listed = run(twin.url, "fault", "list").output.splitlines()
    assert listed[1].split() == [
        *("f1", "throttle", "Describe*", "zone=*a", "capacity_type=spot", "0.5", "0/3", "-"),
    ]

    assert run(twin.url, "fault", "clear", "f1").exit_code == 0
    assert [rule.id for rule, _ in twin.faults.rules()] == ["f2"]
    assert run(twin.url, "fault", "clear").exit_code == 0
    assert twin.faults.rules() == []


def test_injected_faults_are_counted_and_logged(twin: Twin) -> None:
    twin.faults.add("throttle", times=1)
    ec2 = client(twin.url)
    with pytest.raises(ec2.exceptions.ClientError):
        ec2.describe_images()
    ec2.describe_images()
    ec2.close()

    listed = json.loads(run(twin.url, "fault", "list", "-o", "json").output)
    assert listed["injected"] == {"throttle": 1}
    assert run(twin.url, "fault", "list").output.splitlines()[-1].split() == ["throttle", "1"]
    lines = run(twin.url, "calls").output.splitlines()
    assert [line.split()[1:4] for line in lines[1:]] == [
        ["DescribeImages", "RequestLimitExceeded", "throttle"],
        ["DescribeImages", "OK", "-"],
    ]


def test_refusals_are_the_projects_own(twin: Twin) -> None:
    def error(*words: str, url: str = twin.url) -> BaseException | None:
        return run(url, *words).exception

    assert isinstance(error("fault", "add", "throttle", "--seconds", "3"), Invalid)
    missing = ("fault", "add", "dies", "--match", f"instance={UNKNOWN}")
    assert isinstance(error(*missing), NotFound)
    assert isinstance(error("fault", "clear", "f99"), NotFound)
    assert isinstance(error("fault", "list", url="http://127.0.0.1:1"), Unavailable)
    with serve() as other:
        found = error("fault", "list", url=other.url)
        assert isinstance(found, Refused)
        assert "is no twin" in str(found)
    assert isinstance(error("fault", "list", url=""), Invalid)


def test_the_help_has_a_summary_of_each_kind() -> None:
    text = run("", "fault", "add", "--help").output

    assert all(f"  {name} " in text for name in KINDS)
    assert run("", "fault", "add", "gremlins").exit_code == 2


def test_serve_is_the_twins_own_process(tmp_path: Path) -> None:
    code = "import sys; from atemporal.cli.twin import twin; twin(sys.argv[1:])"
    words = [
        "serve",
        "--dir",
        str(tmp_path),
        "--engine",
        "process",
        "--limits",
        "aws",
        "--seed",
        "9",
    ]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    url = process.stdout.readline().strip()
    try:
        assert json.loads(run(url, "fault", "list", "-o", "json").output)["seed"] == 9
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert process.returncode == 0
