"""One of the scheduler's loops as a process: `python -m benchmarks.scheduler_loop due`, told by
`ATEMPORAL_*`.

The very loop of the daemon, wired by the daemon's own `loops`; the two other loops of that process,
which would share its interpreter, are left out unless `all` is asked for.
"""

from __future__ import annotations

import json
import resource
import sys
import threading

from atemporal.daemon import Loop
from atemporal.settings import Settings
from atemporal.store.database import Database
from benchmarks.profiled import profiled
from services.scheduler.__main__ import loops


def _run(loop: Loop, stopping: threading.Event, began: threading.Event) -> None:
    with profiled(f"{loop.name}-loop"):
        while not stopping.is_set():
            loop.tick()
            began.set()
    loop.reset()


def main() -> None:
    """Tick until standard input ends; then say what processor time it took."""
    settings = Settings()
    database = Database(settings.database_url.get_secret_value())
    wanted = [one for one in loops(settings, database) if sys.argv[1] in (one.name, "all")]
    stopping = threading.Event()
    began = [threading.Event() for _ in wanted]
    threads = [
        threading.Thread(target=_run, args=(loop, stopping, event), daemon=True)
        for loop, event in zip(wanted, began, strict=True)
    ]
    for thread in threads:
        thread.start()
    for event in began:
        if not event.wait(60):
            sys.exit("a loop has not ended its first tick in 60 s")
    print("ready", flush=True)
    sys.stdin.read()
    stopping.set()
    for thread in threads:
        thread.join(30)
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps({"cpu_s": used.ru_utime + used.ru_stime, "rss_mb": used.ru_maxrss / 1024}))


if __name__ == "__main__":
    main()
