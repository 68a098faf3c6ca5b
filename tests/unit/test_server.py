"""What a server of the Terraform files does: `/opt/atemporal/server`; docker is a stand-in."""

from __future__ import annotations

import json
import os
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from atemporal.cloud.service_model import session
from tests.stand_ins import StandIns

SCRIPT = Path(__file__).parents[2] / "deploy" / "terraform" / "server" / "server"
IMAGE = "111122223333.dkr.ecr.eu-central-1.amazonaws.com/atemporal:1.0"
CREDENTIALS = '{"Version": 1, "AccessKeyId": "a", "SecretAccessKey": "b", "SessionToken": "c"}'
ENV = """AWS_CLI="aws-cli:2"
AWS_REGION="eu-central-1"
DAEMONS="api launcher reaper scheduler"
DEPLOYMENT="prod"
LOG_GROUP="/atemporal/prod"
PORT_api="8080"
PORT_launcher="9102"
PORT_reaper="9103"
PORT_scheduler="9101"
REGISTRY="111122223333.dkr.ecr.eu-central-1.amazonaws.com"
ROLE_launcher="arn:aws:iam::111122223333:role/atemporal-prod-launcher"
ROLE_reaper="arn:aws:iam::111122223333:role/atemporal-prod-reaper"
"""


class Server:
    """A folder in the place of a server's root, and its programs."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root"
        (self.root / "etc" / "atemporal").mkdir(parents=True)
        (self.root / "etc" / "atemporal" / "server.env").write_text(ENV)
        self.run_folder = self.root / "run" / "atemporal"
        self.programs = StandIns(folder / "programs", "docker", "curl", "systemctl", "hostname")
        self.programs.answers("hostname", "ip-10-40-8-7")
        self.programs.answers("ssm get-parameter", IMAGE)
        self.programs.answers("sts assume-role", CREDENTIALS)
        self.programs.answers("atemporal/prod/stores", "ATEMPORAL_DATABASE_URL=postgresql://x")
        self.programs.answers("atemporal/prod/callback-keys", "ATEMPORAL_CALLBACK_KEYS=k1:x")
        self.programs.answers("ecr get-login-password", "a-password")
        self.programs.answers("docker image inspect", "no such image", code=1)

    def __call__(self, *argv: str) -> subprocess.CompletedProcess[str]:
        path = f"{self.programs.path}:/usr/bin:/bin"
        env = {"PATH": path, "ATEMPORAL_SERVER_ROOT": str(self.root), "ATEMPORAL_READY_S": "0"}
        return subprocess.run(
            [str(SCRIPT), *argv],
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def last_run(self) -> list[str]:
        return [call for call in self.programs.calls if call[:2] == ["docker", "run"]][-1]


@pytest.fixture
def server(tmp_path: Path) -> Server:
    return Server(tmp_path)


def test_prepare_reads_secrets_and_pulls_the_image(server: Server) -> None:
    done = server("prepare", "launcher")
    assert done.returncode == 0, done.stderr
    secrets = server.run_folder / "launcher.env"
    assert secrets.read_text() == (
        "ATEMPORAL_DATABASE_URL=postgresql://x\nATEMPORAL_CALLBACK_KEYS=k1:x\n"
    )
    assert secrets.stat().st_mode & 0o077 == 0
    assert (server.run_folder / "launcher.image").read_text() == f"{IMAGE}\n"
    login, pull = [c for c in server.programs.calls if c[1:2] in (["login"], ["pull"])]
    assert login[-1] == "a-password"
    assert pull == ["docker", "pull", "--quiet", IMAGE]


def test_files_that_settings_name_are_read_by_the_container(server: Server) -> None:
    with (server.root / "etc/atemporal/server.env").open("a") as env:
        env.write('FILES="registries prices"\n')
    server.programs.answers("atemporal/prod/registries", '{"auths": {}}')
    server.programs.answers("atemporal/prod/prices", "kind,price")
    done = server("prepare", "api")
    assert done.returncode == 0, done.stderr
    for name, text in (("registries", '{"auths": {}}'), ("prices", "kind,price")):
        file = server.run_folder / "api" / name
        assert file.read_text().strip() == text
        assert file.stat().st_mode & 0o777 == 0o644


def test_one_that_is_not_there_is_named_and_stops_the_daemon(server: Server) -> None:
    with (server.root / "etc/atemporal/server.env").open("a") as env:
        env.write('FILES="prices"\n')
    server.programs.answers("atemporal/prod/prices", "ResourceNotFoundException", code=254)
    assert server("prepare", "api").returncode != 0


def test_an_image_that_is_there_is_not_pulled(server: Server) -> None:
    server.programs.answers("docker image inspect", "sha256:1")
    assert server("prepare", "launcher").returncode == 0
    assert server.programs.lines("docker pull", "docker login") == []


@pytest.mark.parametrize(("daemon", "role"), [("launcher", True), ("api", False)])
def test_a_daemon_gets_its_own_roles_credentials_or_none(
    daemon: str, role: bool, server: Server
) -> None:
    assert server("prepare", daemon).returncode == 0
    assert (server.run_folder / daemon / "credentials.json").exists() == role
    asked = server.programs.lines("assume-role")
    assert len(asked) == role
    assert all(f"role/atemporal-prod-{daemon} " in line for line in asked)


@pytest.mark.parametrize("which", ["secretsmanager", "prod/stores", "prod/callback-keys"])
def test_secrets_that_can_not_be_read_leave_those_before(server: Server, which: str) -> None:
    assert server("prepare", "api").returncode == 0
    before = (server.run_folder / "api.env").read_text()
    server.programs.answers(which, "access denied", code=254)
    assert server("prepare", "api").returncode != 0
    assert (server.run_folder / "api.env").read_text() == before


def test_a_container_has_no_way_to_the_servers_credentials(server: Server) -> None:
    server("prepare", "reaper")
    assert server("run", "reaper").returncode == 0
    argv = server.last_run()
    assert argv[-2:] == [IMAGE, "reaper"]
    assert "--network" not in argv
    assert "AWS_EC2_METADATA_DISABLED=true" in argv
    assert f"{server.run_folder}/reaper:/run/atemporal:ro" in argv
    assert not [one for one in argv if "launcher" in one]
    assert argv[argv.index("--publish") + 1] == "9103:9103"
    assert "ATEMPORAL_HEALTH_PORT=9103" in argv
    assert "awslogs-stream=reaper/ip-10-40-8-7" in argv
    for safe in ("--read-only", "no-new-privileges", "ALL"):
        assert safe in argv


def test_take_restarts_the_daemon_when_the_image_is_there(server: Server) -> None:
    done = server("take", "scheduler")
    assert done.returncode == 0, done.stderr
    shown = server.programs.lines("docker pull", "systemctl", "curl")
    assert [line.split()[0] for line in shown] == ["docker", "systemctl", "curl"]
    assert shown[1] == "systemctl restart atemporal@scheduler.service"
    assert "http://127.0.0.1:9101/readyz" in shown[2]


def test_take_fails_when_the_daemon_does_not_become_ready(server: Server) -> None:
    server.programs.answers("readyz", "", code=22)
    done = server("take", "scheduler")
    assert done.returncode == 1
    assert f"scheduler is not ready after 0 s with {IMAGE}" in done.stderr


def test_take_leaves_the_daemon_alone_when_there_is_no_image(server: Server) -> None:
    server.programs.answers("docker pull", "manifest unknown", code=1)
    assert server("take", "scheduler").returncode != 0
    assert server.programs.lines("systemctl") == []


@pytest.mark.parametrize(
    ("code", "restarted"), [(0, False), (7, False), (22, True), (28, True), (56, False)]
)
def test_watch_restarts_what_is_stuck_and_nothing_else(
    code: int, restarted: bool, server: Server
) -> None:
    server.programs.answers(":9102/healthz", "", code=code)
    assert server("watch").returncode == 0
    shown = server.programs.lines("systemctl")
    assert shown == ["systemctl restart atemporal@launcher.service"] * restarted


def test_credentials_are_renewed_for_all_that_have_a_role(server: Server) -> None:
    assert server("credentials").returncode == 0
    assert sorted(one.parent.name for one in server.run_folder.glob("*/credentials.json")) == [
        "launcher",
        "reaper",
    ]


def test_a_daemon_takes_new_credentials_from_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the form that the file has: it is read again before they end."""
    file = tmp_path / "credentials.json"
    config = (SCRIPT.parent / "aws-config").read_text()
    assert "/run/atemporal/credentials.json" in config
    (tmp_path / "config").write_text(config.replace("/run/atemporal", str(tmp_path)))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")

    def write(key: str, minutes: int) -> None:
        end = datetime.now(UTC) + timedelta(minutes=minutes)
        document = json.loads(CREDENTIALS) | {"AccessKeyId": key, "Expiration": end.isoformat()}
        file.write_text(json.dumps(document))

    # So near its end that the next look at it asks again.
    write("first", minutes=1)
    credentials = session().get_credentials()
    assert credentials is not None
    write("second", minutes=60)
    assert credentials.get_frozen_credentials().access_key == "second"


def test_credentials_that_can_not_be_had_leave_those_before(server: Server) -> None:
    assert server("credentials").returncode == 0
    server.programs.answers("sts assume-role", "denied", code=254)
    assert server("credentials").returncode != 0
    assert (server.run_folder / "launcher" / "credentials.json").read_text() == f"{CREDENTIALS}\n"


def test_once_runs_a_command_of_the_image(server: Server) -> None:
    assert server("once", "db", "upgrade").returncode == 0
    assert server.last_run()[-3:] == [IMAGE, "db", "upgrade"]


@pytest.mark.parametrize(
    "argv", [[], ["fly"], ["run"], ["run", "cook"], ["take", "a;b"], ["once"]]
)
def test_wrong_usage_is_refused(argv: list[str], server: Server) -> None:
    done = server(*argv)
    assert done.returncode == 1
    assert done.stderr
    assert server.programs.calls == []


def test_it_can_be_executed() -> None:
    assert os.access(SCRIPT, os.X_OK)
