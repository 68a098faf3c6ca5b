"""Runs questions: servers, rounds, processes, and the files with the results.

Promise: the measures of a question take turns, so that what the machine does meanwhile meets all of
them; each run is a process of its own; one that fails or is not there is written down as that, and the
others go on. How many processors others used meanwhile stands beside each run's figures.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from time import monotonic
from typing import Any

from benchmarks import machine, results
from benchmarks.checkout import ROOT, Builds
from benchmarks.measure import Measure, Question
from benchmarks.servers import Servers
from benchmarks.wiring import BROKER, DATABASE, Figures, Missing, find, wants

Say = Callable[[str], None]


class Harness:
    """One run of the benchmarks."""

    def __init__(self, *, folder: Path, quick: bool, times: int | None, say: Say) -> None:
        """Write results to `folder`; `times` overrides how often each measure is run."""
        self._folder = folder
        self._quick = quick
        self._times = 1 if quick and times is None else times
        self._say = say

    def run(self, questions: Sequence[Question]) -> bool:
        """Ask all questions; tell whether each measure has at least one run."""
        well = True
        with ExitStack() as stack:
            servers = stack.enter_context(Servers())
            builds = Builds(stack)
            conditions: dict[str, Any] = {
                "run": datetime.now(UTC).isoformat(timespec="seconds"),
                "quick": self._quick,
                **machine.facts(ROOT),
                **servers.conditions(),
            }
            for question in questions:
                self._say(f"== {question.name}: {question.title}")
                well = self._ask(question, servers, builds, conditions) and well
                servers.drop(f"{question.name} ")
        return well

    def _ask(
        self,
        question: Question,
        servers: Servers,
        builds: Builds,
        conditions: Mapping[str, Any],
    ) -> bool:
        """Run all measures in rounds, and write what is known after each run."""
        began, load_before = monotonic(), machine.load()
        measured: dict[str, dict[str, Any]] = {}
        times = {one.name: self._times or one.times for one in question.measures}
        for number in range(max(times.values())):
            for measure in question.measures:
                if number >= times[measure.name]:
                    continue
                found = measured.setdefault(measure.name, {"runs": []})
                if measure.build:
                    found["build"] = measure.build
                began_run = monotonic()
                try:
                    figures = self._run(question, measure, servers, builds)
                    took = monotonic() - began_run
                    found["runs"].append(figures)
                    self._say(f"{measure.name} ({took:.0f} s): {_brief(figures)}")
                except (Missing, RuntimeError) as error:
                    # The lines above the last are of this machine.
                    found["failed"] = str(error).splitlines()[-1]
                    self._say(f"{measure.name}: {error}")
                here = {
                    **conditions,
                    "load_before": load_before,
                    "load_after": machine.load(),
                    "took_s": round(monotonic() - began),
                }
                measures = {name: {**one, "conditions": here} for name, one in measured.items()}
                results.write(
                    self._folder,
                    question.name,
                    {"title": question.title, "method": _methods(question), "measures": measures},
                )
        return all(one["runs"] for one in measured.values())

    def _run(
        self, question: Question, measure: Measure, servers: Servers, builds: Builds
    ) -> Figures:
        """One run of one measure, in a process of its own.

        Raises:
            Missing: its file or function is not there.
            RuntimeError: it failed, or took too long; with the end of what it printed.
        """
        function = find(measure.function)
        given: dict[str, Any] = {"quick": self._quick, **measure.arguments}
        if self._quick and measure.quick is not None:
            given |= measure.quick
        if wants(function, DATABASE):
            # One with a name of its own is shared by questions too, and lives until the end.
            shared = measure.database or f"{question.name} its own"
            given[DATABASE[0]] = servers.database(f"{shared} {measure.build or ''}")
        if wants(function, BROKER):
            given[BROKER[0]] = servers.vhost()
        path = os.pathsep.join(builds.path(measure.build))
        busy = machine.Busy()
        figures = in_process(measure.function, given, path=path, limit_s=measure.limit_s)
        return {**figures, "others_processors": busy.others()}


def in_process(
    function: str,
    given: Mapping[str, Any],
    *,
    path: str,
    limit_s: float,
) -> Figures:
    """Call the function in a new process with the given `PYTHONPATH`.

    Raises:
        RuntimeError: it failed, or took longer than `limit_s`; with the end of what it printed.
    """
    with tempfile.TemporaryDirectory(prefix="atemporal-benchmark-") as folder:
        output, log = Path(folder) / "figures.json", Path(folder) / "log"
        kept = {n: v for n, v in os.environ.items() if not n.startswith("ATEMPORAL_")}
        with log.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.one_run", str(output)],
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=subprocess.STDOUT,
                # Python puts the present folder before all others.
                cwd=folder,
                env=kept | {"PYTHONPATH": path},
                start_new_session=True,
            )
            try:
                request = json.dumps({"function": function, "given": dict(given)})
                process.communicate(request.encode(), timeout=limit_s)
            except subprocess.TimeoutExpired:
                raise RuntimeError(f"not done in {limit_s:.0f} s{_end_of(log)}") from None
            finally:
                if process.poll() is None:
                    # With whatever it has started.
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        if process.returncode:
            raise RuntimeError(f"failed{_end_of(log)}")
        figures: Figures = json.loads(output.read_text())
        return figures


def _end_of(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()[-12:]
    return ": " + "\n".join(lines) if lines else ""


def _methods(question: Question) -> list[str]:
    """How it is measured, in the words of the files that do it."""
    texts: list[str] = []
    for module in dict.fromkeys(one.module for one in question.measures):
        try:
            texts.append((import_module(f"benchmarks.{module}").__doc__ or "").strip())
        except ModuleNotFoundError:
            continue
    return texts


def _brief(figures: Figures) -> str:
    return ", ".join(f"{name} {values[0]:,.6g}" for name, values in results.figures([figures]))
