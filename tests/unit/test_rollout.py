"""`make deploy`: kind by kind, one server after the other; and what becomes of one that does not come.

AWS is a stand-in, and time passes by itself.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from atemporal.errors import Refused
from deploy.production.rollout import Rollout
from deploy.production.tools import Deployment, Tools
from tests.account import ARNS, NEW, OLD, SERVERS, Clock, account
from tests.stand_ins import StandIns


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIns:
    made = account(tmp_path)
    monkeypatch.setenv("PATH", str(made.path))
    return made


@pytest.fixture
def rollout(aws: StandIns, clock: Clock) -> Rollout:
    found = Deployment("production", "eu-central-1", "small")
    return Rollout(Tools(sleep=clock.sleep, now=lambda: clock.now), found, NEW)


def changes(aws: StandIns) -> list[str]:
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


def test_kind_by_kind_and_one_server_after_the_other(aws: StandIns, rollout: Rollout) -> None:
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
    assert changes(aws) == expected


def test_back_is_the_other_way_round_and_leaves_the_tables(
    aws: StandIns, rollout: Rollout
) -> None:
    rollout.run(back=True)
    steps = changes(aws)
    kinds = [one.split()[0] for one in steps if ":=" in one]
    assert kinds == ["launcher", "scheduler", "reaper", "api"]
    assert not [one for one in steps if "upgrade" in one]


def test_a_daemon_that_does_not_come_stops_it(aws: StandIns, rollout: Rollout) -> None:
    aws.answers("take scheduler", {"Command": {"CommandId": "bad"}})
    bad = {"Status": "Failed", "StandardErrorContent": "scheduler is not ready after 180 s"}
    aws.answers("--command-id bad", bad)
    with pytest.raises(Refused) as stopped:
        rollout.run(back=False)
    # The one server goes back, as far as it can; no launcher has been touched.
    assert changes(aws)[-4:] == [
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
    aws: StandIns, rollout: Rollout
) -> None:
    aws.answers("take api", {"Command": {"CommandId": "bad"}})
    aws.answers("--command-id bad", {"Status": "TimedOut"})
    with pytest.raises(Refused, match="does not work with"):
        rollout.run(back=False)
    steps = changes(aws)
    assert steps.index("i-0a take api") < steps.index("api register-targets i-0a")
    assert "machines register-targets i-0a" in steps
    assert "i-0b take api" not in steps


@pytest.mark.parametrize(
    "fails",
    [
        "deregister-targets --region eu-central-1 --target-group-arn arn:machines",
        "wait target-deregistered",
    ],
)
def test_a_server_whose_load_balancers_do_not_let_it_go_is_under_them_again(
    fails: str, aws: StandIns, rollout: Rollout
) -> None:
    aws.answers(fails, "throttled", code=254)
    with pytest.raises(Refused, match="throttled"):
        rollout.run(back=False)
    under: dict[str, str] = {}
    for step in changes(aws):
        group, _, call = step.partition(" ")
        if "register-targets" in call:
            under[group] = call
    assert under == dict.fromkeys(ARNS, "register-targets i-0a")


def test_one_load_balancer_that_fails_does_not_keep_a_server_from_the_other(
    aws: StandIns, rollout: Rollout
) -> None:
    aws.answers("take api", {"Command": {"CommandId": "bad"}})
    aws.answers("--command-id bad", {"Status": "Failed", "StandardErrorContent": "not ready"})
    away = " register-targets --region eu-central-1 --target-group-arn arn:api"
    aws.answers(away, "throttled", code=254)
    with pytest.raises(Refused) as stopped:
        rollout.run(back=False)
    assert "machines register-targets i-0a" in changes(aws)
    printed = str(stopped.value)
    assert "not ready" in printed
    assert "throttled" in printed
    assert f"aws elbv2{away} --targets Id=i-0a" in printed


def test_an_upgrade_of_the_database_that_fails_touches_no_server(
    aws: StandIns, rollout: Rollout
) -> None:
    aws.answers("once db upgrade", {"Command": {"CommandId": "bad"}})
    aws.answers("--command-id bad", {"Status": "Failed", "StandardErrorContent": "no"})
    with pytest.raises(Refused, match="once db upgrade"):
        rollout.run(back=False)
    assert changes(aws) == ["api := 1.1", "i-0a once db upgrade", "api := 1.0"]


def test_a_command_of_a_server_that_boots_is_waited_for(
    aws: StandIns, clock: Clock, rollout: Rollout
) -> None:
    aws.answers("describe-instance-information", {"InstanceInformationList": []})
    with pytest.raises(Refused, match="does not reach i-0a i-0b i-0c"):
        rollout.run(back=False)
    assert clock.now >= 900
    assert changes(aws) == []


def test_a_command_that_is_not_known_yet_is_asked_for_again(
    aws: StandIns, clock: Clock, rollout: Rollout
) -> None:
    aws.answers("get-command-invocation", "(InvocationDoesNotExist)", code=255)
    with pytest.raises(Refused, match="Pending"):
        rollout.run(back=False)
    assert clock.now > 600


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
            "are being replaced.* cancel-instance-refresh --region eu-central-1 --auto-",
        ),
        ("get-parameters-by-path", {"Parameters": []}, "no parameter /atemporal/production"),
    ],
)
def test_it_does_not_begin(
    call: str, answer: object, why: str, aws: StandIns, rollout: Rollout
) -> None:
    aws.answers(call, answer)
    with pytest.raises(Refused, match=why):
        rollout.run(back=False)
    assert changes(aws) == []
