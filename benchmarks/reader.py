"""A consumer of due jobs as a process: `python -m benchmarks.reader BROKER_URL COUNT HOW`.

`amqp` is a plain client: prefetch 1,000, one ack for a hundred. `link` takes batches as the launcher
does. It notes when each message is in its hands, and after COUNT of them prints those times.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from time import time
from typing import Any
from urllib.parse import unquote, urlsplit

import amqp

from atemporal.broker import Link
from atemporal.messages import LAUNCH, decode

_ACK_EACH = 100


def amqp_connection(broker_url: str) -> Any:
    """A py-amqp connection, open."""
    url = urlsplit(broker_url)
    connection = amqp.Connection(
        host=f"{url.hostname}:{url.port}",
        userid=url.username,
        password=url.password,
        virtual_host=unquote(url.path[1:]) or "/",
    )
    connection.connect()
    return connection


def _by_amqp(broker_url: str, count: int, ready: Callable[[], None]) -> dict[str, float]:
    arrived: dict[str, float] = {}
    taken = 0
    connection = amqp_connection(broker_url)
    channel = connection.channel()
    channel.basic_qos(0, 1000, False)

    def on_message(message: Any) -> None:
        nonlocal taken
        now = time()
        arrived.setdefault(json.loads(message.body)["job_id"], now)
        taken += 1
        if taken % _ACK_EACH == 0 or taken == count:
            channel.basic_ack(message.delivery_tag, multiple=True)

    channel.basic_consume(LAUNCH, callback=on_message)
    ready()
    while taken < count:
        connection.drain_events()
    connection.close()
    return arrived


def _by_link(broker_url: str, count: int, ready: Callable[[], None]) -> dict[str, float]:
    arrived: dict[str, float] = {}
    link = Link(broker_url, name="benchmark reader")
    link.connect()
    link.receive(LAUNCH, limit=500, timeout_s=0.01)
    ready()
    while len(arrived) < count:
        batch = link.receive(LAUNCH, limit=500)
        now = time()
        for delivery in batch:
            arrived.setdefault(str(decode(LAUNCH, delivery.body).job_id), now)
        link.ack(batch)
    link.close()
    return arrived


def main() -> None:
    """Take COUNT messages, wait until standard input ends, print when each was taken."""
    _, broker_url, count, how = sys.argv
    read = {"amqp": _by_amqp, "link": _by_link}[how]
    done = threading.Event()

    def on_end_of_input() -> None:
        sys.stdin.read()
        if not done.wait(120):
            print(f"the reader waits for {count} messages in vain", file=sys.stderr)
            # The main thread sits in a read that nothing ends.
            import os

            os._exit(1)

    waiter = threading.Thread(target=on_end_of_input, daemon=True)
    waiter.start()
    arrived = read(broker_url, int(count), lambda: print("ready", flush=True))
    done.set()
    last = time()
    waiter.join()
    print(json.dumps({"arrived": arrived, "last": last}))


if __name__ == "__main__":
    main()
