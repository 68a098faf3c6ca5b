"""The user-data that the product renders, executed by a machine of the twin, on its own."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import pytest

from atemporal import userdata
from atemporal.model import AttemptRef, ExitRecord, JobSpec, Launch
from atemporal.twin.catalogue import IMAGES
from atemporal.twin.server import Twin
from cloud_config.cloud_init import AMAZON_LINUX, DEBIAN, UBUNTU
from cloud_config.flatcar import FLATCAR
from cloud_config.ignition import FCOS, FLATCAR_IGNITION
from cloud_config.os_family import OsFamily

TOKEN = "k1.token"
VALUE = "line 1\nline 2 \"quoted\" 'x' $HOME %n \\ é\n"


class Callback(http.server.ThreadingHTTPServer):
    """An API that takes the callbacks of machines, or refuses them."""

    daemon_threads = True

    def __init__(self, status: int) -> None:
        self.status = status
        self.calls: list[tuple[str, str, dict[str, Any]]] = []
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Callback

    def do_PATCH(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        token = self.headers["Authorization"].removeprefix("Bearer ")
        self.server.calls.append((self.command, token, body))
        self.send_response(self.server.status)
        self.end_headers()

    do_PUT = do_DELETE = do_PATCH

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
        """Quiet."""


@pytest.fixture(params=[204])
def callback(request: pytest.FixtureRequest) -> Iterator[Callback]:
    server = Callback(request.param)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def image_of(family: OsFamily) -> str:
    """An image of the family, as the twin lists it."""
    return next(
        str(image["imageId"])
        for image in IMAGES
        if family.has_image(owner=image["imageOwnerId"], name=image["name"])
        and image["architecture"] == "x86_64"
    )


def execute(
    directory: Path,
    callback: Callback,
    command: tuple[str, ...],
    *,
    family: OsFamily = FLATCAR,
    image: OsFamily | None = None,
    env: dict[str, str] | None = None,
) -> tuple[str, str]:
    """Run a job's user-data to the end of its instance; return its id and its console.

    The user-data is of the family, the image of that or of another one.
    """
    ref = AttemptRef(uuid4(), 1)
    launch = Launch(
        image_id=image_of(image or family),
        os_family=family.name,
        instance_type="t3.small",
        callback_base=f"http://127.0.0.1:{callback.server_address[1]}",
        key_id="k1",
        deadline_s=60,
    )
    spec = JobSpec(image="any/image", command=command, env=env or {"VALUE": VALUE})
    with Twin(directory, engine="process") as twin:
        ec2 = boto3.client(
            "ec2",
            endpoint_url=twin.url,
            region_name="us-east-1",
            aws_access_key_id="any",
            aws_secret_access_key="any",
        )
        launched = ec2.run_instances(
            ImageId=launch.image_id,
            InstanceType="t3.small",
            MinCount=1,
            MaxCount=1,
            UserData=userdata.render(ref, spec, launch, TOKEN).decode(),
            InstanceInitiatedShutdownBehavior="terminate",
        )
        instance_id = launched["Instances"][0]["InstanceId"]
        deadline = time.monotonic() + 30
        while True:
            found = ec2.describe_instances(InstanceIds=[instance_id])
            instance = found["Reservations"][0]["Instances"][0]
            if instance["State"]["Name"] == "terminated":
                break
            assert time.monotonic() < deadline, ec2.get_console_output(InstanceId=instance_id)
            time.sleep(0.02)
        assert instance["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"
        console = ec2.get_console_output(InstanceId=instance_id)["Output"]
        ec2.close()
    return instance_id, console


@pytest.mark.parametrize("family", userdata.OS_FAMILIES.values(), ids=lambda one: one.name)
def test_the_end_of_a_job_is_on_the_console_and_called_back(
    tmp_path: Path, callback: Callback, family: OsFamily
) -> None:
    command = ("sh", "-c", 'printf %s "$VALUE"; exit 7')

    instance_id, console = execute(tmp_path, callback, command, family=family)

    assert [(method, token) for method, token, _ in callback.calls] == [
        ("PUT", TOKEN),
        ("PATCH", TOKEN),
        ("DELETE", TOKEN),
    ]
    claim, report = callback.calls[1][2], callback.calls[2][2]
    record = ExitRecord.model_validate(report)
    assert (record.phase, record.exit_code) == ("run", 7)
    assert record.log_tail.decode() == VALUE
    assert record.instance_id == claim["instance_id"] == instance_id
    assert record.claim == claim["claim"]
    assert "atemporal-exit" in console
    assert "the image docker.io/any/image:latest is not run" in console


def test_an_environment_that_travels_compressed_arrives_byte_for_byte(
    tmp_path: Path, callback: Callback
) -> None:
    env = {f"V{number:03}": VALUE * 3 for number in range(100)}
    shown = tmp_path / "shown"
    execute(tmp_path / "twin", callback, ("sh", "-c", f"env >{shown}"), env=env)
    text = shown.read_text()
    assert all(f"{name}={value}" in text for name, value in env.items())


@pytest.mark.parametrize(
    ("family", "image"),
    [(FLATCAR, DEBIAN), (DEBIAN, FLATCAR), (UBUNTU, FLATCAR)],
    ids=lambda one: one.name,
)
def test_an_image_of_another_family_powers_off_where_it_can(
    tmp_path: Path, callback: Callback, family: OsFamily, image: OsFamily
) -> None:
    ran = tmp_path / "ran"
    execute(tmp_path / "twin", callback, ("touch", str(ran)), family=family, image=image)
    assert callback.calls == []
    assert not ran.exists()


@pytest.mark.parametrize(
    ("family", "image"), [(FCOS, FLATCAR), (FLATCAR_IGNITION, FCOS), (DEBIAN, AMAZON_LINUX)]
)
def test_an_image_that_boots_alike_runs_the_job(
    tmp_path: Path, callback: Callback, family: OsFamily, image: OsFamily
) -> None:
    execute(tmp_path, callback, ("true",), family=family, image=image)
    assert [method for method, _, _ in callback.calls] == ["PUT", "PATCH", "DELETE"]


@pytest.mark.parametrize("callback", [409], indirect=True)
def test_a_job_that_is_refused_its_claim_never_runs(tmp_path: Path, callback: Callback) -> None:
    ran = tmp_path / "ran"

    execute(tmp_path / "twin", callback, ("touch", str(ran)))

    # It is refused when it says that it is ready.
    assert [method for method, _, _ in callback.calls] == ["PUT"]
    assert not ran.exists()
