"""The processes of a chaos run: replicas of each daemon, an API, a twin, a Postgres and a RabbitMQ."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import httpx

from atemporal import migrations
from atemporal.identity.signer import CERTIFICATE
from atemporal.store.database import Database
from tests.chaos.bills import PRICES
from tests.servers.ports import free_port
from tests.servers.postgres import open_postgres
from tests.servers.rabbitmq import open_rabbitmq

T = TypeVar("T")
# How long an answer may take to come, restarts and all.
ANSWER_S = 120.0
KEY = "k1:0123456789abcdef0123456789abcdef"
REPLICAS = {"scheduler": 2, "launcher": 2, "reaper": 2, "api": 1}
# Short enough for a chaos run of minutes, in the proportions of the defaults.
SETTINGS = {
    "ATEMPORAL_CALLBACK_KEYS": KEY,
    "ATEMPORAL_IMAGE_ID": "ami-12345678",
    "ATEMPORAL_POLL_INTERVAL_S": "0.3",
    "ATEMPORAL_SWEEP_INTERVAL_S": "2",
    "ATEMPORAL_STALE_AFTER_S": "4",
    "ATEMPORAL_CLOUD_GRACE_S": "20",
    "ATEMPORAL_LAUNCH_DEADLINE_S": "120",
    "ATEMPORAL_BOOT_DEADLINE_S": "25",
    "ATEMPORAL_PULL_DEADLINE_S": "25",
    "ATEMPORAL_STOP_DEADLINE_S": "30",
    "ATEMPORAL_MACHINE_SLACK_S": "30",
    "ATEMPORAL_CAPACITY_COOLDOWN_S": "2",
    "ATEMPORAL_QUOTA_COOLDOWN_S": "2",
    "ATEMPORAL_SPOT_PAUSE_S": "5",
    "ATEMPORAL_RUN_INSTANCES_RATE": "20",
    "ATEMPORAL_INSTANCE_TYPE": "t3.small",
    "ATEMPORAL_LOG_FORMAT": "json",
}


class Fleet:
    """Everything that runs, by name; each replica can be killed and paused on its own."""

    def __init__(
        self,
        directory: Path,
        rng: random.Random,
        *,
        settings: Mapping[str, str] = SETTINGS,
        twin: Sequence[str] = (),
    ) -> None:
        """Start the servers, the twin and every replica; `twin` are more of its options."""
        self.directory = directory
        self.rng = rng
        # The servers end with the thread that started them, so one that lives long has to do it.
        self._keeper = ThreadPoolExecutor(1, thread_name_prefix="keeper")
        self.postgres = self.keep(open_postgres)
        self.rabbitmq = self.keep(open_rabbitmq)
        self.database_url = self.postgres.create_database()
        self.broker_url = self.rabbitmq.create_vhost()
        migrations.upgrade(self.database_url)
        self.database = Database(self.database_url, pool_size=4)
        self.twin_port = free_port()
        self.twin_url = f"http://127.0.0.1:{self.twin_port}"
        self.api_port = free_port()
        self.api_url = f"http://127.0.0.1:{self.api_port}"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._lock = threading.RLock()
        self._twin_options = tuple(twin)
        prices = directory / "prices.csv"
        prices.write_text(PRICES)
        self.env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
            **settings,
            "ATEMPORAL_DATABASE_URL": self.database_url,
            "ATEMPORAL_BROKER_URL": self.broker_url,
            "ATEMPORAL_CALLBACK_URL": self.api_url,
            "ATEMPORAL_API_PORT": str(self.api_port),
            "ATEMPORAL_PRICES_FILE": str(prices),
            "AWS_ENDPOINT_URL_EC2": self.twin_url,
            "ATEMPORAL_IDENTITY_CERTIFICATES": str(directory / "twin" / CERTIFICATE),
            "AWS_ACCESS_KEY_ID": "chaos",
            "AWS_SECRET_ACCESS_KEY": "chaos",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        self.start("twin")
        for name in self.replicas:
            self.start(name)

    def keep(self, do: Callable[[], T]) -> T:
        """Do something about the servers, in the thread that keeps them."""
        return self._keeper.submit(do).result()

    @property
    def replicas(self) -> list[str]:
        """The names of the replicas of daemons and API."""
        return [f"{kind}-{n}" for kind, count in REPLICAS.items() for n in range(count)]

    def start(self, name: str) -> None:
        """Start one process; a twin takes its machines back."""
        kind = name.partition("-")[0]
        argv = [sys.executable, "-m", f"services.{kind}"]
        if kind == "twin":
            argv = [
                *(sys.executable, "-m", "atemporal.twin", "--engine", "process"),
                *("--dir", str(self.directory / "twin"), "--port", str(self.twin_port)),
                *("--seed", str(self.rng.randrange(10**6)), "--kill-after", "2"),
                *self._twin_options,
            ]
        with self._lock, (self.directory / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                argv, env=self.env, stdout=log, stderr=log, start_new_session=True
            )
        if kind == "twin":
            self.wait("the twin answers", lambda: _answers(self.twin_url), 30)

    def kill(self, name: str) -> None:
        """Kill -9 one process and wait for its end."""
        with self._lock:
            process = self._processes.pop(name)
            process.kill()
            process.wait()

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to one process, if it runs."""
        with self._lock:
            process = self._processes.get(name)
            if process is not None and process.poll() is None:
                process.send_signal(number)

    def revive(self) -> None:
        """Start whatever has ended by itself, and let go on whatever is paused."""
        with self._lock:
            for name in ("twin", *self.replicas):
                process = self._processes.get(name)
                if process is None or process.poll() is not None:
                    self.start(name)
                else:
                    process.send_signal(signal.SIGCONT)

    def ask(
        self, method: str, path: str, good: Collection[int], body: Mapping[str, Any] | None = None
    ) -> None:
        """Ask the API until there is an answer: only for what may be asked again.

        Raises:
            TimeoutError: there was none in time; what the API said last is named.
        """
        url, deadline, last = f"{self.api_url}{path}", time.monotonic() + ANSWER_S, ""
        while time.monotonic() < deadline:
            try:
                answer = httpx.request(method, url, json=body, timeout=5)
            except httpx.HTTPError as error:
                last = repr(error)
            else:
                if answer.status_code in good:
                    return
                last = f"{answer.status_code} {answer.text}"
            threading.Event().wait(0.3)
        raise TimeoutError(f"{method} {path}: {last}")

    def wait(self, what: str, condition: object, within_s: float) -> None:
        """Poll a condition.

        Raises:
            TimeoutError: it did not hold in time.
        """
        assert callable(condition)
        deadline = time.monotonic() + within_s
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {within_s:.0f} s: {what}")
            time.sleep(0.1)

    def close(self) -> None:
        """End everything, machines too."""
        for name in self.replicas:
            if name in self._processes:
                self.kill(name)
        self.kill("twin")
        sweeper = subprocess.run(
            [
                *(sys.executable, "-c", _POWER_OFF, str(self.directory / "twin")),
                str(self.twin_port),
            ],
            env=self.env,
            check=False,
            capture_output=True,
            timeout=60,
        )
        if sweeper.returncode:
            print(sweeper.stderr.decode(), file=sys.stderr)
        self.database.dispose()
        self.keep(self.rabbitmq.close)
        self.keep(self.postgres.close)
        self._keeper.shutdown()


_POWER_OFF = """
import sys
from pathlib import Path
from atemporal.twin.server import Twin
twin = Twin(Path(sys.argv[1]), engine="process", port=int(sys.argv[2]))
twin.start()
twin.stop(power_off=True)
"""


def _answers(url: str) -> bool:
    try:
        httpx.get(url, timeout=2)
    except httpx.TransportError:
        return False
    return True
