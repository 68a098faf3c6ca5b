"""Celery: ETA tasks over RabbitMQ, two prefork processes, a prefetch of 100 tasks each.

Tasks of another day are published first, and the worker takes all of them into its memory, as it does
with whatever has an ETA. Each process counts in a file of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from celery import Celery

from benchmarks.peer_runs.drain import print_figures, request

COUNTS = "BENCHMARK_CELERY_COUNTS"
URL = "BENCHMARK_CELERY_URL"
_INTAKE_S = 90.0

app = Celery("benchmarks", broker=os.environ.get(URL, "amqp://"))
app.conf.update(
    task_ignore_result=True,
    worker_prefetch_multiplier=100,
    worker_disable_rate_limits=True,
    worker_send_task_events=False,
    broker_connection_retry_on_startup=True,
    task_default_queue="benchmark",
)
_done: list[Any] = [None, 0]


@app.task(name="handle")  # type: ignore[untyped-decorator]
def handle() -> None:
    """What each task does: it is counted, with the time."""
    if _done[0] is None:
        path = Path(os.environ[COUNTS]) / str(os.getpid())
        _done[0] = os.open(path, os.O_CREAT | os.O_WRONLY)
    _done[1] += 1
    os.pwrite(_done[0], f"{_done[1]:12d}{time.time():24.6f}".encode(), 0)


def _counted(folder: Path) -> tuple[int, float]:
    """How many have run, and when the last did."""
    texts = [text for path in folder.iterdir() if (text := path.read_text())]
    counts = [(int(text[:12]), float(text[12:])) for text in texts]
    return sum(one for one, _ in counts), max((at for _, at in counts), default=0.0)


def _publish(count: int, eta: datetime) -> None:
    with app.producer_pool.acquire(block=True) as producer:
        for _ in range(count):
            handle.apply_async(eta=eta, producer=producer)


def _waiting() -> int:
    """How many messages the queue holds that no worker has taken."""
    with app.connection_for_read() as connection:
        found = connection.default_channel.queue_declare("benchmark", passive=True)
    return int(found.message_count)


def _resident_mb(pid: int) -> float:
    """The memory of the process that holds the tasks."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _main() -> None:
    asked = request()
    app.conf.broker_url = asked.url
    with tempfile.TemporaryDirectory(prefix="atemporal-celery-") as name:
        folder = Path(name)
        env = os.environ | {COUNTS: name, URL: asked.url}
        _publish(asked.future, datetime.now(UTC) + timedelta(days=30))
        argv = [sys.executable, "-m", "celery", "-A", "benchmarks.peer_runs.celery", "worker"]
        argv += ["--pool", "prefork", "--concurrency", "2", "--loglevel", "ERROR"]
        argv += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        with subprocess.Popen(argv, env=env, stdout=sys.stderr) as running:
            began = time.monotonic()
            while _waiting() and time.monotonic() - began < _INTAKE_S:
                time.sleep(0.2)
            intake_s = time.monotonic() - began
            held = asked.future - _waiting()
            at = datetime.now(UTC) + timedelta(seconds=5 + asked.due / 1_000)
            _publish(asked.due, at)
            until = at.timestamp() + asked.limit_s
            while _counted(folder)[0] < asked.due and time.time() < until:
                time.sleep(0.05)
            handled, last = _counted(folder)
            mb = _resident_mb(running.pid)
            running.kill()
    seconds = (last if handled >= asked.due else time.time()) - at.timestamp()
    print_figures(handled, seconds, held, intake_s=intake_s, resident_mb=mb)


if __name__ == "__main__":
    _main()
