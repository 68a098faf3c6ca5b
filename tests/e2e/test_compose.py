"""The container image, and the whole system by docker-compose, on a real docker engine.

The image is built from this repository over a base of this machine's own Debian, once; Postgres,
RabbitMQ, Prometheus and Grafana are stand-ins of Debian's packages.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from atemporal import migrations
from deploy.compose import passwords
from deploy.compose.__main__ import compose_words
from tests.e2e.containers.images import ROOT, Images, build_all
from tests.e2e.system import KEY
from tests.e2e.systemd.engine import Engine, open_engine
from tests.servers.ports import free_port

# Building what is in the cache takes a minute; the systems beneath it another two, once.
pytestmark = pytest.mark.timeout(1200)

# What the product adds to its base, with its dependencies: 134 MB.
MOST_MB = 160
PRICES = """item,region,on_demand_usd,spot_usd
t3.small,,0.0208,
gp3,,0.08,
"""
DAEMONS = ("scheduler", "launcher", "reaper", "api")
ALL = (*DAEMONS, "postgres", "rabbitmq", "twin", "prometheus", "grafana")


@dataclass(frozen=True)
class Site:
    """The docker and the images."""

    engine: Engine
    images: Images

    def inspect(self, name: str) -> dict[str, Any]:
        """What docker knows of a container or an image."""
        found: dict[str, Any] = json.loads(self.engine.text("inspect", name))[0]
        return found

    def is_healthy(self, name: str) -> bool:
        """Whether a container's health check says so."""
        status: str = self.inspect(name)["State"]["Health"]["Status"]
        return status == "healthy"

    def run(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[bytes]:
        """Run the product's image as it should be run anywhere; docker's options come first."""
        safely = ("--read-only", "--tmpfs=/tmp", "--cap-drop=ALL")
        return self.engine.run(
            *("run", *safely, "--security-opt=no-new-privileges", *words), check=check
        )


@dataclass(frozen=True)
class Project:
    """A compose project that is up, in a folder of its own; `printed` is by `up`."""

    site: Site
    folder: Path
    printed: str
    ports: dict[str, int]

    def name(self, service: str) -> str:
        """The container of a service."""
        project = passwords.read(self.folder)["COMPOSE_PROJECT_NAME"]
        label = "label=com.docker.compose"
        (found,) = self.site.engine.text(
            *("ps", "--all", "--format={{.Names}}", f"--filter={label}.project={project}"),
            *(f"--filter={label}.service={service}", f"--filter={label}.oneoff=False"),
        ).split()
        return found

    def log(self, service: str) -> str:
        """What a service wrote."""
        done = self.site.engine.run("logs", self.name(service))
        return (done.stdout + done.stderr).decode(errors="replace")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with open_engine() as engine:
        yield Site(engine, build_all(engine, tmp_path_factory.mktemp("base")))


@pytest.fixture(scope="module")
def project(
    site: Site, tmp_path_factory: pytest.TempPathFactory, module_env: pytest.MonkeyPatch
) -> Iterator[Project]:
    module_env.setenv("DOCKER_HOST", f"unix://{site.engine.socket}")
    folder = tmp_path_factory.mktemp("project")
    shutil.copy(ROOT / "docker-compose.yml", folder)
    shutil.copytree(ROOT / "deploy", folder / "deploy")
    ports = {name: free_port() for name in ("API", "PROMETHEUS", "GRAFANA")}
    given = {
        "COMPOSE_PROJECT_NAME": f"test{uuid.uuid4().hex[:8]}",
        "IMAGE": site.images.product,
        "TWIN_IMAGE": site.images.twin,
        **{f"{name.upper()}_IMAGE": image for name, image in site.images.standins.items()},
        **{f"{name}_PORT": str(port) for name, port in ports.items()},
    }
    cloud = folder / "deploy" / "compose" / "twin"
    (cloud / "files" / "prices.csv").write_text(PRICES)
    with (cloud / "settings.env").open("a") as settings:
        settings.write("ATEMPORAL_PRICES_FILE=/etc/atemporal/prices.csv\n")
    (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in given.items()))
    try:
        project = Project(site, folder, _deploy(folder, "up"), ports)
        yield project
        _deploy(folder, "down")
        kept = site.engine.text("volume", "ls", "--quiet")
        assert f"{given['COMPOSE_PROJECT_NAME']}_postgres" in kept
    finally:
        _deploy(folder, "down", "--volumes")


@pytest.fixture(scope="module")
def module_env() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def _deploy(folder: Path, *words: str) -> str:
    """Run `python -m deploy.compose` in the project's folder."""
    done = subprocess.run(
        [sys.executable, "-m", "deploy.compose", *words],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{_logs(folder)}"
    return done.stdout


def _logs(folder: Path) -> str:
    """The end of what every service of a project wrote, for a failed test's reader."""
    compose = [*compose_words(), "logs", "--no-color", "--tail=20"]
    return subprocess.run(compose, cwd=folder, capture_output=True, text=True).stdout


def _wait(what: str, holds: Callable[[], bool], within_s: float = 120) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, f"not within {within_s} s: {what}"
        time.sleep(0.2)


class TestImage:
    """What `docker build` makes."""

    def test_each_daemon_gets_healthy_with_no_rights_at_all_and_stops_in_order(
        self, site: Site, database_url: str, broker_url: str
    ) -> None:
        migrations.upgrade(database_url)
        names = {daemon: f"{daemon}-{uuid.uuid4().hex[:8]}" for daemon in DAEMONS}
        settings = {
            "DATABASE_URL": database_url,
            "BROKER_URL": broker_url,
            "CALLBACK_KEYS": KEY,
            "EC2_ENDPOINT_URL": "http://127.0.0.1:9",
            # The host's network: that of the tests' servers.
            "HEALTH_HOST": "127.0.0.1",
            "API_HOST": "127.0.0.1",
        }
        options = [f"--env=ATEMPORAL_{name}={value}" for name, value in settings.items()]
        try:
            for daemon, name in names.items():
                port = free_port()
                site.run(
                    *("--detach", f"--name={name}", "--network=host", "--health-interval=1s"),
                    *(f"--env=ATEMPORAL_{of}_PORT={port}" for of in ("HEALTH", "API")),
                    *(*options, site.images.product, daemon),
                )
            for daemon, name in names.items():
                _wait(f"{daemon} is healthy", partial(site.is_healthy, name))
                assert site.engine.text("exec", name, "id", "-u") == "10001"
                begun = time.monotonic()
                site.engine.run("stop", "--time=60", name)
                assert site.inspect(name)["State"]["ExitCode"] == 0, daemon
                # Far below the minute after which docker kills; a second here.
                assert time.monotonic() - begun < 30
        finally:
            site.engine.run("rm", "--force", *names.values())

    def test_a_process_that_does_not_answer_is_not_healthy(self, site: Site) -> None:
        check = "--entrypoint=/opt/atemporal/libexec/healthy"
        asked = site.run("--rm", check, site.images.product, check=False)
        assert asked.returncode == 1
        assert b"port 8080: " in asked.stderr

    @pytest.mark.parametrize("words", [["--version"], ["atemporal", "--version"]])
    def test_any_other_word_is_the_command_lines(self, site: Site, words: list[str]) -> None:
        assert b"atemporal, version" in site.run("--rm", site.images.product, *words).stdout

    def test_a_daemon_with_its_options(self, site: Site) -> None:
        shown = site.run("--rm", site.images.product, "reaper", "--help").stdout
        assert b"atemporal-reaper" in shown

    def test_it_says_what_it_is(self, site: Site) -> None:
        labels = site.inspect(site.images.product)["Config"]["Labels"]
        found = {name.rpartition(".")[2]: value for name, value in labels.items()}
        assert found["source"].startswith("https://")
        assert (found["version"], found["revision"]) == ("1.2.3", "abc")

    def test_it_holds_the_product_and_nothing_beside(self, site: Site) -> None:
        find = ("--rm", "--user=0", "--cap-add=DAC_READ_SEARCH", "--entrypoint=find")
        listed = site.run(*find, site.images.product, "/", "-xdev").stdout.decode().splitlines()
        (own,) = [path for path in listed if path.endswith("/site-packages/atemporal")]
        packages = own.rpartition("/")[0]
        assert {f"{packages}/services", f"{packages}/cloud_config"} <= set(listed)
        names = ("/.git", "/.env", "/Dockerfile", "/requirements.lock")
        programs = ("/bin/gcc", "/bin/make", "/bin/curl")
        folders = [f"{packages}/{one}" for one in ("tests", "pip/", "hatchling", "pytest")]
        folders += ["/root/.cache/", "/build"]
        refused = [
            path
            for path in listed
            if path.endswith((*names, *programs)) or path.startswith(tuple(folders))
        ]
        assert refused == []

    def test_it_is_not_much_larger_than_its_base(
        self, site: Site, remark: Callable[[str], None]
    ) -> None:
        base, whole = (
            site.inspect(name)["Size"] / 1e6 for name in (site.images.base, site.images.product)
        )
        remark(f"image: {whole:.0f} MB, of which its base {base:.0f} MB")
        assert whole - base < MOST_MB


class TestProject:
    """What `make compose-up` starts."""

    def test_it_ends_with_one_job_that_succeeded(self, project: Project) -> None:
        assert "succeeded, exit code 0" in project.printed
        assert "job.finished.succeeded" in project.printed

    def test_all_are_healthy_and_none_has_rights_that_it_does_not_need(
        self, project: Project
    ) -> None:
        for service in ALL:
            name = project.name(service)
            # Nobody waits for Grafana.
            if service == "grafana":
                _wait("it is healthy", partial(project.site.is_healthy, name))
            assert project.site.is_healthy(name), service
            found = project.site.inspect(name)
            host = found["HostConfig"]
            assert host["ReadonlyRootfs"], service
            assert host["CapDrop"] == ["ALL"], service
            assert "no-new-privileges:true" in host["SecurityOpt"], service
            assert found["Config"]["User"] not in ("", "0", "root"), service

    def test_files_that_settings_name_are_read(self, project: Project) -> None:
        compose = [*compose_words(), "run", "--rm", "-T", "cli", "cost", "-o", "json"]
        done = subprocess.run(compose, cwd=project.folder, capture_output=True, check=True)
        assert json.loads(done.stdout)["priced"] is True

    def test_nothing_listens_beyond_this_machine(self, project: Project) -> None:
        opened = {
            service: one["HostIp"]
            for service in ALL
            for bound in project.site.inspect(project.name(service))["HostConfig"][
                "PortBindings"
            ].values()
            for one in bound
        }
        assert opened == dict.fromkeys(("api", "prometheus", "grafana"), "127.0.0.1")

    def test_the_api_wants_a_token(self, project: Project) -> None:
        url = f"http://127.0.0.1:{project.ports['API']}"
        assert httpx.get(f"{url}/jobs").status_code == 401
        assert httpx.get(f"{url}/healthz").status_code == 200

    def test_jobs_of_the_twin_see_the_api_and_no_database(self, project: Project) -> None:
        reach = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)"
        twin = ("exec", project.name("twin"), "python", "-c", reach)
        engine = project.site.engine
        assert engine.run(*twin, "api", "8080", check=False).returncode == 0
        assert engine.run(*twin, "postgres", "5432", check=False).returncode == 1

    def test_prometheus_scrapes_every_daemon(self, project: Project) -> None:
        url = f"http://127.0.0.1:{project.ports['PROMETHEUS']}/api/v1"

        def up() -> dict[str, str]:
            targets = httpx.get(f"{url}/targets").json()["data"]["activeTargets"]
            return {one["labels"]["job"]: one["health"] for one in targets}

        _wait("all are up", lambda: up() == {f"atemporal-{name}": "up" for name in DAEMONS})
        assert httpx.get(f"{url}/rules").json()["data"]["groups"]

    def test_rabbitmq_refuses_nobody(self, project: Project) -> None:
        log = project.log("rabbitmq")
        assert {f"user 'atemporal-{name}'" in log for name in DAEMONS} == {True}
        assert "refused" not in log

    def test_passwords_are_the_owners_alone(self, project: Project) -> None:
        env = project.folder / passwords.ENV
        assert env.stat().st_mode & 0o777 == 0o600
        values = passwords.read(project.folder)
        secret = [value for name, value in values.items() if name.endswith("_PASSWORD")]
        assert len(set(secret)) == 7
        definitions = (project.folder / passwords.DEFINITIONS).read_text()
        assert not [one for one in secret if one in definitions]

    def test_it_may_be_started_again(self, project: Project) -> None:
        env = (project.folder / passwords.ENV).read_text()
        again = _deploy(project.folder, "up")
        assert "succeeded, exit code 0" in again
        assert (project.folder / passwords.ENV).read_text() == env
