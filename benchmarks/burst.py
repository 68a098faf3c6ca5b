"""How long EC2 takes to launch jobs of one shape that are due at once, under AWS's default limits.

The twin stands for EC2, with the token buckets that AWS publishes (five RunInstances at once and two a
second, a thousand instances at once and two a second). The launcher is the product's own, over a real
Postgres; the jobs are in the tables and their messages are taken for read. The twin's machines are not
executed: a thousand processes would measure this machine. EC2's time (`ec2_s`) is from the first
RunInstances call to the last that EC2 took, and how long an instance is pending after it. What the twin
itself needs for a thousand instances, on the same cores, is in `all_running_s`.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from sqlalchemy import text

from atemporal import migrations
from atemporal.cloud import Cloud
from atemporal.model import parse_spec
from atemporal.settings import load
from atemporal.store import jobs, untagged
from atemporal.store.database import Database
from atemporal.twin.host import Pace
from atemporal.twin.server import Twin
from services.launcher.calls import Calls
from services.launcher.launcher import BATCH, Launcher
from tests.claims import claim_due

# A machine is `running` about so long after its launch; what it does then is not asked here.
PENDING_S = 1.0
PATIENCE_S = 120.0


def burst(
    database_url: str, directory: Path, *, many: int = 1000, group_size: int | None = None
) -> dict[str, Any]:
    """Launch `many` jobs on an empty database; returns seconds, calls and instances.

    `group_size` is `ATEMPORAL_LAUNCH_GROUP_SIZE`, else its default.

    Raises:
        RuntimeError: after two minutes not every job has its one instance.
    """
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        os.environ.setdefault(name, "benchmark")
    migrations.upgrade(database_url)
    database = Database(database_url, pool_size=12)
    twin = Twin(directory, engine="process", pace=Pace(pending_s=PENDING_S), limits="aws").start()
    try:
        twin.faults.add("never-boots")
        settings = load(
            ec2_endpoint_url=twin.url,
            identity_certificates=str(twin.identity_certificates),
            callback_keys="k1:0123456789abcdef0123456789abcdef",
            image_id="ami-12345678",
            **({"launch_group_size": group_size} if group_size else {}),
        )
        with Cloud(settings) as cloud:
            return _measured(twin, database, cloud, Launcher(settings, database, cloud), many)
    finally:
        twin.stop(power_off=True)
        database.dispose()


def _measured(
    twin: Twin, database: Database, cloud: Cloud, launcher: Launcher, many: int
) -> dict[str, Any]:
    with database.begin() as tx:
        for _ in range(many):
            jobs.submit_one(tx, parse_spec({"image": "busybox:1.36"}), actor="benchmark")
    with database.begin() as tx:
        due = claim_due(tx, many, actor="benchmark")
    calls = Calls(launcher)
    begun = time.time()
    deadline = begun + PATIENCE_S
    while due or _waiting(database):
        if time.time() > deadline:
            raise RuntimeError(f"after {PATIENCE_S:.0f} s {_waiting(database)} jobs wait")
        room = min(BATCH, launcher.room())
        batch, due = due[:room], due[room:]
        calls.make(launcher.begin(batch) if batch else launcher.unfinished())
        if not batch:
            time.sleep(min(0.05, max(0.0, launcher.ready_in())))
    recorded = time.time()
    while any(one.state == "pending" for one in cloud.all()):
        if time.time() > deadline:
            raise RuntimeError("not every instance runs")
    running = time.time()
    asked = [call for call in twin.calls if call["action"] == "RunInstances"]
    launched = {one for call in asked if call["code"] == "OK" for one in call["instances"]}
    with database.begin() as tx:
        owned = set(tx.scalars(text("SELECT instance_id FROM attempts")))
        still_untagged = len(untagged.find(tx, limit=many))
    if owned != launched or len(owned) != many:
        raise RuntimeError(f"{many} jobs, {len(owned)} with an instance, {len(launched)} launched")
    first = min(call["at"] for call in asked)
    return {
        "jobs": many,
        "run_instances_calls": len(asked),
        "refused_calls": sum(call["code"] != "OK" for call in asked),
        "ec2_s": round(max(call["at"] for call in asked) - first + PENDING_S, 2),
        "all_running_s": round(running - first, 2),
        "first_call_after_s": round(first - begun, 2),
        "recorded_after_s": round(recorded - begun, 2),
        "pending_s": PENDING_S,
        "still_untagged": still_untagged,
        "machines": "not executed",
    }


def _waiting(database: Database) -> int:
    query = text("SELECT count(*) FROM attempts WHERE state = 'launching'")
    with database.begin() as tx:
        return int(tx.scalar(query) or 0)
