"""`python -m atemporal.twin --dir D`: the twin as a process; prints its URL, ends on SIGTERM.

Its machines go on when it ends, as instances do when an API is down; `--power-off` ends them
too.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from atemporal.errors import AtemporalError
from atemporal.stop_request import StopRequest
from atemporal.twin.containers.engine import CHOICES
from atemporal.twin.ec2.limits import CHOICES as LIMITS
from atemporal.twin.host import Pace
from atemporal.twin.server import Twin


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM; return the exit code. The arguments are the process's own, or given."""
    parser = argparse.ArgumentParser(prog="python -m atemporal.twin", description="a local EC2")
    parser.add_argument("--dir", type=Path, required=True, help="where its state is kept")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument(
        "--port", type=int, default=0, help="0: the one used before, or a free one"
    )
    parser.add_argument("--engine", choices=CHOICES, default="auto")
    parser.add_argument("--region", default="us-east-1")
    for name in ("pending", "boot", "shutdown"):
        parser.add_argument(f"--{name}", type=float, default=0.0, metavar="S", help="seconds")
    parser.add_argument("--kill-after", type=float, default=10.0, metavar="S", help="seconds")
    parser.add_argument("--power-off", action="store_true", help="end all machines at the end")
    parser.add_argument("--limits", choices=LIMITS, default="none", help="EC2's limits of calls")
    parser.add_argument("--seed", type=int, help="of the faults; else the one used before, or 0")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO)
    done = StopRequest()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _signal, _frame: done.set())
    twin = Twin(
        given.dir,
        host=given.host,
        port=given.port,
        engine=given.engine,
        region=given.region,
        pace=Pace(given.pending, given.boot, given.shutdown, given.kill_after),
        limits=given.limits,
        seed=given.seed,
    )
    try:
        twin.start()
    except AtemporalError as error:
        print(f"atemporal.twin: {error}", file=sys.stderr)
        return 1
    print(twin.url, flush=True)
    done.wait()
    twin.stop(power_off=given.power_off)
    return 0


if __name__ == "__main__":
    sys.exit(main())
