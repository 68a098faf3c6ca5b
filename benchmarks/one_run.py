"""One run of one measure, in a process of its own: `python -m benchmarks.one_run FILE < request`.

So that no run is warmed or burdened by the one before, and that the product may be another build's. The
request is JSON: the function and what is given to it. The figures are written to FILE as JSON.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from benchmarks.profiled import profiled
from benchmarks.wiring import call, find

if __name__ == "__main__":
    request = json.load(sys.stdin)
    with (
        tempfile.TemporaryDirectory(prefix="atemporal-benchmark-") as folder,
        profiled(request["function"].replace(":", "-")),
    ):
        given = {"directory": Path(folder), **request["given"]}
        figures = call(find(request["function"]), given)
    Path(sys.argv[1]).write_text(json.dumps(figures))
