"""Does it cost more when more is scheduled?

The backlog of jobs of another day grows tenfold, step by step, in one table. At each step: the latency
of 100 jobs in five seconds (what a look at the table costs), and the throughput of 5,000 due at once.
"""

from __future__ import annotations

from contextlib import closing

from atemporal.messages import LAUNCH
from benchmarks.dispatch import latency, throughput
from benchmarks.reader import amqp_connection
from benchmarks.wiring import Figures

_FIRST = 1_000


def growing(database_url: str, broker_url: str, most: int = 1_000_000) -> Figures:
    """Latency and throughput for 1,000 jobs of another day and each power of ten up to `most`."""
    found: Figures = {}
    future = _FIRST
    while future <= most:
        soon = latency(database_url, broker_url, jobs=100, over_s=5, future=future)
        many = throughput(database_url, broker_url, due=5_000, future=future)
        found[f"{future:,}"] = {
            "p50_ms": soon["p50_ms"],
            "p99_ms": soon["p99_ms"],
            "jobs_per_s": many["jobs_per_s"],
        }
        with closing(amqp_connection(broker_url)) as broker:
            broker.channel().queue_purge(LAUNCH)
        future *= 10
    return found
