"""What the daemons may do in AWS, and what they may not, as IAM decides it: a row each.

The policies are those of `deploy/aws`, with the deployment's name put in as the Terraform files do it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from atemporal.cloud import launch_request
from atemporal.cloud.instance import DEPLOYMENT_TAG, GROUP_TAG, INSTALLATION_TAG
from atemporal.cloud.service_model import INSPECTED, OPERATIONS
from atemporal.model import Launch
from tests.policies import (
    ACCOUNT,
    ALLOWED,
    DEPLOYMENT,
    FOLDER,
    JOB_ROLE,
    REGION,
    Policies,
    Request,
    ec2,
    evaluate,
)

OURS = {f"aws:ResourceTag/{DEPLOYMENT_TAG}": DEPLOYMENT}
OTHERS = {f"aws:ResourceTag/{DEPLOYMENT_TAG}": "staging"}
SERVERS = {"aws:ResourceTag/atemporal:server": DEPLOYMENT}
INSTANCE, VOLUME = ec2("instance", "i-0123456789abcdef0"), ec2("volume", "vol-0123456789abcdef0")
LATER = {"aws:TagKeys": ["team", "Name"], "aws:RequestTag/team": "x", "aws:RequestTag/Name": "y"}
AT_LAUNCH = {"ec2:CreateAction": "RunInstances", "aws:TagKeys": [DEPLOYMENT_TAG]}
FOR_JOBS = {"aws:ResourceTag/atemporal:jobs": DEPLOYMENT}
TO_EC2 = {"iam:PassedToService": "ec2.amazonaws.com"}


def arn(service: str, rest: str, *, region: str = REGION) -> str:
    return f"arn:aws:{service}:{region}:{ACCOUNT}:{rest}"


def role(name: str) -> str:
    return arn("iam", f"role/{name}", region="")


Row = tuple[str, str, str, dict[str, Any]]

MAY: list[Row] = [
    ("launcher", "ec2:CreateTags", INSTANCE, OURS | LATER),
    ("launcher", "ec2:CreateTags", VOLUME, OURS | LATER),
    ("launcher", "ec2:CreateTags", INSTANCE, AT_LAUNCH),
    ("launcher", "ec2:DescribeInstances", "*", {}),
    ("launcher", "ec2:DescribeRouteTables", "*", {}),
    ("launcher", "iam:PassRole", role(JOB_ROLE), TO_EC2),
    ("reaper", "ec2:TerminateInstances", INSTANCE, OURS),
    ("reaper", "ec2:GetConsoleOutput", INSTANCE, OURS),
    ("reaper", "ec2:DeleteVolume", VOLUME, OURS),
    ("reaper", "ec2:DescribeInstances", "*", {}),
    ("reaper", "ec2:DescribeVolumes", "*", {}),
    ("reaper", "sqs:ReceiveMessage", arn("sqs", f"atemporal-{DEPLOYMENT}-events"), {}),
    ("reaper", "sqs:DeleteMessage", arn("sqs", f"atemporal-{DEPLOYMENT}-events"), {}),
    ("server", "sts:AssumeRole", role(f"atemporal-{DEPLOYMENT}-launcher"), {}),
    ("server", "sts:AssumeRole", role(f"atemporal-{DEPLOYMENT}-reaper"), {}),
    (
        "server",
        "secretsmanager:GetSecretValue",
        arn("secretsmanager", f"secret:atemporal/{DEPLOYMENT}/stores-AbCdEf"),
        {},
    ),
    ("server", "ssm:GetParameter", arn("ssm", f"parameter/atemporal/{DEPLOYMENT}/image/api"), {}),
    ("server", "ecr:BatchGetImage", arn("ecr", "repository/atemporal"), {}),
    ("jobs", "ecr:GetAuthorizationToken", "*", {}),
    ("jobs", "ecr:BatchGetImage", arn("ecr", "repository/team/app"), {}),
    ("jobs", "ssm:GetParameter", arn("ssm", f"parameter/jobs/{DEPLOYMENT}/db/password"), {}),
    (
        "jobs",
        "secretsmanager:GetSecretValue",
        arn("secretsmanager", f"secret:jobs/{DEPLOYMENT}/db-AbCdEf"),
        {},
    ),
    (
        "server",
        "logs:PutLogEvents",
        arn("logs", f"log-group:/atemporal/{DEPLOYMENT}:log-stream:api/ip-10-40-8-7"),
        {},
    ),
]

MAY_NOT: dict[str, Row] = {
    "the reaper ends no instance without a tag": (
        "reaper",
        "ec2:TerminateInstances",
        INSTANCE,
        {},
    ),
    "the reaper ends no instance of another deployment": (
        "reaper",
        "ec2:TerminateInstances",
        INSTANCE,
        OTHERS,
    ),
    "the reaper ends no server of ours": ("reaper", "ec2:TerminateInstances", INSTANCE, SERVERS),
    "a job's machine reads no secret of the daemons": (
        "jobs",
        "secretsmanager:GetSecretValue",
        arn("secretsmanager", f"secret:atemporal/{DEPLOYMENT}/stores-AbCdEf"),
        {},
    ),
    "a job's machine reads no parameter of the servers": (
        "jobs",
        "ssm:GetParameter",
        arn("ssm", f"parameter/atemporal/{DEPLOYMENT}/image/api"),
        {},
    ),
    "a job's machine reads no parameter of another deployment": (
        "jobs",
        "ssm:GetParameter",
        arn("ssm", "parameter/jobs/staging/db/password"),
        {},
    ),
    "a job's machine pushes no image": (
        "jobs",
        "ecr:PutImage",
        arn("ecr", "repository/team/app"),
        {},
    ),
    "the reaper stops no instance": ("reaper", "ec2:StopInstances", INSTANCE, OURS),
    "the reaper reads no console of another deployment": (
        "reaper",
        "ec2:GetConsoleOutput",
        INSTANCE,
        OTHERS,
    ),
    "the reaper deletes no volume without a tag": ("reaper", "ec2:DeleteVolume", VOLUME, {}),
    "the reaper deletes no volume of another deployment": (
        "reaper",
        "ec2:DeleteVolume",
        VOLUME,
        OTHERS,
    ),
    "the reaper launches nothing": ("reaper", "ec2:RunInstances", INSTANCE, {}),
    "the reaper tags nothing": ("reaper", "ec2:CreateTags", INSTANCE, OURS | LATER),
    "the reaper passes no role": ("reaper", "iam:PassRole", role(JOB_ROLE), TO_EC2),
    "the reaper reads no other queue": (
        "reaper",
        "sqs:ReceiveMessage",
        arn("sqs", "atemporal-staging-events"),
        {},
    ),
    "the reaper writes to no queue": (
        "reaper",
        "sqs:SendMessage",
        arn("sqs", f"atemporal-{DEPLOYMENT}-events"),
        {},
    ),
    "the launcher ends nothing": ("launcher", "ec2:TerminateInstances", INSTANCE, OURS),
    "the launcher deletes nothing": ("launcher", "ec2:DeleteVolume", VOLUME, OURS),
    "the launcher tags no instance without a tag": (
        "launcher",
        "ec2:CreateTags",
        INSTANCE,
        LATER,
    ),
    "the launcher tags no instance of another deployment": (
        "launcher",
        "ec2:CreateTags",
        INSTANCE,
        OTHERS | LATER,
    ),
    "the launcher makes no instance ours by a tag": (
        "launcher",
        "ec2:CreateTags",
        INSTANCE,
        {"aws:TagKeys": [DEPLOYMENT_TAG], f"aws:RequestTag/{DEPLOYMENT_TAG}": DEPLOYMENT},
    ),
    "the launcher gives no instance of ours away": (
        "launcher",
        "ec2:CreateTags",
        INSTANCE,
        OURS | {"aws:TagKeys": ["Name", DEPLOYMENT_TAG]},
    ),
    "the launcher gives none to another installation": (
        "launcher",
        "ec2:CreateTags",
        INSTANCE,
        OURS | {"aws:TagKeys": [INSTALLATION_TAG]},
    ),
    "the launcher gives none to another group, in whatever case": (
        "launcher",
        "ec2:CreateTags",
        INSTANCE,
        OURS | {"aws:TagKeys": [GROUP_TAG.upper()]},
    ),
    "the launcher takes no tag away": ("launcher", "ec2:DeleteTags", INSTANCE, OURS),
    "the launcher tags no security group": (
        "launcher",
        "ec2:CreateTags",
        ec2("security-group"),
        {"aws:TagKeys": ["atemporal:jobs"]},
    ),
    "the launcher passes no other role": ("launcher", "iam:PassRole", role("admin"), TO_EC2),
    "the launcher passes its own role to nobody": (
        "launcher",
        "iam:PassRole",
        role(f"atemporal-{DEPLOYMENT}-launcher"),
        TO_EC2,
    ),
    "the launcher passes the jobs' role to no function": (
        "launcher",
        "iam:PassRole",
        role(JOB_ROLE),
        {"iam:PassedToService": "lambda.amazonaws.com"},
    ),
    "the api launches nothing": ("api", "ec2:RunInstances", INSTANCE, {}),
    "the api ends nothing": ("api", "ec2:TerminateInstances", INSTANCE, OURS),
    "the api looks at nothing": ("api", "ec2:DescribeInstances", "*", {}),
    "the scheduler looks at nothing": ("scheduler", "ec2:DescribeInstances", "*", {}),
    "the scheduler ends nothing": ("scheduler", "ec2:TerminateInstances", INSTANCE, OURS),
    "a server launches nothing by itself": ("server", "ec2:RunInstances", INSTANCE, {}),
    "a server ends nothing by itself": ("server", "ec2:TerminateInstances", INSTANCE, OURS),
    "a server takes no other role": ("server", "sts:AssumeRole", role("admin"), {}),
    "a server takes no role of another deployment": (
        "server",
        "sts:AssumeRole",
        role("atemporal-staging-launcher"),
        {},
    ),
    "a server reads no secret of another deployment": (
        "server",
        "secretsmanager:GetSecretValue",
        arn("secretsmanager", "secret:atemporal/staging/stores-AbCdEf"),
        {},
    ),
    "a server writes no secret": (
        "server",
        "secretsmanager:PutSecretValue",
        arn("secretsmanager", f"secret:atemporal/{DEPLOYMENT}/stores-AbCdEf"),
        {},
    ),
    "a server does not choose its image": (
        "server",
        "ssm:PutParameter",
        arn("ssm", f"parameter/atemporal/{DEPLOYMENT}/image/api"),
        {},
    ),
    "a server reads no other parameter": (
        "server",
        "ssm:GetParameter",
        arn("ssm", "parameter/payroll/password"),
        {},
    ),
    "a server pushes no image": (
        "server",
        "ecr:PutImage",
        arn("ecr", "repository/atemporal"),
        {},
    ),
    "a server sends no command to others": (
        "server",
        "ssm:SendCommand",
        INSTANCE,
        {},
    ),
    "a server deletes no log": (
        "server",
        "logs:DeleteLogGroup",
        arn("logs", f"log-group:/atemporal/{DEPLOYMENT}"),
        {},
    ),
}


@pytest.fixture(scope="module")
def policies() -> Policies:
    return Policies()


@pytest.fixture(scope="module")
def verdicts(policies: Policies) -> dict[str, str]:
    """Of all rows at once: each run of the evaluator is a process."""
    rows: list[Row] = [*MAY, *MAY_NOT.values()]
    asked = [(who, Request(action, resource, context)) for who, action, resource, context in rows]
    return dict(zip(map(repr, rows), policies.decide(asked), strict=True))


@pytest.mark.parametrize("row", MAY, ids=lambda row: f"{row[0]} {row[1]}")
def test_a_daemon_may(row: Row, verdicts: dict[str, str]) -> None:
    assert verdicts[repr(row)] == ALLOWED


@pytest.mark.parametrize("why", MAY_NOT)
def test_a_daemon_may_not(why: str, verdicts: dict[str, str]) -> None:
    assert verdicts[repr(MAY_NOT[why])] != ALLOWED, why


def test_every_call_of_the_product_is_somebodys_right(policies: Policies) -> None:
    """And only the launcher's and the reaper's: a call that is new has to be given to one of them."""
    rights = {
        action
        for daemon, names in policies.of.items()
        if daemon != "server"
        for name in names
        for action in _actions(policies.documents[name])
        if action.startswith("ec2:")
    }
    assert rights == {f"ec2:{name}" for name in (*OPERATIONS, *INSPECTED)}
    assert policies.of["api"] == policies.of["scheduler"] == []


class TestALaunch:
    """RunInstances is one call and a right to each thing it makes or uses: all of them, or none."""

    @staticmethod
    def requests(**changed: Any) -> list[Request]:
        """What AWS asks IAM for the product's own call; `changed` replaces what is made or used."""
        launch = Launch(
            image_id="ami-1",
            instance_type="t3.small",
            callback_base="https://machines.example.com",
            key_id="k1",
            deadline_s=600,
            subnet_id="subnet-1",
            security_group_ids=("sg-1",),
        )
        call = launch_request.build(
            "token", {DEPLOYMENT_TAG: DEPLOYMENT}, 3, launch, b"", image=None
        )
        tags = {one["ResourceType"]: one["Tags"] for one in call["TagSpecifications"]}

        def tagged(kind: str) -> dict[str, Any]:
            named = {f"aws:RequestTag/{one['Key']}": one["Value"] for one in tags[kind]}
            return named | {"aws:TagKeys": [one["Key"] for one in tags[kind]]}

        options = call["MetadataOptions"]
        instance = tagged("instance") | {
            "ec2:MetadataHttpTokens": options["HttpTokens"],
            "ec2:MetadataHttpPutResponseHopLimit": str(options["HttpPutResponseHopLimit"]),
        }
        made: dict[str, Mapping[str, Any]] = {
            "instance": instance | changed.get("instance", {}),
            "volume": tagged("volume") | changed.get("volume", {}),
            "network-interface": {},
            "image": {},
            "subnet": changed.get("subnet", FOR_JOBS),
            "security-group": changed.get("security_group", FOR_JOBS),
        }
        return [Request("ec2:RunInstances", ec2(kind), context) for kind, context in made.items()]

    @staticmethod
    def decide(policies: Policies, requests: list[Request], **how: Any) -> list[str]:
        return policies.decide([("launcher", request) for request in requests], **how)

    def test_the_products_own_is_allowed(self, policies: Policies) -> None:
        assert set(self.decide(policies, self.requests())) == {ALLOWED}

    @pytest.mark.parametrize(
        "changed",
        [
            pytest.param({"subnet": {}}, id="a subnet that is not for jobs"),
            pytest.param(
                {"subnet": {"aws:ResourceTag/atemporal:jobs": "staging"}}, id="another's subnet"
            ),
            pytest.param({"security_group": {}}, id="the servers' security group"),
            pytest.param(
                {"instance": {f"aws:RequestTag/{DEPLOYMENT_TAG}": "staging"}}, id="another's tag"
            ),
            pytest.param({"volume": {f"aws:RequestTag/{DEPLOYMENT_TAG}": ""}}, id="no tag"),
            pytest.param(
                {"instance": {"ec2:MetadataHttpTokens": "optional"}}, id="metadata without session"
            ),
            pytest.param(
                {"instance": {"ec2:MetadataHttpPutResponseHopLimit": "2"}},
                id="metadata in reach of containers",
            ),
        ],
    )
    def test_another_is_refused(self, changed: dict[str, Any], policies: Policies) -> None:
        verdicts = self.decide(policies, self.requests(**changed))
        assert any(verdict != ALLOWED for verdict in verdicts)

    def test_the_fence_is_what_keeps_it_in_its_network(self, policies: Policies) -> None:
        """Installations without the fence launch in any subnet: it is an addition, not a condition."""
        elsewhere = self.requests(subnet={}, security_group={})
        verdicts = self.decide(policies, elsewhere, without=["launcher-fence"])
        assert set(verdicts) == {ALLOWED}


class TestWhatThePoliciesName:
    """A condition on a key that the action does not have is never met, or always: both are holes."""

    def test_actions_and_keys_are_published(self, policies: Policies) -> None:
        wrong = [
            f"{name}: {fault}"
            for name, document in policies.documents.items()
            for fault in _unpublished(document)
        ]
        assert wrong == []

    @pytest.mark.parametrize(
        ("action", "resource", "condition"),
        [
            ("ec2:TerminateInstance", "*", {}),
            ("ec2:TerminateInstances", INSTANCE, {"StringEquals": {"ec2:CreateAction": "x"}}),
            (
                "ec2:RunInstances",
                ec2("network-interface"),
                {"StringNotEquals": {f"aws:ResourceTag/{DEPLOYMENT_TAG}": "prod"}},
            ),
            ("ec2:RunInstances", arn("ec2", "snake/1"), {}),
        ],
    )
    def test_the_check_sees(self, action: str, resource: str, condition: dict[str, Any]) -> None:
        statement = {"Action": action, "Resource": resource, "Condition": condition}
        assert list(_unpublished({"Statement": [statement]})) != []

    def test_no_statement_allows_a_wild_card_of_actions(self, policies: Policies) -> None:
        for document in policies.documents.values():
            assert not [action for action in _actions(document) if "*" in action]

    def test_statements_have_names_that_iam_takes(self, policies: Policies) -> None:
        for document in policies.documents.values():
            names = [statement["Sid"] for statement in document["Statement"]]
            assert len(set(names)) == len(names)
            assert all(name.isascii() and name.isalnum() for name in names)

    def test_each_fits_into_a_role(self) -> None:
        """10,240 letters for all policies of a role, white space not counted."""
        for path in FOLDER.glob("*-policy.json"):
            assert len(json.dumps(json.loads(path.read_text()), separators=(",", ":"))) < 2500


def _list(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def _actions(document: Mapping[str, Any]) -> Iterator[str]:
    for statement in document["Statement"]:
        yield from _list(statement["Action"])


def _unpublished(document: Mapping[str, Any]) -> Iterator[str]:
    for statement in document["Statement"]:
        actions = _list(statement["Action"])
        keys = {key for pairs in statement.get("Condition", {}).values() for key in pairs}
        for action, known in zip(actions, evaluate({"actions": actions}), strict=True):
            if known is None:
                yield f"there is no action {action}"
                continue
            for resource in _list(statement["Resource"]):
                if resource == "*":
                    if keys:
                        yield f"{action}: a condition on everything"
                    continue
                types = [one for one in known["types"] if _is_of(resource, one["arn"])]
                if not types:
                    yield f"{action} has no resource {resource}"
                allowed = {_family(key) for one in types for key in one["keys"]}
                allowed |= {_family(key) for key in known["keys"]}
                yield from (
                    f"{action} on {resource} has no key {key}"
                    for key in keys
                    if _family(key) not in allowed
                )


def _family(key: str) -> str:
    return key.partition("/")[0].lower()


def _is_of(resource: str, pattern: str) -> bool:
    """Whether an ARN of a policy is of a type: service and kind of thing agree."""
    ours, theirs = resource.split(":", 5), pattern.split(":", 5)

    def kind(rest: str) -> str:
        return rest.partition("/")[0].partition(":")[0]

    named = kind(theirs[5])
    return ours[2] == theirs[2] and ("$" in named or kind(ours[5]) == named)
