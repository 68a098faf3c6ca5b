"""A machine whose disk is really full: docker on a small file system, and images that are larger."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from atemporal.causes import cause
from atemporal.states import Outcome, Reason
from tests.e2e.system import System, TwinProcess, instances
from tests.e2e.systemd.engine import Engine, open_engine, open_own_engine, open_registry
from tests.e2e.systemd.images import push_job_image

DISK_MB = 12


@dataclass(frozen=True)
class Site:
    """The machines' docker, whose disk is small, and a registry that it can pull from."""

    engine: Engine
    registry: str


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with (
        open_registry() as registry,
        open_engine() as builder,
        open_own_engine(disk_mb=DISK_MB) as engine,
    ):
        size = 2 * DISK_MB * 1024 * 1024
        push_job_image(builder, registry, name="small")
        push_job_image(builder, registry, name="dense", ballast=random.Random(1).randbytes(size))
        push_job_image(builder, registry, name="hollow", ballast=bytes(size))
        yield Site(engine, registry)


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory, site: Site) -> Iterator[TwinProcess]:
    """A cloud whose machines have this docker."""
    host = f"unix://{site.engine.socket}"
    twin = TwinProcess(tmp_path_factory.mktemp("twin"), engine="docker", DOCKER_HOST=host)
    yield twin
    twin.close()


@pytest.mark.parametrize(
    ("image", "docker_says"),
    [
        # What is downloaded does not fit, or fits and does not when it is unpacked.
        ("dense", "no space left on device"),
        ("hollow", "failed to register layer"),
    ],
)
def test_a_really_full_disk_costs_one_machine_and_says_what_to_do(
    site: Site, system: System, twin: TwinProcess, image: str, docker_says: str
) -> None:
    before = len(instances(twin.url))
    job_id = system.submit("true", image=f"{site.registry}/test/{image}:1", backoff_s=0)
    job = system.wait_closed(job_id, 240)
    assert (job.outcome, job.reason) == (Outcome.FAILED, Reason.IMAGE_REFUSED), system.logs()
    (attempt,) = job.attempts
    assert len(instances(twin.url)) == before + 1, "another machine was paid for"
    assert cause(attempt).endswith("disk: give the job a larger one (disk_gb)")
    log = (attempt.log_tail or b"").decode()
    assert docker_says in log
    assert "no space left on device" in log


def test_what_fits_on_the_same_disk_runs(site: Site, system: System) -> None:
    job_id = system.submit("sh", "-c", "exit 7", image=f"{site.registry}/test/small:1")
    job = system.wait_closed(job_id, 240)
    assert job.exit_code == 7, system.logs()
