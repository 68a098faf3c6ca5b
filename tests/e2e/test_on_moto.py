"""One job from submit to closed, through real processes, on moto's server."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from moto.server import ThreadedMotoServer

from atemporal.states import JobState, Outcome
from tests.e2e.system import SERVICES, System, ec2, instances


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    # Its first launch loads all it knows and takes seconds; a launch that times out is repeated with
    # the same token, which moto would take for another.
    ec2(url).run_instances(ImageId="ami-12345678", MinCount=1, MaxCount=1)
    yield url
    server.stop()


def test_on_moto(tmp_path: Path, database_url: str, broker_url: str, moto: str) -> None:
    """moto's instances do not boot: the test reads the user-data from EC2 and acts the machine."""
    system = System(
        tmp_path,
        database_url=database_url,
        broker_url=broker_url,
        ec2_url=moto,
        certificates=None,
        ATEMPORAL_STALE_AFTER_S="60",
    )
    try:
        system.start(*SERVICES)
        job_id = system.submit("true")
        system.wait(
            "an instance is written down",
            lambda: any(one.instance_id for one in system.job(job_id).attempts),
        )
        (instance,) = _of_the_deployment(moto)
        manifest = _manifest(moto, instance["InstanceId"])
        bearer = {"Authorization": f"Bearer {manifest['token']}"}
        claim = {"claim": "c-1", "instance_id": instance["InstanceId"]}
        answer = httpx.patch(manifest["callback"], json=claim, headers=bearer)
        assert answer.status_code == 204
        assert system.job(job_id).state is JobState.RUNNING
        record = {"exit_code": 0, "log_tail": base64.b64encode(b"done").decode()}
        answer = httpx.request("DELETE", manifest["callback"], json=record, headers=bearer)
        assert answer.status_code == 204
        job = system.wait_closed(job_id)
        assert job.outcome is Outcome.SUCCEEDED
        assert [one["State"]["Name"] for one in _of_the_deployment(moto)] == ["terminated"]
        tags = {tag["Key"]: tag["Value"] for tag in instance["Tags"]}
        assert tags["Name"] == f"Atemporal - Job {job_id}"
    finally:
        system.close()


def _of_the_deployment(url: str) -> list[Mapping[str, Any]]:
    return [
        one
        for one in instances(url)
        if {"Key": "atemporal:deployment", "Value": "default"} in one.get("Tags", [])
    ]


def _manifest(url: str, instance_id: str) -> dict[str, str]:
    answer = ec2(url).describe_instance_attribute(InstanceId=instance_id, Attribute="userData")
    config = yaml.safe_load(base64.b64decode(answer["UserData"]["Value"]))
    (content,) = [
        one["content"] for one in config["write_files"] if one["path"] == "/etc/atemporal/manifest"
    ]
    records = base64.b64decode(content).decode().split("\0")
    return dict(record.split("=", 1) for record in records if record)
