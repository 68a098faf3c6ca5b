"""`make infra-plan` and the others: what they refuse before anything is done, what they do and when.

terraform, aws and docker are stand-ins on the path.
"""

from __future__ import annotations

import io
import re
import subprocess
from pathlib import Path

import pytest

from deploy.production import __main__ as front
from deploy.production import infra, tools
from tests.account import COMMIT, CONFIG, HELD, HOST, MANIFEST, NEW, Clock, account, built, pushed
from tests.stand_ins import StandIns

ROOT = Path(__file__).parents[2]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock) -> StandIns:
    """An account, and a deployment with its variables."""
    made = account(tmp_path / "programs")
    monkeypatch.setenv("PATH", str(made.path))
    folder = tmp_path / "terraform"
    folder.mkdir()
    (folder / "production.tfvars").write_text('region = "eu-central-1"\nsize = "small"\n')
    monkeypatch.setattr(tools, "FOLDER", folder)
    monkeypatch.setattr(infra, "FOLDER", folder)
    monkeypatch.setattr(
        front, "Tools", lambda: tools.Tools(sleep=clock.sleep, now=lambda: clock.now)
    )
    return made


def run(monkeypatch: pytest.MonkeyPatch, *argv: str, typed: str = "") -> int:
    """The command's exit code."""
    monkeypatch.setattr("sys.argv", ["production", *argv])
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    return front.run()


COMPLETE = {
    "up": ["--deployment=production", "--state-bucket=states", f"--image={NEW}"],
    "down": ["--deployment=production", "--state-bucket=states"],
    "registry": ["--deployment=production", "--tag=1.1"],
    "deploy": ["--deployment=production", f"--image={NEW}"],
    "deploy-all": ["--deployment=production", "--state-bucket=states", "--tag=1.1"],
    "logs": ["--deployment=production"],
}
PROGRAMS = {
    "up": ("terraform", "aws"),
    "down": ("terraform", "aws"),
    "registry": ("docker", "aws", "git"),
    "deploy": ("aws",),
    "deploy-all": ("terraform", "docker", "aws", "git"),
    "logs": ("aws",),
}


class TestWhatIsRefused:
    """Before anything is done; the only call is who we are, and which image is there."""

    HARMLESS = re.compile(r"aws sts get-caller-identity|docker image inspect|git rev-parse")

    def refused(
        self, aws: StandIns, monkeypatch: pytest.MonkeyPatch, *argv: str, code: int = 2
    ) -> None:
        assert run(monkeypatch, *argv) == code
        assert [line for line in aws.lines("") if not self.HARMLESS.match(line)] == []

    @pytest.mark.parametrize("command", COMPLETE)
    def test_without_credentials(
        self,
        command: str,
        aws: StandIns,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        aws.answers("sts get-caller-identity", "Unable to locate credentials", code=253)
        self.refused(aws, monkeypatch, command, *COMPLETE[command])
        printed = capsys.readouterr().err
        assert "AWS credentials: aws sts get-caller-identity: Unable to locate" in printed
        assert "Nothing has been done" in printed

    @pytest.mark.parametrize(
        ("command", "program"),
        [(command, program) for command, names in PROGRAMS.items() for program in names],
    )
    def test_without_a_program(
        self,
        command: str,
        program: str,
        aws: StandIns,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        (aws.path / program).unlink()
        self.refused(aws, monkeypatch, command, *COMPLETE[command])
        assert f"{program}: not installed: https://" in capsys.readouterr().err

    @pytest.mark.parametrize("command", COMPLETE)
    def test_all_that_is_missing_is_told_at_once(
        self,
        command: str,
        aws: StandIns,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        aws.answers("sts get-caller-identity", "expired", code=255)
        self.refused(aws, monkeypatch, command)
        printed = capsys.readouterr().err
        assert "DEPLOYMENT: not given" in printed
        assert "expired" in printed
        for option, name in (("--image=", "IMAGE"), ("--state-bucket=", "STATE_BUCKET")):
            given = any(one.startswith(option) for one in COMPLETE[command])
            assert (f"{name}: not given" in printed) == given

    @pytest.mark.parametrize("name", ["Production", "p", "a-name-that-is-too-long", "x;ls", "ab-"])
    def test_a_name_that_is_none(
        self, name: str, aws: StandIns, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.refused(aws, monkeypatch, "logs", f"--deployment={name}")

    def test_a_deployment_without_variables(
        self,
        aws: StandIns,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        self.refused(aws, monkeypatch, "logs", "--deployment=staging")
        assert "staging.tfvars: not there: copy " in capsys.readouterr().err

    @pytest.mark.parametrize("image", ["atemporal", "x:1 && ls", "REGISTRY/atemporal:1", ":1"])
    def test_an_image_that_is_none(
        self, image: str, aws: StandIns, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.refused(aws, monkeypatch, "deploy", "--deployment=production", f"--image={image}")

    def test_an_image_that_was_not_built(
        self, aws: StandIns, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        aws.answers("docker image inspect", "No such image", code=1)
        self.refused(aws, monkeypatch, "registry", *COMPLETE["registry"])
        assert "`make image` builds it" in capsys.readouterr().err

    def test_a_docker_that_does_not_run(
        self, aws: StandIns, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        why = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock."
        aws.answers("docker image inspect", why, code=1)
        self.refused(aws, monkeypatch, "registry", *COMPLETE["registry"])
        refused = capsys.readouterr().err
        assert "make image" not in refused
        assert "does it run" in refused

    def test_logs_of_no_daemon(self, aws: StandIns, monkeypatch: pytest.MonkeyPatch) -> None:
        self.refused(aws, monkeypatch, "logs", "--deployment=production", "--daemon=cook")


class TestPlan:
    def test_without_anything_it_says_what_it_costs(
        self, aws: StandIns, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for name in ("aws", "terraform", "docker"):
            (aws.path / name).unlink()
        assert run(monkeypatch, "plan") == 0
        printed = capsys.readouterr().out
        assert "size = small" in printed
        assert "aws_db_instance.this" in printed
        assert "  terraform: not installed" in printed
        assert aws.calls == []

    def test_with_all_it_asks_terraform_and_changes_nothing(
        self, aws: StandIns, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert run(monkeypatch, "plan", *COMPLETE["down"]) == 0
        commands = [call[1] for call in aws.calls if call[0] == "terraform"]
        assert commands == ["init", "plan"]


class TestUp:
    def test_it_applies_the_plan_that_was_shown(
        self, aws: StandIns, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert run(monkeypatch, "up", *COMPLETE["up"], typed="yes\n") == 0
        init, plan, apply, output = [call for call in aws.calls if call[0] == "terraform"]
        assert "-backend-config=bucket=states" in init
        assert "-backend-config=key=atemporal/production.tfstate" in init
        assert "-backend-config=use_lockfile=true" in init
        assert f"-var=image={NEW}" in plan
        assert "-var=deployment=production" in plan
        (file,) = [one.removeprefix("-out=") for one in plan if one.startswith("-out=")]
        assert apply == ["terraform", "apply", "-input=false", file]
        assert not Path(file).parent.exists(), "the plan holds passwords"
        assert output == ["terraform", "output"]

    @pytest.mark.parametrize("typed", ["", "y\n", "no\n"])
    def test_nothing_is_created_unless_a_person_agrees(
        self, typed: str, aws: StandIns, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert run(monkeypatch, "up", *COMPLETE["up"], typed=typed) == 1
        assert aws.lines("terraform apply") == []

    def test_a_failure_ends_it(self, aws: StandIns, monkeypatch: pytest.MonkeyPatch) -> None:
        aws.answers("terraform plan", "no such zone", code=1)
        assert run(monkeypatch, "up", *COMPLETE["up"], "--yes") == 1
        assert aws.lines("terraform apply") == []


class TestDown:
    """The servers go first; nothing is destroyed while anything is left that they would have to end."""

    SERVERS = "Name=tag:atemporal:server,Values=production"
    JOBS = "Name=tag:atemporal:deployment,Values=production"
    EMPTY = "update-auto-scaling-group --region eu-central-1 --auto-scaling-group-name"

    def down(self, monkeypatch: pytest.MonkeyPatch, typed: str = "production\n") -> int:
        return run(monkeypatch, "down", *COMPLETE["down"], typed=typed)

    def sizes(self, aws: StandIns) -> list[str]:
        return [line.partition("--min-size ")[2] for line in aws.lines(self.EMPTY)]

    def test_servers_go_then_protection_is_lifted_then_everything_goes(
        self, aws: StandIns, monkeypatch: pytest.MonkeyPatch, clock: Clock
    ) -> None:
        assert self.down(monkeypatch) == 0
        init, _, lift, destroy = [call for call in aws.calls if call[0] == "terraform"]
        assert init[1] == "init"
        assert lift[1] == "apply"
        assert [one for one in lift if one.startswith("-target=")] == [
            f"-target={h}" for h in HELD
        ]
        assert destroy[1] == "destroy"
        assert "-var=protected=false" in lift
        assert "-var=protected=false" in destroy
        steps = aws.lines(self.EMPTY, self.SERVERS, self.JOBS, "terraform apply")
        marks = [
            next(
                mark for mark in (self.EMPTY, self.SERVERS, self.JOBS, "terraform") if mark in step
            )
            for step in steps
        ]
        # Jobs' instances are looked for before, and after the last server; each time by two looks.
        assert marks == [
            *(self.JOBS, self.EMPTY),
            *(self.SERVERS, self.SERVERS, self.JOBS, self.JOBS),
            "terraform",
        ]
        assert clock.now > 0, "the two looks are at different times"
        assert self.sizes(aws) == ["0 --desired-capacity 0"]

    def test_it_waits_for_the_last_server(
        self, aws: StandIns, monkeypatch: pytest.MonkeyPatch, clock: Clock
    ) -> None:
        aws.answers(self.SERVERS, ["i-0a"])
        clock.when(100, lambda: aws.answers(self.SERVERS, []))
        assert self.down(monkeypatch) == 0
        looks = [line for line in aws.lines("") if self.SERVERS in line or self.JOBS in line]
        assert sum(self.SERVERS in line for line in looks) > 5
        assert clock.now >= 100

    def test_a_server_that_does_not_end_stops_it_and_the_servers_start_again(
        self,
        aws: StandIns,
        monkeypatch: pytest.MonkeyPatch,
        clock: Clock,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        aws.answers(self.SERVERS, ["i-0a"])
        assert self.down(monkeypatch) == 1
        assert "i-0a does not end" in capsys.readouterr().err
        assert clock.now >= 900
        assert self.sizes(aws) == ["0 --desired-capacity 0", "3 --desired-capacity 3"]
        assert aws.lines("terraform apply", "terraform destroy") == []

    def test_what_was_launched_meanwhile_stops_it_and_the_servers_start_again(
        self,
        aws: StandIns,
        monkeypatch: pytest.MonkeyPatch,
        clock: Clock,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        aws.answers(self.SERVERS, ["i-0a"])

        def launched() -> None:
            aws.answers(self.JOBS, ["i-1"])
            aws.answers(self.SERVERS, [])

        clock.when(30, launched)
        assert self.down(monkeypatch) == 1
        printed = capsys.readouterr()
        assert "1 instances of jobs live, i-1 for example" in printed.err
        assert "`atemporal drain`" in printed.err
        assert "3 servers are started again" in printed.out
        assert self.sizes(aws)[-1] == "3 --desired-capacity 3"
        assert aws.lines("terraform apply", "terraform destroy") == []

    def test_one_that_ec2_tells_of_late_is_seen_by_the_second_look(
        self, aws: StandIns, monkeypatch: pytest.MonkeyPatch, clock: Clock
    ) -> None:
        # The two looks for servers are at 0 and 15 s, the first for jobs at 15 s.
        clock.when(30, lambda: aws.answers(self.JOBS, ["i-1"]))
        assert self.down(monkeypatch) == 1
        assert aws.lines("terraform apply", "terraform destroy") == []

    def test_servers_that_do_not_start_again_are_told_of(
        self,
        aws: StandIns,
        monkeypatch: pytest.MonkeyPatch,
        clock: Clock,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        clock.when(30, lambda: aws.answers(self.JOBS, ["i-1"]))
        aws.answers("--desired-capacity 3", "throttled", code=254)
        assert self.down(monkeypatch) == 1
        printed = capsys.readouterr().err
        assert "i-1 for example" in printed
        assert "`make infra-up` does it" in printed

    @pytest.mark.parametrize("typed", ["", "yes\n", "staging\n"])
    def test_only_its_name_does_it(
        self, typed: str, aws: StandIns, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert self.down(monkeypatch, typed) == 1
        assert aws.lines("terraform", self.EMPTY) == []

    def test_not_while_jobs_instances_live(
        self, aws: StandIns, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        aws.answers("ec2 describe-instances", ["i-1", "i-2"])
        assert self.down(monkeypatch) == 1
        assert "2 instances of jobs live" in capsys.readouterr().err
        assert self.JOBS in aws.calls[-1]
        assert aws.lines("terraform", self.EMPTY) == []

    def test_not_when_the_snapshot_has_no_name_left(
        self, aws: StandIns, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        aws.answers("rds describe-db-snapshots", ["atemporal-production-final"])
        assert self.down(monkeypatch) == 1
        assert aws.lines("terraform", self.EMPTY) == []

    def test_not_while_the_database_is_being_deleted(
        self, aws: StandIns, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        aws.answers("rds describe-db-instances", ["deleting"])
        aws.answers("rds describe-db-snapshots", ["atemporal-production-final"])
        assert self.down(monkeypatch) == 1
        printed = capsys.readouterr().err
        assert "wait" in printed
        assert "delete it" not in printed, "it is the only backup"
        assert aws.lines("terraform", self.EMPTY) == []

    def test_after_a_failure_it_goes_on_with_what_is_left(
        self, aws: StandIns, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        aws.answers("rds describe-db-instances", [])
        aws.answers("rds describe-db-snapshots", ["atemporal-production-final"])
        aws.answers("describe-auto-scaling-groups", {"AutoScalingGroups": []})
        aws.answers("terraform state list", 'aws_lb.this["api"]\naws_vpc.this')
        assert self.down(monkeypatch) == 0
        (lift,) = [call for call in aws.calls if call[:2] == ["terraform", "apply"]]
        assert [one for one in lift if "target" in one] == ['-target=aws_lb.this["api"]']
        assert len(aws.lines("terraform destroy")) == 1
        assert aws.lines(self.EMPTY) == []

    def test_nothing_protected_that_is_gone_is_made_anew(
        self, aws: StandIns, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        aws.answers("rds describe-db-instances", [])
        aws.answers("terraform state list", "aws_vpc.this")
        assert self.down(monkeypatch) == 0
        assert aws.lines("terraform apply") == []
        assert len(aws.lines("terraform destroy")) == 1


class TestRegistry:
    def test_it_pushes_under_a_tag(
        self, aws: StandIns, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run(monkeypatch, "registry", *COMPLETE["registry"]) == 0
        login, tag, push = aws.calls[-3:]
        assert login == [
            *("docker", "login", "--username", "AWS", "--password-stdin", HOST),
            "a-password",
        ]
        assert tag == ["docker", "tag", CONFIG, NEW]
        assert push == ["docker", "push", NEW]
        assert aws.lines("create-repository") == []
        printed = capsys.readouterr().out
        assert f"IMAGE={NEW}" in printed
        assert "a-password" not in printed

    def test_it_makes_the_repository_once(
        self, aws: StandIns, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        aws.answers("ecr describe-repositories", ["another"])
        assert run(monkeypatch, "registry", *COMPLETE["registry"]) == 0
        (made,) = aws.lines("create-repository")
        assert "--image-tag-mutability IMMUTABLE" in made
        assert "--repository-name atemporal" in made

    @pytest.mark.parametrize(
        ("there", "digests"),
        [(pushed(), ()), (pushed("sha256:other"), (MANIFEST,)), (pushed(None), (MANIFEST,))],
        ids=["same configuration", "same manifest", "same index"],
    )
    def test_what_is_there_is_not_pushed_again(
        self,
        there: object,
        digests: tuple[str, ...],
        aws: StandIns,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        aws.answers("ecr batch-get-image", there)
        aws.answers("docker image inspect", built(digests=digests))
        assert run(monkeypatch, "registry", *COMPLETE["registry"]) == 0
        assert aws.lines("docker push", "docker tag", "docker login") == []
        assert f"IMAGE={NEW}" in capsys.readouterr().out

    @pytest.mark.parametrize("command", ["registry", "deploy-all"])
    def test_another_image_under_the_tag_is_refused(
        self,
        command: str,
        aws: StandIns,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        aws.answers("ecr batch-get-image", pushed("sha256:other"))
        assert run(monkeypatch, command, *COMPLETE[command]) == 1
        assert aws.lines("docker push", "docker tag", "docker login", "terraform") == []
        assert f"{NEW} is another image already ({MANIFEST})" in capsys.readouterr().err


class TestWhichCommit:
    """A tag that names a commit is of an image that was built from it; nothing is pushed otherwise."""

    OTHER = "f" * 40

    def push(self, monkeypatch: pytest.MonkeyPatch, tag: str) -> int:
        return run(monkeypatch, "registry", "--deployment=production", f"--tag={tag}")

    @pytest.mark.parametrize("tag", [COMMIT, COMMIT[:12], "1.1", "20261129"])
    def test_its_own_or_a_name_that_is_no_commits(
        self, tag: str, aws: StandIns, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert self.push(monkeypatch, tag) == 0
        assert len(aws.lines("docker push")) == 1

    def test_a_tag_of_gits_for_its_commit(
        self, aws: StandIns, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        aws.answers("git rev-parse --verify --quiet 1.1^{commit}", COMMIT)
        assert self.push(monkeypatch, "1.1") == 0

    @pytest.mark.parametrize(
        ("revision", "tag", "git", "why"),
        [
            (
                COMMIT,
                OTHER[:12],
                OTHER,
                f"it is of commit {COMMIT}, and TAG=ffffffffffff is {OTHER}",
            ),
            (COMMIT, "1.1", OTHER, f"TAG=1.1 is {OTHER}"),
            (COMMIT, OTHER[:12], "", "git knows no commit ffffffffffff"),
            (f"{COMMIT}-dirty", COMMIT[:12], COMMIT, "changes that are in no commit"),
            (f"{COMMIT}-dirty", "1.1", "", "changes that are in no commit"),
            ("unknown", "1.1", "", "does not say which commit"),
            (None, "1.1", "", "does not say which commit"),
        ],
    )
    def test_of_another_commit(
        self,
        revision: str | None,
        tag: str,
        git: str,
        why: str,
        aws: StandIns,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        aws.answers("docker image inspect", built(revision))
        if git:
            aws.answers("git rev-parse", git)
        assert self.push(monkeypatch, tag) == 2
        printed = capsys.readouterr().err
        assert why in printed
        assert "`make image`" in printed
        assert aws.lines("docker push", "docker tag", "create-repository") == []


class TestDeployAll:
    def test_it_plans_then_pushes_creates_and_deploys(
        self, aws: StandIns, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert run(monkeypatch, "deploy-all", *COMPLETE["deploy-all"], typed="yes\n") == 0
        lines = aws.lines("terraform plan", "docker push", "terraform apply", "take launcher")
        programs = [" ".join(line.split()[:2]) for line in lines]
        assert programs == ["terraform plan", "docker push", "terraform apply", *["aws ssm"] * 3]
        assert f"-var=image={NEW}" in lines[0]

    def test_nothing_is_pushed_unless_a_person_agrees(
        self, aws: StandIns, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run(monkeypatch, "deploy-all", *COMPLETE["deploy-all"], typed="no\n") == 1
        printed = capsys.readouterr()
        assert f"is pushed as {NEW}" in printed.out
        assert "nothing has been done" in printed.err
        changes = ("docker push", "docker tag", "create-repository", "terraform apply", "ssm")
        assert aws.lines(*changes) == []

    def test_it_can_be_repeated(self, aws: StandIns, monkeypatch: pytest.MonkeyPatch) -> None:
        aws.answers("ecr batch-get-image", pushed())
        assert run(monkeypatch, "deploy-all", *COMPLETE["deploy-all"], "--yes") == 0
        assert aws.lines("docker push") == []
        assert len(aws.lines("terraform apply")) == 1


def test_logs_follow_one_daemons(aws: StandIns, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, "logs", "--deployment=production", "--daemon=reaper") == 0
    assert aws.calls[-1][:4] == ["aws", "logs", "tail", "/atemporal/production"]
    assert aws.calls[-1][-2:] == ["--log-stream-name-prefix", "reaper/"]
    assert "--follow" in aws.calls[-1]


@pytest.mark.parametrize(
    ("target", "command"),
    [
        ("infra-plan", "plan --deployment 'd' --image 'i' --state-bucket 'b'"),
        ("infra-up", "up --deployment 'd' --image 'i' --state-bucket 'b'"),
        ("infra-down", "down --deployment 'd' --state-bucket 'b'"),
        ("registry", "registry --deployment 'd' --tag 't'"),
        ("deploy", "deploy --deployment 'd' --image 'i'"),
        ("deploy-all", "deploy-all --deployment 'd' --tag 't' --state-bucket 'b'"),
        ("logs", "logs --deployment 'd'"),
    ],
)
def test_make_calls_them(target: str, command: str) -> None:
    given = ["DEPLOYMENT=d", "IMAGE=i", "STATE_BUCKET=b", "TAG=t"]
    done = subprocess.run(
        ["make", "--dry-run", "--no-print-directory", target, *given],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"python -m deploy.production {command}" in done.stdout
