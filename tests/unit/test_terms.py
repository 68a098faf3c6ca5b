"""What a deployment can not do for a job is refused at every door, saying what to set."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from atemporal.errors import Invalid
from atemporal.identity.signer import CERTIFICATE, IdentitySigner
from atemporal.model import parse_spec
from atemporal.settings import load
from atemporal.terms import Terms
from tests.api import Api, serving

# Not AWS's, and nobody names its certificate.
UNKNOWN = {"ec2_endpoint_url": "http://127.0.0.1:1"}
BY_CLAIM: list[tuple[str, dict[str, Any]]] = [
    ("secrets", {"secrets": {"A": "hush"}}),
    ("delivery", {"delivery": "claim"}),
    ("env", {"env": {"A": random.Random(7).randbytes(15_000).hex()}}),
]


@pytest.fixture(scope="module")
def api(database_url: str) -> Iterator[Api]:
    with serving(database_url, **UNKNOWN) as served:
        yield served


@pytest.mark.parametrize(("field", "wish"), BY_CLAIM)
class TestClaims:
    def test_where_no_machine_can_prove_itself_it_is_refused(
        self, field: str, wish: dict[str, Any]
    ) -> None:
        with pytest.raises(Invalid) as refused:
            Terms.of(load(**UNKNOWN)).check(parse_spec({"image": "a", **wish}), within="job.")
        assert list(refused.value.fields) == [f"job.{field}"]
        why = str(refused.value)
        assert "ATEMPORAL_IDENTITY_CERTIFICATES" in why
        assert "ATEMPORAL_INSTANCE_IDENTITY=off" in why
        assert "hush" not in why

    def test_where_machines_can_or_need_not_it_is_taken(
        self, tmp_path: Path, field: str, wish: dict[str, Any]
    ) -> None:
        IdentitySigner(tmp_path)
        for able in (
            {},
            {**UNKNOWN, "instance_identity": "off"},
            {**UNKNOWN, "identity_certificates": str(tmp_path / CERTIFICATE)},
        ):
            Terms.of(load(**able)).check(parse_spec({"image": "a", **wish}))

    def test_every_call_of_the_api_asks(self, api: Api, field: str, wish: dict[str, Any]) -> None:
        job = {"image": "busybox", **wish}
        nightly = {"name": f"with-{field}", "cron": "@daily", "job": {"image": "busybox"}}
        assert api.http.post("/schedules", json=nightly).is_success
        edit = {"job": wish}
        for path, method, body, name in (
            ("/jobs", "POST", job, field),
            ("/schedules", "POST", {**nightly, "name": "other", "job": job}, f"job.{field}"),
            (f"/schedules/with-{field}", "PATCH", edit, f"job.{field}"),
        ):
            answer = api.http.request(method, path, json=body)
            assert answer.status_code == 422, (path, answer.text)
            assert name in answer.json()["fields"]
        batch = api.http.post("/jobs:batch", content=json.dumps(job))
        assert batch.status_code == 422
        assert "ATEMPORAL_IDENTITY_CERTIFICATES" in batch.text
        # Nothing has come of it.
        shown = api.http.get(f"/schedules/with-{field}").json()
        assert shown["version"] == 1
        assert api.http.get("/jobs").json()["total"] == 0


@pytest.mark.parametrize("reference", ["ssm:/team/password", "secretsmanager:password"])
def test_a_secret_by_reference_wants_instances_with_a_role(reference: str) -> None:
    spec = parse_spec({"image": "a", "secret_refs": {"A": reference}})
    for none in ({}, {"instance_profile": ""}):
        with pytest.raises(Invalid) as refused:
            Terms.of(load(region="eu-central-1", **none)).check(spec)
        assert "ATEMPORAL_INSTANCE_PROFILE" in refused.value.fields["secret_refs"]
    Terms.of(load(region="eu-central-1", instance_profile="jobs")).check(spec)


def test_what_is_inline_is_taken_everywhere() -> None:
    Terms.of(load(**UNKNOWN)).check(parse_spec({"image": "a", "env": {"A": "1"}}))
