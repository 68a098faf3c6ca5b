"""What `atemporal doctor` decides without a server: how checks are made, and what facts of EC2 mean."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import atemporal.cloud.service_model
import atemporal.doctor
from atemporal.cli import main
from atemporal.cloud.inspection import Egress, Image, Route, SecurityGroup, Subnet
from atemporal.doctor import CHECKS, Check, Instruments, Result, Status, clocks, examine
from atemporal.doctor.check import ok, unchecked, warning, worst, wrong
from atemporal.doctor.launch import described
from atemporal.doctor.network import lets_out, of_one_vpc, of_subnet
from atemporal.errors import Service, Unavailable
from atemporal.settings import Settings

POLICIES = Path(__file__).parents[2] / "deploy/aws"
EVERYWHERE = Egress("-1", None, ("0.0.0.0/0",))


def made(*checks: Check, limit_s: float = 60.0) -> dict[str, Result]:
    return {one.name: found for one, found in examine(checks, Instruments({}), limit_s=limit_s)}


class TestExamination:
    def test_one_that_hangs_is_wrong_in_time_and_keeps_no_other(self) -> None:
        released = threading.Event()

        def hangs(_: Instruments) -> Result:
            released.wait()
            return ok("late")

        found = made(
            Check("a", hangs),
            Check("b", lambda _: ok("b")),
            Check("c", hangs, ("a",)),
            limit_s=1.0,
        )
        released.set()
        assert [one.status for one in found.values()] == ["wrong", "ok", "unchecked"]
        assert "no answer within 1 s" in found["a"].detail

    def test_one_that_needs_a_failed_one_is_not_made_however_far_behind_it_is(self) -> None:
        never: list[str] = []

        def asked(_: Instruments) -> Result:
            never.append("asked")
            return ok("")

        found = made(
            Check("a", lambda _: wrong("no", "do")),
            Check("b", asked, ("a",)),
            Check("c", asked, ("b",)),
            Check("d", lambda _: warning("w", "do")),
            Check("e", lambda _: ok("e"), ("d",)),
        )
        assert [found[name].status for name in "bcde"] == [
            "unchecked",
            "unchecked",
            "warning",
            "ok",
        ]
        assert found["c"].detail == "needs b"
        assert not never

    def test_an_error_is_a_result(self) -> None:
        def away(_: Instruments) -> Result:
            raise Unavailable("Postgres does not answer", Service.POSTGRES)

        def surprised(_: Instruments) -> Result:
            raise KeyError("x")

        found = made(Check("a", away), Check("b", surprised))
        assert found["a"].no_answer
        assert "ATEMPORAL_DATABASE_URL" in found["a"].do
        assert (found["b"].status, found["b"].no_answer) == (Status.WRONG, False)
        assert "KeyError" in found["b"].detail

    def test_what_a_check_needs_comes_before_it(self) -> None:
        names = [check.name for check in CHECKS]
        assert len(names) == len(set(names))
        for check in CHECKS:
            assert all(names.index(need) < names.index(check.name) for need in check.needs)

    def test_the_worst_of_several_decides_and_none_is_left_out(self) -> None:
        found = worst([ok("a"), warning("b", "x"), wrong("c", "y"), warning("d", "x")], well="")
        assert found == wrong("b; c; d", "x; y")
        assert worst([ok("a")], well="all") == ok("all")
        assert worst([warning("a", "x"), unchecked("b")], well="").status is Status.UNCHECKED


class TestSubnets:
    SUBNET = Subnet("subnet-1", "vpc-1", "us-east-1a", "available", 100, True)
    WAY_OUT = Route("igw-1", True)

    def test_one_with_room_and_a_way_out_is_well(self) -> None:
        assert of_subnet(self.SUBNET, self.WAY_OUT) == []
        private = Subnet("subnet-1", "vpc-1", "us-east-1a", "available", 100, False)
        assert of_subnet(private, Route("nat-1", True)) == []

    @pytest.mark.parametrize(
        ("subnet", "route", "status", "words"),
        [
            ({"free": 0}, WAY_OUT, "wrong", "no free address"),
            ({"free": 3}, WAY_OUT, "warning", "3 free addresses"),
            ({"state": "pending"}, WAY_OUT, "wrong", "is pending"),
            ({"public": False}, WAY_OUT, "wrong", "no public addresses"),
            ({}, Route("nat-1", False), "wrong", "its way out is nat-1, which is gone"),
            ({}, None, "warning", "no route to the internet"),
        ],
    )
    def test_what_keeps_machines_from_working_is_named(
        self, subnet: dict[str, Any], route: Route | None, status: str, words: str
    ) -> None:
        (found,) = of_subnet(Subnet(**{**self.SUBNET.__dict__, **subnet}), route)
        assert found.status == status
        assert words in found.detail
        assert found.do


class TestSecurityGroups:
    def test_groups_of_another_vpc_than_the_subnets_are_named(self) -> None:
        subnet = TestSubnets.SUBNET
        assert of_one_vpc([SecurityGroup("sg-1", "vpc-1", ())], [subnet]) == []
        (found,) = of_one_vpc([SecurityGroup("sg-1", "vpc-2", ())], [subnet])
        assert "sg-1 is of vpc-2" in found.detail

    @pytest.mark.parametrize(
        ("rules", "url", "statuses"),
        [
            ([EVERYWHERE], "https://api.example.com", []),
            ([Egress("tcp", (443, 443), ("0.0.0.0/0",))], "https://api.example.com", []),
            ([Egress("tcp", (443, 443), ("0.0.0.0/0",))], "http://10.0.0.1:8080", ["wrong"]),
            ([Egress("tcp", (8080, 8080), ("10.0.0.0/8",))], "http://10.0.0.1:8080", ["warning"]),
            ([Egress("tcp", (0, 65535), ("10.0.0.0/8",))], "http://192.168.0.1:80", ["wrong"]),
            ([Egress("tcp", (0, 65535), ("10.0.0.0/8",))], "https://api.internal", ["unchecked"]),
            ([Egress("tcp", (443, 443), (), True)], "https://10.0.0.1", ["unchecked"]),
            (
                [Egress("udp", (0, 65535), ("0.0.0.0/0",))],
                "https://10.0.0.1",
                ["wrong", "warning"],
            ),
            ([], "https://api.example.com", ["wrong", "warning"]),
        ],
    )
    def test_what_they_let_out(self, rules: list[Egress], url: str, statuses: list[str]) -> None:
        groups = [SecurityGroup("sg-1", "vpc-1", (rule,)) for rule in rules]
        assert [one.status for one in lets_out(groups, url)] == statuses


class TestImages:
    OF_FLATCAR = Image(
        *("ami-1", "Flatcar-stable-1-hvm", "075585003325", "available", "x86_64"), root_gb=8
    )

    def test_an_image_of_the_family_is_well_and_says_what_its_disk_is(self) -> None:
        found = described(self.OF_FLATCAR, Settings())
        assert found.status is Status.OK
        assert "from 8 GB on" in found.detail

    def test_one_that_is_not_available_or_not_of_the_family_is_wrong_unless_it_is_trusted(
        self,
    ) -> None:
        gone = Image(*("ami-1", "Flatcar-stable-1-hvm", "075585003325", "deregistered", "x86_64"))
        assert "is deregistered" in described(gone, Settings()).detail
        copy = Image(*("ami-2", "Flatcar-stable-1-hvm", "123456789012", "available", "x86_64"))
        assert described(copy, Settings()).status is Status.WRONG
        trusted = described(copy, Settings(trusted_images=("ami-2",)))
        assert (trusted.status, "trusted" in trusted.detail) == (Status.OK, True)


class TestClocks:
    @pytest.mark.parametrize(
        ("before", "after", "blur_s", "status"),
        [
            (100.0, 100.2, 0.0, "ok"),
            (100.9, 101.0, 0.0, "ok"),
            (101.5, 101.6, 0.0, "warning"),
            (90.0, 95.0, 0.0, "warning"),
            # A slow answer proves little.
            (80.0, 130.0, 0.0, "ok"),
            (101.9, 102.0, 1.0, "ok"),
            (160.0, 160.1, 1.0, "wrong"),
            (50.0, 50.1, 1.0, "wrong"),
        ],
    )
    def test_a_clock_is_blamed_for_what_it_surely_differs(
        self, before: float, after: float, blur_s: float, status: str
    ) -> None:
        found = clocks._compared("Postgres", 100.0, before, after, blur_s=blur_s)
        assert found.status == status

    @pytest.mark.parametrize(
        ("version", "now", "status"),
        [
            ("2026.1", 1_790_000_000, "ok"),  # 2026-09
            ("2025.3", 1_790_000_000, "ok"),
            ("2025.3", 1_791_500_000, "wrong"),  # 2026-10
            ("2024.1", 1_790_000_000, "wrong"),
            ("unknown", 1_790_000_000, "unchecked"),
        ],
    )
    def test_rules_are_old_when_their_year_has_long_been_over(
        self, tmp_path: Path, version: str, now: float, status: str
    ) -> None:
        instruments = Instruments(
            {}, now=lambda: now, rules=lambda: version, system_zones=tmp_path / "none"
        )
        assert clocks.zones(instruments).status == status


class TestCommand:
    @pytest.fixture
    def checks(self, monkeypatch: pytest.MonkeyPatch) -> list[Check]:
        found: list[Check] = []
        monkeypatch.setattr(atemporal.doctor, "CHECKS", found)
        return found

    def run(self, *words: str, code: int = 0) -> str:
        done = CliRunner(env={"NO_COLOR": "1"}).invoke(main, ["doctor", *words])
        assert done.exit_code == code, done.output
        return done.stdout

    def test_a_line_a_check_and_the_verdict_last(self, checks: list[Check]) -> None:
        checks += [
            Check("a", lambda _: ok("fine")),
            Check("bb.b", lambda _: warning("so\x1b[31m so", "do this")),
            Check("c", lambda _: wrong("bad", "do that")),
            Check("d", lambda _: ok("never"), ("c",)),
            *(
                Check(f"{one}.reachable", lambda _: ok(""))
                for one in ("database", "broker", "ec2")
            ),
        ]
        lines = self.run(code=1).splitlines()
        assert lines[0] == f"ok         {'a'.ljust(18)}  fine"
        assert lines[1].endswith("so\\x1b[31m so -> do this")
        assert lines[2].startswith("wrong      c")
        assert "needs c" in lines[3]
        assert lines[-1] == "1 unchecked, 1 wrong, 1 warning, 4 ok"
        assert self.run("-q", code=1).count("\n") == 4

    def test_warnings_are_no_failure(self, checks: list[Check]) -> None:
        checks.append(Check("a", lambda _: warning("so so", "do")))
        assert self.run().splitlines()[-1] == "nothing is wrong: 1 warning"

    def test_when_no_server_answers_the_exit_code_says_so(self, checks: list[Check]) -> None:
        away = wrong("away", "start it", no_answer=True)
        names = ("database.reachable", "broker.reachable", "ec2.reachable")
        checks += [Check(name, lambda _: away) for name in names]
        self.run(code=3)
        checks[0] = Check(names[0], lambda _: ok(""))
        self.run(code=1)

    def test_json_has_a_documented_shape(self, checks: list[Check]) -> None:
        checks += [
            Check("a", lambda _: ok("fine")),
            Check("b", lambda _: warning("w", "x"), ("a",)),
        ]
        record = json.loads(self.run("-o", "json"))
        assert record.keys() == {"version", "at", "ok", "counts", "checks"}
        assert record["counts"] == {"ok": 1, "warning": 1, "wrong": 0, "unchecked": 0}
        assert record["checks"] == [
            {"name": "a", "status": "ok", "detail": "fine", "do": None, "needs": []},
            {"name": "b", "status": "warning", "detail": "w", "do": "x", "needs": ["a"]},
        ]

    def test_the_rights_of_one_daemon(self, checks: list[Check]) -> None:
        checks += [
            Check("all", lambda _: ok("")),
            Check("launch", lambda _: ok(""), daemons=("launcher",)),
            Check("reap", lambda _: ok(""), daemons=("reaper",)),
            Check("both", lambda _: ok(""), daemons=("launcher", "reaper")),
        ]
        record = json.loads(self.run("--for", "launcher", "-o", "json"))
        assert [one["name"] for one in record["checks"]] == ["all", "launch", "both"]


@pytest.mark.parametrize("daemon", ["launcher", "reaper"])
def test_a_daemons_policy_allows_each_call_that_it_is_checked_for(daemon: str) -> None:
    document = json.loads((POLICIES / f"{daemon}-policy.json").read_text())
    allowed: set[str] = set()
    for statement in document["Statement"]:
        actions = statement["Action"]
        allowed |= {actions} if isinstance(actions, str) else set(actions)
    checked = {
        f"ec2:{check.name.rpartition('.')[2]}"
        for check in CHECKS
        if check.name.startswith("ec2.rights.") and daemon in check.daemons
    }
    assert checked == allowed


def test_the_policy_of_whoever_runs_doctor_allows_what_it_looks_at() -> None:
    (statement,) = json.loads((POLICIES / "doctor-policy.json").read_text())["Statement"]
    assert {name.removeprefix("ec2:") for name in statement["Action"]} == set(
        atemporal.cloud.service_model.INSPECTED
    )
