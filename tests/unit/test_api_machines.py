"""The machines of launch groups, and of jobs by claim, ask for theirs, over a real Postgres."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
import structlog
from prometheus_client import REGISTRY

from atemporal import tokens
from atemporal.errors import Invalid
from atemporal.identity.signer import CERTIFICATE, IdentitySigner
from atemporal.model import AttemptRef
from atemporal.settings import load
from atemporal.states import Reason
from atemporal.store import attempts, groups, launches
from services.api.machines import Doorkeeper
from tests.api import KEYS, Api, bearer, serving, token_of
from tests.launches import LAUNCH

ACCOUNT = "123456789012"
_KEYS = {"k1": KEYS.removeprefix("k1:").encode()}


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> IdentitySigner:
    return IdentitySigner(tmp_path_factory.mktemp("twin"))


@pytest.fixture(scope="module")
def api(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    directory = tmp_path_factory.mktemp("trusted")
    IdentitySigner(directory)
    settings = {"identity_certificates": str(directory / CERTIFICATE), "aws_account_id": ACCOUNT}
    with serving(database_url, **settings) as served:
        served.signer = IdentitySigner(directory)  # type: ignore[attr-defined]
        yield served


@pytest.fixture(scope="module")
def trusting(database_url: str) -> Iterator[Api]:
    """An API that believes machines."""
    with serving(database_url, instance_identity="off") as served:
        yield served


def document(api: Api, instance_id: str, **stated: Any) -> str:
    """What EC2 says of an instance, signed."""
    saying = {
        "instanceId": instance_id,
        "region": "us-east-1",
        "accountId": ACCOUNT,
        "pendingTime": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        **stated,
    }
    signer: IdentitySigner = api.signer  # type: ignore[attr-defined]
    return signer.sign(json.dumps(saying).encode()).decode()


class Group:
    """A group whose call is answered, or not yet."""

    def __init__(self, api: Api, many: int = 2, *, answered: bool = True, **fields: Any) -> None:
        """Begin the attempts, and ask for their instances."""
        self.api, self.id, self._fields = api, uuid4(), fields
        launch = LAUNCH.model_copy(update={"calls": 0})
        self.refs = [self._queued(number) for number in range(many)]
        self.instances = [f"i-{uuid4().hex[:17]}" for _ in self.refs]
        with api.database.begin() as tx:
            for ref in self.refs:
                assert launches.begin(tx, ref, launch, actor="test")
            assert groups.form(tx, self.id, launch, self.refs) == many
            asked = groups.ask(tx, self.id, launch, at_most=None)
            assert asked is not None
            self._asked = asked[0]
        if answered:
            self.answer()

    def _queued(self, number: int) -> AttemptRef:
        job_id = self.api.submitted(env={"N": str(number)}, **self._fields)
        self.api.emit(job_id)
        return AttemptRef(job_id, 1)

    def answer(self) -> None:
        with self.api.database.begin() as tx:
            given = groups.launched(tx, self.id, self._asked, self.instances, actor="test")
        self.of = {instance_id: ref for ref, instance_id in given.items()}

    def document(self, instance_id: str, **stated: Any) -> str:
        """What EC2 says of an instance, signed."""
        return document(self.api, instance_id, **stated)

    def ask(self, *, token: str | None = None, **body: Any) -> httpx.Response:
        token = token or tokens.mint(_KEYS, "k1", "default", str(self.id), "group")
        return self.api.http.post(f"/groups/{self.id}/machines", json=body, headers=bearer(token))


def _manifest(response: httpx.Response) -> dict[str, str]:
    records = response.content.decode().split("\0")
    return dict(record.split("=", 1) for record in records if record)


def test_each_machine_is_told_its_own_job_and_again_when_it_asks_again(api: Api) -> None:
    group = Group(api, 3)
    texts: dict[str, str] = {}
    for instance_id in [*group.instances, *group.instances]:
        document = group.document(instance_id).replace("\n", "")
        response = group.ask(instance_id=instance_id, identity=document)
        assert response.status_code == 200
        manifest = _manifest(response)
        ref = group.of[instance_id]
        assert manifest["attempt"] == ref.id
        assert manifest["token"] == token_of(ref)
        assert manifest["callback"].endswith(f"/jobs/{ref.job_id}/callback")
        assert texts.setdefault(instance_id, response.text) == response.text
    assert len(set(texts.values())) == 3


def test_what_opens_a_registry_is_told_with_a_job_of_that_registry_and_is_in_nothing_else(
    database_url: str, tmp_path: Path
) -> None:
    auths = {"registry.example.com": {"username": "bond", "password": "sesame-007"}}
    (tmp_path / "config.json").write_text(json.dumps({"auths": auths}))
    auth = base64.b64encode(b"bond:sesame-007").decode()
    file = str(tmp_path / "config.json")
    with serving(database_url, instance_identity="off", registries_file=file) as api:
        for image, opens in (("registry.example.com/app", auth), ("example.org/app", None)):
            group = Group(api, image=image)
            first = group.instances[0]
            answer = group.ask(instance_id=first)
            assert _manifest(answer).get("auth") == opens
            ref = group.of[first]
            for path in (f"/jobs/{ref.job_id}", f"/jobs/{ref.job_id}/events", "/jobs", "/metrics"):
                assert auth not in api.http.get(path).text
                assert "sesame-007" not in api.http.get(path).text


def test_the_job_that_was_told_can_be_claimed_by_that_instance_alone(api: Api) -> None:
    group = Group(api)
    first, second = group.instances
    ref = group.of[first]
    assert api.claim(ref, claim="a", instance_id=second).status_code == 422
    assert api.claim(ref, claim="a", instance_id=first).status_code == 204


@pytest.mark.parametrize(
    ("stated", "why"),
    [
        ({"instanceId": "i-0123456789abcdef0"}, "shows the document of i-0123456789abcdef0"),
        ({"region": "eu-west-1"}, "is in eu-west-1"),
        ({"accountId": "210987654321"}, "account 210987654321's"),
        ({"pendingTime": "2020-01-01T00:00:00Z"}, "was launched before it was asked for"),
        ({"pendingTime": "soon"}, "is no instance identity document"),
    ],
)
def test_a_document_of_another_instance_is_refused_and_counted(
    api: Api, stated: dict[str, str], why: str
) -> None:
    group = Group(api)
    instance_id = group.instances[0]
    before = _unproven()
    response = group.ask(instance_id=instance_id, identity=group.document(instance_id, **stated))
    assert response.status_code == 403
    assert why in response.json()["error"]
    assert _unproven() == (before or 0) + 1


def test_the_document_of_another_machine_of_the_group_gives_no_second_job(api: Api) -> None:
    group = Group(api)
    first, second = group.instances
    # It names itself and shows what it has seen of its neighbour.
    response = group.ask(instance_id=first, identity=group.document(second))
    assert response.status_code == 403


@pytest.mark.parametrize("identity", [None, "", "bm8gUEtDUyM3", "x"])
def test_without_a_document_nothing_is_told(api: Api, identity: str | None) -> None:
    group = Group(api)
    response = group.ask(instance_id=group.instances[0], identity=identity)
    assert response.status_code == 403


def test_a_document_that_somebody_else_has_signed_is_refused(
    api: Api, signer: IdentitySigner
) -> None:
    group = Group(api)
    instance_id = group.instances[0]
    stated = {
        "instanceId": instance_id,
        "region": "us-east-1",
        "accountId": ACCOUNT,
        "pendingTime": f"{datetime.now(UTC) + timedelta(seconds=1):%Y-%m-%dT%H:%M:%SZ}",
    }
    forged = signer.sign(json.dumps(stated).encode()).decode()
    assert group.ask(instance_id=instance_id, identity=forged).status_code == 403
    assert group.ask(instance_id=instance_id, identity=group.document(instance_id)).is_success


def test_only_the_groups_token_opens_it(api: Api) -> None:
    group, other = Group(api), Group(api)
    instance_id = group.instances[0]
    body = {"instance_id": instance_id, "identity": group.document(instance_id)}
    of_other = tokens.mint(_KEYS, "k1", "default", str(other.id), "group")
    of_attempt = tokens.mint(_KEYS, "k1", "default", str(group.id))
    for token in ("x", of_other, of_attempt, token_of(group.of[instance_id])):
        assert group.ask(token=token, **body).status_code == 401
    # And the group's is no attempt's.
    mine = tokens.mint(_KEYS, "k1", "default", str(group.id), "group")
    ref = group.of[instance_id]
    refused = api.http.patch(f"/jobs/{ref.job_id}/callback", headers=bearer(mine))
    assert refused.status_code == 401


def test_a_machine_without_a_job_is_refused_for_good(api: Api) -> None:
    group = Group(api)
    surplus = "i-0123456789abcdef0"
    assert group.ask(instance_id=surplus, identity=group.document(surplus)).status_code == 409
    first, _ = group.instances
    with api.database.begin() as tx:
        assert attempts.end(tx, group.of[first], Reason.CANCELLED, actor="test")
    assert group.ask(instance_id=first, identity=group.document(first)).status_code == 409


def test_before_ec2s_answer_is_written_down_it_is_to_ask_again(api: Api) -> None:
    group = Group(api, answered=False)
    first, _ = group.instances
    document = group.document(first)
    early = group.ask(instance_id=first, identity=document)
    assert early.status_code == 503
    assert "ask again" in early.json()["error"]
    group.answer()
    assert group.ask(instance_id=first, identity=document).status_code == 200


@pytest.mark.parametrize("path", [str(UUID(int=9)), "nonsense"])
def test_a_group_that_is_not_there_is_told(api: Api, path: str) -> None:
    token = tokens.mint(_KEYS, "k1", "default", path, "group")
    body = {"instance_id": "i-0123456789abcdef0"}
    answer = api.http.post(f"/groups/{path}/machines", json=body, headers=bearer(token))
    assert answer.status_code == 404


@pytest.mark.parametrize("body", [{"instance_id": "*"}, {"instance_id": 7}, {"identity": 1}])
def test_what_is_no_id_is_refused_as_input(api: Api, body: dict[str, Any]) -> None:
    assert Group(api).ask(**body).status_code == 422


def test_where_no_proof_is_demanded_a_machine_is_believed_and_still_gets_its_own(
    trusting: Api,
) -> None:
    group = Group(trusting)
    for instance_id in group.instances:
        answer = group.ask(instance_id=instance_id)
        assert _manifest(answer)["attempt"] == group.of[instance_id].id
    assert group.ask().status_code == 403
    # What EC2 did not launch for the group has no job, whoever says so.
    assert group.ask(instance_id="i-0123456789abcdef0").status_code == 409


def test_a_deployment_that_demands_what_it_can_not_verify_does_not_start(tmp_path: Path) -> None:
    wrong = {"ec2_endpoint_url": "http://127.0.0.1:1", "callback_keys": KEYS}
    for demand in ({"launch_group_size": 2}, {"identity_certificates": str(tmp_path / "none")}):
        with pytest.raises(Invalid, match="IDENTITY_CERTIFICATES"):
            Doorkeeper(load(**wrong, **demand))
    for right in ({}, {"launch_group_size": 1}, {"instance_identity": "off"}):
        Doorkeeper(load(**wrong, **right))


@pytest.mark.parametrize("own", [{}, {"launch_group_size": 1}, {"aws_account_id": ACCOUNT}])
def test_who_can_verify_no_proof_burns_no_attempt(
    database_url: str, api: Api, own: dict[str, Any]
) -> None:
    """The launcher launches groups, this process of the API has other settings."""
    with (
        structlog.testing.capture_logs() as lines,
        serving(database_url, ec2_endpoint_url="http://127.0.0.1:1", **own) as uncertified,
    ):
        logged = [one for one in lines if "can not be told their jobs" in one["event"]]
        assert [one["log_level"] for one in logged] == ["error"]
        group = Group(api)
        first, _ = group.instances
        body = {"instance_id": first, "identity": group.document(first)}
        token = tokens.mint(_KEYS, "k1", "default", str(group.id), "group")
        answer = uncertified.http.post(
            f"/groups/{group.id}/machines", json=body, headers=bearer(token)
        )
        assert answer.status_code == 503
        assert "ask again" in answer.json()["error"]
    assert group.ask(**body).status_code == 200


def test_who_launches_no_groups_itself_tells_their_machines_all_the_same(
    database_url: str, api: Api, tmp_path: Path
) -> None:
    signer: IdentitySigner = api.signer  # type: ignore[attr-defined]
    own = IdentitySigner(tmp_path)
    api.signer = own  # type: ignore[attr-defined]
    settings = {"identity_certificates": str(tmp_path / CERTIFICATE), "launch_group_size": 1}
    with serving(database_url, **settings) as other:
        group = Group(api)
        first, _ = group.instances
        body = {"instance_id": first, "identity": group.document(first)}
        api.signer = signer  # type: ignore[attr-defined]
        token = tokens.mint(_KEYS, "k1", "default", str(group.id), "group")
        answer = other.http.post(f"/groups/{group.id}/machines", json=body, headers=bearer(token))
        assert answer.status_code == 200


class Lone:
    """An attempt that is launched alone, whose job is delivered by claim."""

    def __init__(self, api: Api, *, answered: bool = True, **fields: Any) -> None:
        """Begin it, and ask for its instance."""
        self.api = api
        self.instance_id = f"i-{uuid4().hex[:17]}"
        job_id = api.submitted(**fields)
        api.emit(job_id)
        self.ref = AttemptRef(job_id, 1)
        launch = LAUNCH.model_copy(update={"delivery": "claim"})
        with api.database.begin() as tx:
            assert launches.begin(tx, self.ref, launch, actor="test")
        if answered:
            self.answer()

    def answer(self) -> None:
        with self.api.database.begin() as tx:
            assert attempts.launched(tx, self.ref, self.instance_id, actor="test")

    @property
    def token(self) -> str:
        return tokens.mint(_KEYS, "k1", "default", self.ref.id, "assignment")

    def ask(
        self, instance_id: str | None = None, *, token: str | None = None, **body: Any
    ) -> httpx.Response:
        instance_id = instance_id or self.instance_id
        saying = {"instance_id": instance_id, "identity": document(self.api, instance_id)}
        path = f"/jobs/{self.ref.job_id}/attempts/{self.ref.number}/machine"
        token = token or self.token
        return self.api.http.post(path, json={**saying, **body}, headers=bearer(token))


class TestLone:
    def test_it_is_told_its_job_with_secrets_and_its_own_token_and_again(self, api: Api) -> None:
        lone = Lone(api, env={"A": "1"}, secrets={"B": "hush\nhush"})
        for _ in range(2):
            answer = lone.ask()
            assert answer.status_code == 200
            records = answer.content.decode().split("\0")
            assert {"env=A=1", "env=B=hush\nhush", f"attempt={lone.ref.id}"} <= set(records)
            assert _manifest(answer)["token"] == token_of(lone.ref)

    def test_once_claimed_nobody_is_told_any_more(self, api: Api) -> None:
        lone = Lone(api, secrets={"B": "hush"})
        assert lone.ask().status_code == 200
        assert api.claim(lone.ref, claim="a", instance_id=lone.instance_id).is_success
        second_boot = lone.ask()
        assert second_boot.status_code == 409
        assert "hush" not in second_boot.text

    def test_one_that_has_ended_is_told_no_more(self, api: Api) -> None:
        lone = Lone(api)
        with api.database.begin() as tx:
            assert attempts.end(tx, lone.ref, Reason.CANCELLED, actor="test")
        assert lone.ask().status_code == 409

    def test_before_ec2s_answer_is_written_down_it_is_to_ask_again(self, api: Api) -> None:
        lone = Lone(api, answered=False)
        early = lone.ask()
        assert (early.status_code, early.headers["Retry-After"]) == (503, "2")
        lone.answer()
        assert lone.ask().status_code == 200

    def test_another_instance_is_refused_though_it_proves_what_it_is(self, api: Api) -> None:
        lone, other = Lone(api), Lone(api)
        assert lone.ask(other.instance_id).status_code == 409
        # It names the right one and shows its own document.
        shown = document(api, other.instance_id)
        assert lone.ask(identity=shown).status_code == 403

    def test_only_its_own_token_for_this_asking_opens_it(self, api: Api) -> None:
        lone, other = Lone(api), Lone(api)
        as_group = tokens.mint(_KEYS, "k1", "default", lone.ref.id, "group")
        for token in ("x", other.token, token_of(lone.ref), as_group):
            assert lone.ask(token=token).status_code == 401
        path = f"/jobs/{lone.ref.job_id}/callback"
        assert api.http.patch(path, headers=bearer(lone.token)).status_code == 401

    def test_without_a_proof_nothing_is_told(self, api: Api) -> None:
        assert Lone(api).ask(identity=None).status_code == 403
        old = document(api, (lone := Lone(api)).instance_id, pendingTime="2020-01-01T00:00:00Z")
        assert lone.ask(identity=old).status_code == 403

    def test_where_no_proof_is_demanded_it_is_believed(self, trusting: Api, api: Api) -> None:
        trusting.signer = api.signer  # type: ignore[attr-defined]
        lone = Lone(trusting)
        assert lone.ask(identity=None).status_code == 200
        assert lone.ask("i-0123456789abcdef0", identity=None).status_code == 409

    @pytest.mark.parametrize("path", [f"{UUID(int=9)}/attempts/1", "x/attempts/1", "x/attempts/y"])
    def test_an_attempt_that_is_not_there_is_told(self, api: Api, path: str) -> None:
        token = tokens.mint(_KEYS, "k1", "default", path.replace("/attempts/", "."), "assignment")
        answer = api.http.post(f"/jobs/{path}/machine", json={}, headers=bearer(token))
        assert answer.status_code == 404


def test_the_machine_of_a_group_is_told_no_more_once_its_attempt_is_claimed(api: Api) -> None:
    group = Group(api)
    first, second = group.instances
    ref = group.of[first]
    assert group.ask(instance_id=first, identity=group.document(first)).status_code == 200
    assert api.claim(ref, claim="a", instance_id=first).is_success
    refused = group.ask(instance_id=first, identity=group.document(first))
    assert refused.status_code == 409
    assert "has been claimed" in refused.json()["error"]
    assert group.ask(instance_id=second, identity=group.document(second)).status_code == 200


def _unproven() -> float | None:
    return REGISTRY.get_sample_value("atemporal_assignments_total", {"result": "unproven"})
