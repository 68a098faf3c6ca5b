"""The life of each daemon's process: ready, away, back, and a stop that is never held up."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text

from atemporal.tables import REVISION
from tests.e2e.system import DAEMONS, System, TwinProcess
from tests.servers.ports import free_port
from tests.servers.postgres import Postgres
from tests.servers.rabbitmq import RabbitMQ


@pytest.fixture
def daemons(
    tmp_path: Path, database_url: str, broker_url: str, twin: TwinProcess
) -> Iterator[System]:
    system = System(
        tmp_path,
        database_url=database_url,
        broker_url=broker_url,
        ec2_url=twin.url,
        certificates=twin.certificates,
    )
    yield system
    system.close()


@pytest.mark.parametrize("name", DAEMONS)
def test_a_daemon_serves_its_health_and_metrics_and_stops_in_order(
    daemons: System, name: str
) -> None:
    daemons.start(name)
    port = daemons.health_ports[name]
    health = httpx.get(f"http://127.0.0.1:{port}/healthz").json()
    assert health["ok"]
    assert all(loop["last_tick_age_s"] < 60 for loop in health["loops"].values())
    assert "atemporal_ticks_total" in daemons.metrics(name)
    assert httpx.get(f"http://127.0.0.1:{port}/").status_code == 404
    assert daemons.stop(name) < 25


def test_each_starts_without_broker_and_database_stops_without_them_and_recovers(
    daemons: System, postgres_server: Postgres, rabbitmq_server: RabbitMQ
) -> None:
    rabbitmq_server.stop()
    postgres_server.stop()
    try:
        for process in _start_not_ready(daemons, *DAEMONS):
            process.send_signal(signal.SIGTERM)
            assert process.wait(25) == 0
        processes = _start_not_ready(daemons, *DAEMONS)
    finally:
        postgres_server.start()
        rabbitmq_server.start()
    try:
        for name in DAEMONS:
            daemons.wait(f"{name} recovers", partial(daemons.ready, name))
        rabbitmq_server.restart()
        postgres_server.restart()
        for name in DAEMONS:
            daemons.wait(f"{name} recovers again", partial(daemons.ready, name))
    finally:
        for process in processes:
            process.terminate()
        assert [process.wait(25) for process in processes] == [0, 0, 0]


@pytest.mark.parametrize("name", DAEMONS)
def test_a_second_signal_exits_at_once_though_the_broker_is_frozen(
    daemons: System, name: str, rabbitmq_server: RabbitMQ
) -> None:
    daemons.start(name)
    rabbitmq_server.pause()
    try:
        daemons.signal(name, signal.SIGTERM)
        daemons.signal(name, signal.SIGTERM)
        begun = time.monotonic()
        daemons.stop(name)
        assert time.monotonic() - begun < 3
    finally:
        rabbitmq_server.resume()


@pytest.mark.parametrize("name", DAEMONS)
def test_it_waits_for_a_database_of_its_release_and_takes_a_newer_one(
    daemons: System, name: str
) -> None:
    _set_revision(daemons, "0001")
    (process,) = _start_not_ready(daemons, name)
    try:
        log = daemons.directory / f"{name}.log"
        daemons.wait("it says what to do", lambda: "atemporal db upgrade" in log.read_text())
        _set_revision(daemons, "9999")
        daemons.wait(f"{name} is ready", lambda: daemons.ready(name))
    finally:
        process.terminate()
        assert process.wait(25) == 0
        _set_revision(daemons, REVISION)


def _set_revision(system: System, revision: str) -> None:
    with system.database.begin() as tx:
        tx.execute(text("UPDATE alembic_version SET version_num = :to"), {"to": revision})


def test_without_a_callback_key_the_launcher_refuses_to_start(daemons: System) -> None:
    env = {name: value for name, value in daemons.env.items() if "CALLBACK_KEYS" not in name}
    run = subprocess.run(
        [sys.executable, "-m", "services.launcher"], env=env, capture_output=True, timeout=120
    )
    assert run.returncode == 2
    assert b"ATEMPORAL_CALLBACK_KEYS: not set" in run.stderr


def test_a_wrong_setting_is_named(daemons: System) -> None:
    env = {**daemons.env, "ATEMPORAL_POLL_INTERVAL_S": "soon"}
    run = subprocess.run(
        [sys.executable, "-m", "services.scheduler"], env=env, capture_output=True, timeout=120
    )
    assert run.returncode == 2
    assert b"ATEMPORAL_POLL_INTERVAL_S" in run.stderr


def _start_not_ready(system: System, *names: str) -> list[subprocess.Popen[bytes]]:
    """Start daemons whose servers are away; return when each answers that it is not ready."""
    processes = []
    for name in names:
        system.health_ports[name] = free_port()
        env = {**system.env, "ATEMPORAL_HEALTH_PORT": str(system.health_ports[name])}
        with (system.directory / f"{name}.log").open("ab") as log:
            argv = [sys.executable, "-m", f"services.{name}"]
            processes.append(subprocess.Popen(argv, env=env, stderr=log, stdout=log))

    def answers_not_ready(name: str, process: subprocess.Popen[bytes]) -> bool:
        assert process.poll() is None, system.logs()
        try:
            url = f"http://127.0.0.1:{system.health_ports[name]}/readyz"
            return httpx.get(url, timeout=2).status_code == 503
        except httpx.TransportError:
            return False

    for name, process in zip(names, processes, strict=True):
        system.wait(f"{name} answers not ready", partial(answers_not_ready, name, process))
    return processes
