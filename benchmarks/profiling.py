"""Where the time goes: `make bench ARGS="profile dispatch"`.

Each process that does the work to be looked at leaves its profile (`profiled`). Profiling slows Python
several times over: the shares count, the totals do not.
"""

from __future__ import annotations

import os
import pstats
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.harness import Harness
from benchmarks.measure import Question
from benchmarks.profiled import FOLDER

_LINES = 25


def profile(questions: Sequence[Question], *, quick: bool, say: Callable[[str], None]) -> int:
    """Run the first measure of each question once, and print where its processes spent their time."""
    first = [Question(one.name, one.title, one.measures[:1]) for one in questions]
    with tempfile.TemporaryDirectory(prefix="atemporal-profile-") as folder:
        os.environ[FOLDER] = folder
        harness = Harness(folder=Path(folder), quick=quick, times=1, say=say)
        well = harness.run(first)
        for path in sorted(Path(folder).glob("*.prof")):
            say(f"\n-- {path.stem}, by the time spent in the function itself")
            pstats.Stats(str(path)).sort_stats("tottime").print_stats(_LINES)
    return 0 if well else 1
