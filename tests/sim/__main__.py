"""`python -m tests.sim`: run schedules on a Postgres of its own; `--seed N --runs 1` replays one."""

from __future__ import annotations

import argparse
import os
import sys

from tests.servers.postgres import open_postgres
from tests.sim.simulation import fresh_seed, side_by_side


def main() -> int:
    """Run and report; the exit status is 1 when a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seed", type=int, help="of the first schedule; absent: a fresh one")
    parser.add_argument("--runs", type=int, help="how many schedules; absent: as time allows")
    parser.add_argument("--seconds", type=float, help="how long at most; 60 without --runs")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="side by side")
    asked = parser.parse_args()
    seed = fresh_seed() if asked.seed is None else asked.seed
    seconds = asked.seconds or (None if asked.runs else 60.0)
    server = open_postgres()
    try:
        jobs = 1 if asked.runs == 1 else asked.jobs
        urls = [server.create_database() for _ in range(jobs)]
        report = side_by_side(urls, seed, runs=asked.runs, seconds=seconds)
    finally:
        server.close()
    print(report)
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
