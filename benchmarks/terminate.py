"""How long from a container's end to TerminateInstances?

A real reaper process, Postgres and RabbitMQ, and the twin, with the buckets that AWS publishes.
Instances are launched and written down as the launcher does it; their machines do not boot, because it
is not they that are measured. Then attempts end one by one (`singles`), or all at once (`burst`): the
end is committed and its message published, as the API does it. The time is from the begin of that
transaction (the database's clock) to the call in the twin's log (the same host's clock).

Not cheated: durable quorum queues, confirmed publishes, fsync as the servers have it; the time counts
from before the message is published.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from boto3.session import Session

from atemporal import migrations, tokens
from atemporal.broker import Link, Outgoing
from atemporal.messages import InstanceExited
from atemporal.model import AttemptRef, ExitRecord, Launch, parse_spec
from atemporal.store import attempts, jobs, launches
from atemporal.store.database import Database
from atemporal.twin.host.pace import Pace
from atemporal.twin.server import Twin
from tests.claims import claim_due
from tests.servers.ports import free_port
from tests.servers.postgres import open_postgres
from tests.servers.rabbitmq import open_rabbitmq

KEY = "k1:0123456789abcdef0123456789abcdef"
_LAUNCH = Launch(
    image_id="ami-12345678",
    instance_type="t3.small",
    callback_base="http://127.0.0.1:9",
    key_id="k1",
    deadline_s=3600,
)


def singles(database_url: str, broker_url: str, *, many: int = 200) -> dict[str, Any]:
    """Ends that come one after the other, 20 a second."""
    return _run(database_url, broker_url, many, pause_s=0.05)


def burst(database_url: str, broker_url: str, *, many: int = 500) -> dict[str, Any]:
    """Ends that come all at once."""
    return _run(database_url, broker_url, many, pause_s=0.0)


def _run(database_url: str, broker_url: str, many: int, *, pause_s: float) -> dict[str, Any]:
    migrations.upgrade(database_url)
    database = Database(database_url)
    link = Link(broker_url, name="benchmark")
    with tempfile.TemporaryDirectory() as folder:
        pace = Pace(pending_s=3600)
        twin = Twin(Path(folder) / "twin", engine="process", pace=pace, limits="aws").start()
        settings = {
            "ATEMPORAL_CALLBACK_KEYS": KEY,
            "ATEMPORAL_DATABASE_URL": database_url,
            "ATEMPORAL_BROKER_URL": broker_url,
            "ATEMPORAL_EC2_ENDPOINT_URL": twin.url,
            "AWS_ACCESS_KEY_ID": "bench",
            "AWS_SECRET_ACCESS_KEY": "bench",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        try:
            running = _launched(database, twin.url, many)
            with _reaper({**os.environ, **settings}, Path(folder) / "reaper.log"):
                for ref in running:
                    _end(database, link, ref)
                    time.sleep(pause_s)
                sent = _sent(twin, set(running.values()))
            calls = [one for one in twin.calls if one["action"] == "TerminateInstances"]
            return _figures(_ended_at(database, running), sent, calls)
        finally:
            link.close()
            twin.stop(power_off=True)
            database.dispose()


def _launched(database: Database, url: str, many: int) -> dict[AttemptRef, str]:
    """So many attempts with their instances, as the launcher writes them down."""
    ec2 = Session().client(
        "ec2",
        region_name="us-east-1",
        endpoint_url=url,
        aws_access_key_id="bench",
        aws_secret_access_key="bench",
    )
    answer = ec2.run_instances(
        ImageId="ami-12345678", InstanceType="t3.small", MinCount=many, MaxCount=many
    )
    ec2.close()
    keys = {"k1": KEY.partition(":")[2].encode()}
    running = {}
    with database.begin() as tx:
        for _ in range(many):
            jobs.submit_one(tx, parse_spec({"image": "busybox"}), actor="benchmark")
        for ref, one in zip(
            claim_due(tx, many, actor="benchmark"), answer["Instances"], strict=True
        ):
            launches.begin(tx, ref, _LAUNCH, actor="benchmark")
            instance_id = running[ref] = one["InstanceId"]
            proof = tokens.prove_instance(keys, "k1", "default", ref.id, instance_id)
            attempts.launched(tx, ref, instance_id, actor="benchmark", proof=proof)
            attempts.claim(tx, ref, claim_id="c", instance_id=instance_id, actor="benchmark")
    return running


def _end(database: Database, link: Link, ref: AttemptRef) -> None:
    record = ExitRecord(exit_code=0)
    with database.begin() as tx:
        attempts.end(tx, ref, record.reason, actor="benchmark", exit_record=record)
    link.publish([Outgoing.of(InstanceExited.of(ref))])


@contextmanager
def _reaper(env: dict[str, str], log: Path) -> Iterator[None]:
    port = free_port()
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "services.reaper"],
            env={**env, "ATEMPORAL_HEALTH_PORT": str(port)},
            stdout=out,
            stderr=out,
        )
    try:
        deadline = time.monotonic() + 60
        while not _ready(f"http://127.0.0.1:{port}/readyz"):
            if time.monotonic() > deadline or process.poll() is not None:
                raise RuntimeError(f"the reaper is not ready: {log.read_text()[-2000:]}")
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait()


def _ready(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def _sent(twin: Twin, ids: set[str]) -> dict[str, float]:
    """When each instance was first named in a call that was not refused."""
    deadline = time.monotonic() + 120
    while True:
        sent: dict[str, float] = {}
        for call in twin.calls:
            if call["action"] == "TerminateInstances" and call["code"] == "OK":
                for one in ids.intersection(call["instances"]):
                    sent.setdefault(one, call["at"])
        if len(sent) == len(ids):
            return sent
        if time.monotonic() > deadline:
            raise RuntimeError(f"{len(ids) - len(sent)} instances were not ended")
        time.sleep(0.2)


def _ended_at(database: Database, running: dict[AttemptRef, str]) -> dict[str, float]:
    with database.begin() as tx:
        found = attempts.many(tx, list(running))
    return {running[ref]: one.exited_at.timestamp() for ref, one in found.items() if one.exited_at}


def _figures(
    ended: dict[str, float], sent: dict[str, float], calls: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    delays = sorted((sent[one] - at) * 1000 for one, at in ended.items())
    return {
        "ends": len(delays),
        "p50_ms": round(statistics.median(delays), 1),
        "p99_ms": round(delays[min(len(delays) - 1, int(len(delays) * 0.99))], 1),
        "max_ms": round(delays[-1], 1),
        "calls": len(calls),
        "refused": sum(call["code"] != "OK" for call in calls),
    }


def main() -> None:
    """Print both, on servers of its own."""
    postgres, rabbitmq = open_postgres(), open_rabbitmq()
    try:
        for one in (singles, burst):
            print(one.__name__, one(postgres.create_database(), rabbitmq.create_vhost()))
    finally:
        rabbitmq.close()
        postgres.close()


if __name__ == "__main__":
    main()
