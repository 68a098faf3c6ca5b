"""`atemporal-api`: the HTTP front as a process."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from types import FrameType

from atemporal import __version__, memory, telemetry
from atemporal.errors import AtemporalError, Unavailable
from atemporal.settings import load
from atemporal.stop_request import StopRequest
from atemporal.store.database import Database
from atemporal.unknown_settings import unknown_variables
from services.api.server import ApiServer

# As many connections as the server has threads (twice this: the pool may double).
_POOL = 20


def main() -> None:
    """Run until SIGTERM or SIGINT; a second one exits at once."""
    parser = argparse.ArgumentParser(
        prog="atemporal-api",
        description=__doc__,
        epilog="It is configured by ATEMPORAL_* environment variables; `atemporal config` lists "
        "them with their effective values.",
    )
    parser.add_argument("--version", action="version", version=f"atemporal {__version__}")
    parser.parse_args()
    memory.one_arena()
    stop = StopRequest()

    def on_signal(number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    try:
        settings = load()
        telemetry.configure("api", log_format=settings.log_format, level=settings.log_level)
        for sentence in unknown_variables(os.environ):
            telemetry.logger("settings").warning("unknown setting", error=sentence)
        database = Database(
            settings.database_url.get_secret_value(),
            application="atemporal api",
            pool_size=_POOL,
            on_unreadable=telemetry.tell_unreadable,
        )
        server = ApiServer(settings, database)
        memory.settle()
        server.start()
    except AtemporalError as error:
        parser.exit(2, f"atemporal-api can not start: {error}\n")
    log = telemetry.logger("api")
    try:
        database.check_schema()
    except Unavailable as error:
        log.warning("not ready", error=str(error))
    stop.wait()
    if not server.stop():
        log.error("stopped before the requests in hand were answered")
        # Their threads would hold up an ordinary exit until the database gives in.
        os._exit(1)
    database.dispose()
    log.info("stopped")
    sys.exit(0)


if __name__ == "__main__":
    main()
