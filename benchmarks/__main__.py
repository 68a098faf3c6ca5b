"""`make bench`: asks the questions, writes the results, renders the page.

With words, only the questions or measures of those names; `list` lists them, `render` only renders the
page, `profile QUESTION` says where the time goes.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from benchmarks import report, results
from benchmarks.checkout import ROOT
from benchmarks.harness import Harness
from benchmarks.measure import selected
from benchmarks.profiling import profile
from benchmarks.questions import QUESTIONS

RESULTS = ROOT / "benchmarks" / "results"
# Not beside the real ones: they say that it works, and nothing about how fast.
QUICK_RESULTS = ROOT / "build" / "benchmarks"
PAGE = ROOT / "docs" / "benchmarks.md"


def main(arguments: list[str]) -> int:
    """Do what the words say; return the exit status."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("words", nargs="*", help="questions, measures, or: list, render, profile")
    parser.add_argument("--quick", action="store_true", help="small and once: does it work?")
    parser.add_argument("--full", action="store_true", help="also what takes very long")
    parser.add_argument("--times", type=int, help="how often each measure is run")
    asked = parser.parse_args(arguments)
    first, rest = (asked.words or [""])[0], asked.words[1:]
    if first == "list":
        for question in QUESTIONS:
            print(f"{question.name}: {', '.join(one.name for one in question.measures)}")
        return 0
    if first == "render":
        return _render(RESULTS, PAGE)
    try:
        questions = selected(
            QUESTIONS,
            rest if first == "profile" else asked.words,
            full=asked.full,
            quick=asked.quick,
        )
    except ValueError as error:
        parser.error(str(error))
    if first == "profile":
        return profile(questions, quick=asked.quick, say=_say)
    folder = QUICK_RESULTS if asked.quick else RESULTS
    harness = Harness(folder=folder, quick=asked.quick, times=asked.times, say=_say)
    well = harness.run(questions)
    _render(folder, QUICK_RESULTS / "benchmarks.md" if asked.quick else PAGE)
    return 0 if well else 1


def _render(folder: Path, page: Path) -> int:
    page.write_text(report.render(results.read(folder)))
    _say(f"written: {page.relative_to(ROOT)}")
    return 0


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    # Else servers' folders and other builds' checkouts would stay.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sys.exit(main(sys.argv[1:]))
