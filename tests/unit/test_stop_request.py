"""A request to stop that a signal handler makes, whatever it interrupts."""

from __future__ import annotations

import subprocess
import sys
import threading

from atemporal.stop_request import StopRequest

# Each signal comes at another step of a wait.
SIGNALS = """
import random, signal
from atemporal.stop_request import StopRequest

asked = None
signal.signal(signal.SIGALRM, lambda *_: asked.set())
for _ in range(3000):
    asked = StopRequest()
    signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-6, 3e-4))
    while not asked.wait(1e-5):
        pass
print("ended")
"""


def test_a_signal_may_come_at_any_step_of_a_wait() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SIGNALS], capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("ended\n", "")


def test_everybody_who_waits_learns_of_it_and_so_does_who_comes_later() -> None:
    asked = StopRequest()
    assert not asked.wait(0)
    answers: list[bool] = []
    threads = [threading.Thread(target=lambda: answers.append(asked.wait())) for _ in range(3)]
    for thread in threads:
        thread.start()
    asked.set()
    asked.set()
    for thread in threads:
        thread.join(30)
    assert answers == [True] * 3
    assert asked.wait()
    assert asked.is_set()
