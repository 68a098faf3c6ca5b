"""`make infra-plan` and the others: what they refuse before anything is done, what they do and when.

terraform, aws and docker are stand-ins on the path.
"""

from __future__ import annotations

import io
import json
import re
import subprocess
from pathlib import Path

import pytest

from atemporal.errors import Refused
from deploy.production import __main__ as front
from deploy.production import infra, rollout, tools
from deploy.production.rollout import ORDER, Rollout
from deploy.production.tools import Deployment, Tools
from tests.stand_ins import StandIns

ROOT = Path(__file__).parents[2]
ACCOUNT = "111122223333"
HOST = f"{ACCOUNT}.dkr.ecr.eu-central-1.amazonaws.com"
OLD, NEW = f"{HOST}/atemporal:1.0", f"{HOST}/atemporal:1.1"
SERVERS = ("i-0a", "i-0b", "i-0c")
ARNS = {"api": "arn:api", "machines": "arn:machines"}


@pytest.fixture
def aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIns:
    """An account with three servers that run the old image."""
    made = StandIns(tmp_path / "programs", "aws", "terraform", "docker")
    made.answers("sts get-caller-identity", {"Account": ACCOUNT})
    made.answers("ec2 describe-instances", [])
    made.answers("rds describe-db-snapshots", [])
    made.answers("ecr describe-repositories", ["atemporal"])
    made.answers("ecr get-login-password", "a-password")
    group = [{"InstanceId": one, "LifecycleState": "InService"} for one in SERVERS]
    made.answers("describe-auto-scaling-groups", {"AutoScalingGroups": [{"Instances": group}]})
    made.answers("describe-instance-refreshes", {"InstanceRefreshes": [{"Status": "Successful"}]})
    for name, arn in ARNS.items():
        made.answers(f"--names production-{name}", {"TargetGroups": [{"TargetGroupArn": arn}]})
    images = [{"Name": f"/atemporal/production/image/{one}", "Value": OLD} for one in ORDER]
    made.answers("get-parameters-by-path", {"Parameters": images})
    online = [{"InstanceId": one, "PingStatus": "Online"} for one in SERVERS]
    made.answers("describe-instance-information", {"InstanceInformationList": online})
    made.answers("ssm send-command", {"Command": {"CommandId": "good"}})
    made.answers("get-command-invocation", {"Status": "Success"})
    monkeypatch.setenv("PATH", str(made.path))
    folder = tmp_path / "terraform"
    folder.mkdir()
    (folder / "production.tfvars").write_text('region = "eu-central-1"\nsize = "small"\n')
    monkeypatch.setattr(tools, "FOLDER", folder)
    monkeypatch.setattr(infra, "FOLDER", folder)
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
    "registry": ("docker", "aws"),
    "deploy": ("aws",),
    "deploy-all": ("terraform", "docker", "aws"),
    "logs": ("aws",),
}


class TestWhatIsRefused:
    """Before anything is done; the only call is who we are, and whether the image is there."""

    HARMLESS = re.compile(r"aws sts get-caller-identity|docker image inspect")

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
    def test_protection_is_lifted_then_everything_goes(
        self, aws: StandIns, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert run(monkeypatch, "down", *COMPLETE["down"], typed="production\n") == 0
        init, lift, destroy = [call for call in aws.calls if call[0] == "terraform"]
        assert init[1] == "init"
        assert lift[1] == "apply"
        assert {f"-target={one}" for one in infra.PROTECTED} <= set(lift)
        assert destroy[1] == "destroy"
        assert "-var=protected=false" in lift
        assert "-var=protected=false" in destroy

    @pytest.mark.parametrize("typed", ["", "yes\n", "staging\n"])
    def test_only_its_name_does_it(
        self, typed: str, aws: StandIns, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert run(monkeypatch, "down", *COMPLETE["down"], typed=typed) == 1
        assert aws.lines("terraform") == []

    def test_not_while_jobs_instances_live(
        self, aws: StandIns, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        aws.answers("ec2 describe-instances", ["i-1", "i-2"])
        assert run(monkeypatch, "down", *COMPLETE["down"], typed="production\n") == 1
        assert "2 instances of jobs live" in capsys.readouterr().err
        assert "Name=tag:atemporal:deployment,Values=production" in aws.calls[-1]
        assert aws.lines("terraform") == []

    def test_not_when_the_snapshot_has_no_name_left(
        self, aws: StandIns, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        aws.answers("rds describe-db-snapshots", ["atemporal-production-final"])
        assert run(monkeypatch, "down", *COMPLETE["down"], typed="production\n") == 1
        assert aws.lines("terraform") == []


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
        assert tag == ["docker", "tag", "atemporal", NEW]
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


class TestDeploy:
    """Without waiting: time passes by itself."""

    @pytest.fixture
    def rollout(self, aws: StandIns) -> Rollout:
        self.clock = 0.0

        def sleep(seconds: float) -> None:
            self.clock += seconds

        found = Deployment("production", "eu-central-1", "small")
        return Rollout(Tools(sleep=sleep, now=lambda: self.clock), found, NEW)

    @staticmethod
    def steps(aws: StandIns) -> list[str]:
        """What changed anything, each in a few words."""
        found = []
        for call in aws.calls:
            line = " ".join(call)
            if "put-parameter" in call:
                name = call[call.index("--name") + 1].rpartition("/")[2]
                found.append(f"{name} := {call[call.index('--value') + 1].rpartition(':')[2]}")
            elif "send-command" in call:
                (command,) = json.loads(call[call.index("--parameters") + 1])["commands"]
                server = call[call.index("--instance-ids") + 1]
                found.append(f"{server} {command.removeprefix('/opt/atemporal/server ')}")
            elif "elbv2" in line and "describe" not in line:
                group = call[call.index("--target-group-arn") + 1].removeprefix("arn:")
                words = [one for one in call[2:4] if not one.startswith("--")]
                found.append(f"{group} {' '.join(words)} {call[-1].removeprefix('Id=')}")
        return found

    def test_kind_by_kind_and_one_server_after_the_other(
        self, aws: StandIns, rollout: Rollout
    ) -> None:
        rollout.run(back=False)
        expected = ["api := 1.1", "i-0a once db upgrade", "api := 1.1"]
        for server in SERVERS:
            expected += [f"{one} deregister-targets {server}" for one in ARNS]
            expected += [f"{one} wait target-deregistered {server}" for one in ARNS]
            expected += [f"{server} take api"]
            expected += [f"{one} register-targets {server}" for one in ARNS]
            expected += [f"{one} wait target-in-service {server}" for one in ARNS]
        for daemon in ("reaper", "scheduler", "launcher"):
            expected += [f"{daemon} := 1.1", *(f"{one} take {daemon}" for one in SERVERS)]
        assert self.steps(aws) == expected

    def test_back_is_the_other_way_round_and_leaves_the_tables(
        self, aws: StandIns, rollout: Rollout
    ) -> None:
        rollout.run(back=True)
        steps = self.steps(aws)
        kinds = [one.split()[0] for one in steps if ":=" in one]
        assert kinds == ["launcher", "scheduler", "reaper", "api"]
        assert not [one for one in steps if "upgrade" in one]

    def test_a_daemon_that_does_not_come_stops_it(self, aws: StandIns, rollout: Rollout) -> None:
        aws.answers("take scheduler", {"Command": {"CommandId": "bad"}})
        bad = {"Status": "Failed", "StandardErrorContent": "scheduler is not ready after 180 s"}
        aws.answers("--command-id bad", bad)
        with pytest.raises(Refused) as stopped:
            rollout.run(back=False)
        # The one server goes back, as far as it can; no launcher has been touched.
        assert self.steps(aws)[-4:] == [
            "scheduler := 1.1",
            "i-0a take scheduler",
            "scheduler := 1.0",
            "i-0a take scheduler",
        ]
        printed = str(stopped.value)
        assert "scheduler is not ready after 180 s" in printed
        assert "reaper on i-0c" in printed
        assert f"make deploy BACK=1 DEPLOYMENT=production IMAGE={OLD}" in printed

    def test_an_api_that_does_not_come_is_under_its_load_balancers_again(
        self, aws: StandIns, rollout: Rollout
    ) -> None:
        aws.answers("take api", {"Command": {"CommandId": "bad"}})
        aws.answers("--command-id bad", {"Status": "TimedOut"})
        with pytest.raises(Refused, match="does not work with"):
            rollout.run(back=False)
        steps = self.steps(aws)
        assert steps.index("i-0a take api") < steps.index("api register-targets i-0a")
        assert "machines register-targets i-0a" in steps
        assert "i-0b take api" not in steps

    def test_an_upgrade_of_the_database_that_fails_touches_no_server(
        self, aws: StandIns, rollout: Rollout
    ) -> None:
        aws.answers("once db upgrade", {"Command": {"CommandId": "bad"}})
        aws.answers("--command-id bad", {"Status": "Failed", "StandardErrorContent": "no"})
        with pytest.raises(Refused, match="once db upgrade"):
            rollout.run(back=False)
        assert self.steps(aws) == ["api := 1.1", "i-0a once db upgrade", "api := 1.0"]

    def test_a_command_of_a_server_that_boots_is_waited_for(
        self, aws: StandIns, rollout: Rollout
    ) -> None:
        aws.answers("describe-instance-information", {"InstanceInformationList": []})
        with pytest.raises(Refused, match="does not reach i-0a i-0b i-0c"):
            rollout.run(back=False)
        assert self.clock >= 900
        assert self.steps(aws) == []

    def test_a_command_that_is_not_known_yet_is_asked_for_again(
        self, aws: StandIns, rollout: Rollout
    ) -> None:
        aws.answers("get-command-invocation", "(InvocationDoesNotExist)", code=255)
        with pytest.raises(Refused, match="Pending"):
            rollout.run(back=False)
        assert self.clock > 600

    @pytest.mark.parametrize(
        ("call", "answer", "why"),
        [
            (
                "describe-auto-scaling-groups",
                {"AutoScalingGroups": []},
                "has no server in service: run `make infra-up`",
            ),
            (
                "describe-instance-refreshes",
                {"InstanceRefreshes": [{"Status": "InProgress"}]},
                "are being replaced",
            ),
            ("get-parameters-by-path", {"Parameters": []}, "no parameter /atemporal/production"),
        ],
    )
    def test_it_does_not_begin(
        self, call: str, answer: object, why: str, aws: StandIns, rollout: Rollout
    ) -> None:
        aws.answers(call, answer)
        with pytest.raises(Refused, match=why):
            rollout.run(back=False)
        assert self.steps(aws) == []


def test_deploy_all_pushes_creates_and_deploys(
    aws: StandIns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollout, "_POLL_S", 0.0)
    assert run(monkeypatch, "deploy-all", *COMPLETE["deploy-all"], "--yes") == 0
    printed = aws.lines("docker push", "terraform apply", "take launcher")
    assert [line.split()[0] for line in printed] == ["docker", "terraform", "aws", "aws", "aws"]


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
