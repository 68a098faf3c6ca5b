"""Two servers that speak EC2's protocol: moto's, which others wrote, and the project's own twin.

The same tests run on both, so that the twin does not only agree with its own authors. The servers
are shared by all tests: each test has a deployment of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import boto3
import pytest
from moto.ec2.models import ec2_backends
from moto.server import ThreadedMotoServer

from atemporal.cloud import Cloud
from atemporal.model import AttemptRef, Launch
from atemporal.settings import Settings
from atemporal.twin.catalogue import IMAGES
from atemporal.twin.server import Twin

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

REGION = "us-east-1"
MOTO_ACCOUNT = "123456789012"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    "MOTO_EC2_LOAD_DEFAULT_AMIS": "false",
}


@pytest.fixture(scope="session", autouse=True)
def _environment() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    """moto's server, knowing images of Flatcar's publisher and of others."""
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    backend = ec2_backends[MOTO_ACCOUNT][REGION]
    for listed in IMAGES:
        image = backend.register_image(listed["name"])
        image.owner_id = listed["imageOwnerId"]
        image.architecture = listed["architecture"]
        image.creation_date = datetime.fromisoformat(listed["creationDate"])
        image.root_device_name = "/dev/xvda"
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="session")
def twin_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The twin; its machines run as processes of this host."""
    directory: Path = tmp_path_factory.mktemp("twin")
    twin = Twin(directory, engine="process")
    twin.start()
    yield twin.url
    twin.stop()


@pytest.fixture(scope="session")
def endpoint(request: pytest.FixtureRequest) -> str:
    """The server under test: each test module says which ones."""
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture(scope="session")
def ec2(endpoint: str) -> Iterator[EC2Client]:
    """boto3 as anyone would use it."""
    client = boto3.session.Session().client("ec2", region_name=REGION, endpoint_url=endpoint)
    yield client
    client.close()


@pytest.fixture
def cloud(endpoint: str) -> Iterator[Cloud]:
    """The product's own view, of a deployment that no other test shares."""
    settings = Settings(
        region=REGION, ec2_endpoint_url=endpoint, deployment=f"t-{uuid4().hex[:20]}"
    )
    with Cloud(settings) as cloud:
        yield cloud
        cloud.terminate(instance.id for instance in cloud.all())


@pytest.fixture
def launch(cloud: Cloud) -> Launch:
    """An ordinary intent."""
    return Launch(
        image_id=cloud.resolve_image(),
        instance_type="t3.small",
        callback_base="http://127.0.0.1:9",
        key_id="k1",
        deadline_s=600,
    )


@pytest.fixture
def new_ref() -> Callable[[], AttemptRef]:
    """Makes first attempts of new jobs."""
    return lambda: AttemptRef(uuid4(), 1)
