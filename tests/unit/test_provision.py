"""What the tests need is found, installed or named; the machine's own policy is left as it was."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests import provision
from tests.provision import Need
from tests.servers import rabbitmq

MISSING = Need("teleporter", "teleporter-bin", lambda: False, "or walk")


@pytest.fixture
def policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A policy for services in a folder of the test's own."""
    monkeypatch.setattr(provision, "_POLICY", tmp_path / "policy-rc.d")
    monkeypatch.setattr(provision, "_SAVED_POLICY", tmp_path / "policy-rc.d.saved")
    return tmp_path / "policy-rc.d"


def test_what_is_missing_is_named_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    monkeypatch.setattr(provision, "NEEDS", (MISSING, Need("sh", "dash", lambda: True)))
    assert provision.main([]) == 1
    text = capsys.readouterr().err
    assert "teleporter: install it, or walk" in text
    assert "apt-get install teleporter-bin\n" in text
    assert provision.main(["sh"]) == 0
    assert provision.main(["typo"]) == 2


def test_what_npm_could_not_fetch_is_told_as_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def offline(argv: list[str], **_: object) -> subprocess.CompletedProcess[bytes]:
        return subprocess.CompletedProcess(argv, 1)

    monkeypatch.setattr(shutil, "which", lambda *_, **__: "/usr/bin/npm")
    monkeypatch.setattr(subprocess, "run", offline)
    (tmp_path / "package-lock.json").write_text("{}")
    monkeypatch.setattr(provision, "NEEDS", (provision._npm("left-pad", tmp_path),))
    assert provision.main([]) == 1
    text = capsys.readouterr().err
    assert f"left-pad: run npm ci in {tmp_path} (it needs the network)\n" in text
    assert "install it" not in text
    assert "apt-get" not in text


def test_root_installs_what_is_missing_once(monkeypatch: pytest.MonkeyPatch) -> None:
    installed: list[str] = []
    monkeypatch.setattr(os, "getuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda *_, **__: "/usr/bin/apt-get")
    monkeypatch.setattr(provision, "_install", installed.extend)
    needs = [
        Need("b", "b-bin", lambda: "b-bin" in installed),
        Need("a", "a-bin", lambda: "a-bin" in installed),
    ]
    assert provision.provision(needs) == []
    assert provision.provision(needs) == []
    assert installed == ["a-bin", "b-bin"]


@pytest.mark.parametrize("docker_works", [True, False])
def test_docker_stands_in_for_rabbitmq(
    monkeypatch: pytest.MonkeyPatch, docker_works: bool
) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    monkeypatch.setattr(rabbitmq, "docker_works", lambda: docker_works)
    broker = Need("rabbitmq", "rabbitmq-server", lambda: False)
    assert provision.provision([broker]) == ([] if docker_works else [broker])


@pytest.mark.parametrize("own", [None, "#!/bin/sh\nexit 0\n"])
def test_services_stay_off_and_the_policy_comes_back(policy: Path, own: str | None) -> None:
    if own is not None:
        policy.write_text(own)
    with provision._no_services_started():
        assert "exit 101" in policy.read_text()
        assert os.access(policy, os.X_OK)
    assert (policy.read_text() if policy.exists() else None) == own


def test_a_killed_run_does_not_take_its_policy_for_the_machines(policy: Path) -> None:
    policy.write_text("#!/bin/sh\nexit 0\n")
    killed = provision._no_services_started()
    killed.__enter__()
    with provision._no_services_started():
        assert "exit 101" in policy.read_text()
    assert policy.read_text() == "#!/bin/sh\nexit 0\n"


def test_what_npm_brings_is_fetched_again_when_its_lock_file_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[list[str]] = []

    def ci(argv: list[str], **_: object) -> subprocess.CompletedProcess[bytes]:
        calls.append(argv[1:2])
        (tmp_path / "node_modules").mkdir(exist_ok=True)
        return subprocess.CompletedProcess(argv, 0)

    monkeypatch.setattr(shutil, "which", lambda *_, **__: "/usr/bin/npm")
    monkeypatch.setattr(subprocess, "run", ci)
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    need = provision._npm("left-pad", tmp_path)
    for lock in ("one", "one", "two"):
        (tmp_path / "package-lock.json").write_text(lock)
        assert provision.provision([need]) == []
    assert calls == [["ci"], ["ci"]]
