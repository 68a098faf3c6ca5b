"""The benchmarks' harness: which measures are run, with what, what is made of the figures, and the page.

What is measured needs servers and minutes (`make bench`); how it is chosen, called, computed and told
does not. The page in `docs` is what the result files say, no more and no less.
"""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks import machine, results
from benchmarks.checkout import ROOT, checked_out
from benchmarks.harness import in_process
from benchmarks.measure import Measure, Question, selected
from benchmarks.numbers import NUMBERS, Number, Part, Verdict
from benchmarks.questions import QUESTIONS
from benchmarks.report import render
from benchmarks.results import Figure, figures, ratio
from benchmarks.wiring import BROKER, DATABASE, Missing, call, find

MEASURES = [one for question in QUESTIONS for one in question.measures]
CONDITIONS = {
    "run": "2030-01-01T00:00:00+00:00",
    "quick": False,
    "took_s": 61,
    "processor": "EPYC",
    "processors": 2,
    "memory_gb": 24,
    "system": "Linux 6",
    "python": "3.11",
    "libraries": {"kombu": "5.7.0"},
    "commit": "abcdef0",
    "changed": False,
    "postgres": {
        "server_version": "15.3",
        "fsync": "on",
        "synchronous_commit": "on",
        "full_page_writes": "on",
        "shared_buffers": "1GB",
    },
    "rabbitmq": {"version": "3.10.8", "erlang": "25"},
    "load_before": [0.1],
    "load_after": [2.0],
}


def result(run: str = "first", **measures: Sequence[Mapping[str, Any]]) -> results.Result:
    """One question's results, each measure with the given runs."""
    return {
        "title": "A question",
        "method": ["How it is measured."],
        "measures": {
            name.replace("_", " "): {"conditions": {**CONDITIONS, "run": run}, "runs": runs}
            for name, runs in measures.items()
        },
    }


# Choosing


def names(*words: str, full: bool = False, quick: bool = False) -> dict[str, list[str]]:
    questions = (
        Question("dispatch", "", (Measure("throughput", "a:b"), Measure("latency", "a:c"))),
        Question("growth", "", (Measure("throughput", "d:e"), Measure("all", "d:f", full=True))),
        Question("skew", "", (Measure("skew", "g:h", quick=None),)),
    )
    return {
        question.name: [one.name for one in question.measures]
        for question in selected(questions, words, full=full, quick=quick)
    }


def test_without_words_everything_usual_is_asked() -> None:
    usual = {"dispatch": ["throughput", "latency"], "growth": ["throughput"]}
    assert names() == usual | {"skew": ["skew"]}
    assert names(full=True)["growth"] == ["throughput", "all"]
    assert names(quick=True) == usual


@pytest.mark.parametrize(
    ("words", "chosen"),
    [
        (["dispatch"], {"dispatch": ["throughput", "latency"]}),
        (["dispatch", "latency"], {"dispatch": ["latency"]}),
        (["latency"], {"dispatch": ["latency"]}),
        (["throughput"], {"dispatch": ["throughput"], "growth": ["throughput"]}),
        (["growth", "throughput"], {"growth": ["throughput"]}),
        (["all"], {"growth": ["all"]}),
        (["skew"], {"skew": ["skew"]}),
    ],
)
def test_words_name_questions_and_measures(words: list[str], chosen: dict[str, list[str]]) -> None:
    assert names(*words) == chosen


def test_a_word_that_names_nothing_is_told_with_what_there_is() -> None:
    with pytest.raises(ValueError, match="latencies; there are: dispatch"):
        names("latencies")


# Wiring


@pytest.mark.parametrize("same", [*DATABASE, *BROKER])
def test_a_function_is_given_its_urls_by_either_name(same: str) -> None:
    scope: dict[str, Any] = {}
    exec(f"def measure({same}, quick=False): return {{'url': {same}, 'quick': quick}}", scope)
    given = {"database_url": "postgres", "broker_url": "amqp", "quick": True}
    url = "postgres" if same in DATABASE else "amqp"
    assert call(scope["measure"], given) == {"url": url, "quick": True}


def test_a_function_that_wants_what_nobody_gives_is_told() -> None:
    def measure(database_url: str, region: str) -> dict[str, Any]:
        return {"url": database_url + region}

    with pytest.raises(TypeError, match="wants region; a measure gives"):
        call(measure, {"database_url": "x"})


def test_a_file_or_function_that_is_not_there_is_missing() -> None:
    with pytest.raises(Missing, match=r"benchmarks/nowhere\.py is not there"):
        find("nowhere:measure")
    with pytest.raises(Missing, match=r"benchmarks/wiring\.py has no function measure"):
        find("wiring:measure")


@pytest.mark.parametrize("measure", MEASURES, ids=lambda one: f"{one.function} {one.name}")
def test_each_measure_gives_only_what_its_function_takes(measure: Measure) -> None:
    try:
        function = find(measure.function)
    except Missing:
        # Told by the run; which are missing is for whoever reads the page.
        assert not (ROOT / "benchmarks" / f"{measure.module}.py").exists()
        return
    taken = inspect.signature(function).parameters
    assert not {*measure.arguments, *(measure.quick or ())} - taken.keys()


def test_a_run_is_a_process_of_its_own_in_the_given_build() -> None:
    found = in_process("machine:facts", {"root": str(ROOT)}, path=str(ROOT), limit_s=60)
    assert found["python"] == sys.version.split()[0]


@pytest.mark.parametrize(
    ("function", "given", "why"),
    [("machine:facts", {"root": "/nowhere"}, "No such file"), ("machine:load", {}, "no dict")],
)
def test_a_run_that_fails_says_why(function: str, given: dict[str, Any], why: str) -> None:
    with pytest.raises(RuntimeError, match=why):
        in_process(function, given, path=str(ROOT), limit_s=60)


def test_a_run_over_its_limit_is_ended() -> None:
    with pytest.raises(RuntimeError, match="not done in 0 s"):
        in_process("machine:facts", {"root": str(ROOT)}, path=str(ROOT), limit_s=0.01)


def test_another_build_is_there_for_as_long_as_it_is_asked() -> None:
    with checked_out("HEAD") as tree:
        assert (tree / "pyproject.toml").read_text().startswith("[build-system]")
    assert not tree.exists()
    with pytest.raises(RuntimeError, match="nonesuch"), checked_out("nonesuch"):
        pass


def test_work_of_ended_children_is_our_own() -> None:
    busy = machine._own_s()
    subprocess.run([sys.executable, "-c", "sum(range(20_000_000))"], check=True)
    assert machine._own_s() - busy > 0.1
    assert os.getpid() in machine._stats()


# Figures


def test_a_figure_is_the_median_of_its_runs() -> None:
    found = {"dispatch": result(throughput=[{"rate": 3}, {"rate": 100}, {"rate": 2.0}])}
    assert Figure("dispatch", "throughput", "rate").median(found) == 3
    assert Figure("dispatch", "throughput", "other").median(found) is None
    within = {"dispatch": result(throughput=[{"late": {"p99": 3}}, {"late": {"p99": 5}}])}
    assert Figure("dispatch", "throughput", "late.p99").median(within) == 4
    assert Figure("dispatch", "latency", "rate").median(found) is None
    assert Figure("nothing", "latency", "rate").median(found) is None


def test_a_ratio_is_of_medians_of_one_run() -> None:
    one = result(ours=[{"rate": 10}, {"rate": 30}, {"rate": 20}], theirs=[{"rate": 5}])
    ours, theirs = Figure("q", "ours", "rate"), Figure("q", "theirs", "rate")
    assert ratio(ours, theirs, {"q": one}) == 4
    one["measures"]["theirs"]["conditions"]["run"] = "another"
    assert ratio(ours, theirs, {"q": one}) is None


@pytest.mark.parametrize("under", [[], [{"rate": 0}], [{"text": "no"}]])
def test_there_is_no_ratio_to_nothing(under: list[Mapping[str, Any]]) -> None:
    found = {"q": result(ours=[{"rate": 10}], theirs=under)}
    assert ratio(Figure("q", "ours", "rate"), Figure("q", "theirs", "rate"), found) is None


def test_figures_within_figures_have_a_dotted_name_and_texts_are_none() -> None:
    runs: list[Mapping[str, Any]]
    runs = [
        {"size": {"jobs": 1, "events": {"mb": 2}}, "version": "1.2", "well": True},
        {"late": 3},
    ]
    assert dict(figures(runs)) == {"size.jobs": [1], "size.events.mb": [2], "late": [3]}


def test_measures_that_were_not_run_keep_their_results(tmp_path: Path) -> None:
    results.write(tmp_path, "q", result("first", one=[{"rate": 1}], two=[{"rate": 2}]))
    results.write(tmp_path, "q", result("second", two=[{"rate": 3}]))
    found = results.read(tmp_path)
    assert Figure("q", "one", "rate").median(found) == 1
    assert Figure("q", "two", "rate").median(found) == 3
    assert Figure("q", "one", "rate").taken(found) == "first"


# Numbers


def part(value: float | None, **bounds: Any) -> tuple[Part, dict[str, results.Result]]:
    runs = [] if value is None else [{"rate": value}]
    return Part(Figure("q", "one", "rate"), **bounds), {"q": result(one=runs)}


@pytest.mark.parametrize(
    ("value", "bounds", "verdict"),
    [
        (10, {"at_least": 10}, Verdict.MET),
        (9.99, {"at_least": 10}, Verdict.MISSED),
        (6, {"at_most": 6}, Verdict.MET),
        (6.01, {"at_most": 6}, Verdict.MISSED),
        (None, {"at_least": 10}, Verdict.UNKNOWN),
    ],
)
def test_a_part_is_compared_with_its_bound(
    value: float | None, bounds: dict[str, float], verdict: Verdict
) -> None:
    one, found = part(value, **bounds)
    assert one.verdict(found) is verdict


def test_a_number_is_met_only_when_all_its_parts_are() -> None:
    met, found = part(10, at_least=5)
    missed = Part(met.figure, at_most=5)
    unknown = Part(Figure("q", "two", "rate"), at_least=1)
    for parts, verdict in (
        ((met, met), Verdict.MET),
        ((met, unknown), Verdict.UNKNOWN),
        ((met, unknown, missed), Verdict.MISSED),
    ):
        assert Number("n", "what", "target", "before", parts).verdict(found) is verdict


def test_a_number_may_be_met_by_either_of_its_parts() -> None:
    met, found = part(10, at_least=5)
    missed = Part(met.figure, at_most=5)
    unknown = Part(Figure("q", "two", "rate"), at_least=1)
    for parts, verdict in (
        ((missed, met), Verdict.MET),
        ((unknown, met), Verdict.MET),
        ((missed, unknown), Verdict.UNKNOWN),
        ((missed, missed), Verdict.MISSED),
    ):
        one = Number("n", "what", "target", "before", parts, either=True)
        assert one.verdict(found) is verdict


@pytest.mark.parametrize("number", NUMBERS, ids=lambda one: one.name)
def test_each_number_is_read_from_measures_that_there_are(number: Number) -> None:
    known = {(question.name, one.name) for question in QUESTIONS for one in question.measures}
    wanted = {
        (figure.question, figure.measure)
        for one in number.parts
        for figure in (one.figure, one.beside)
        if figure is not None
    }
    assert wanted
    assert wanted <= known


# The page


def test_the_page_says_met_and_missed_and_why() -> None:
    slow = {"dispatch": result(latency=[{"p50_ms": 2.0, "p99_ms": 7.5, "early": 0}])}
    why = {"latency": "the broker alone takes 2.2 ms", "dispatch": "not shown"}
    page = render(slow | {"remarks": why})
    assert "2 ms p50; **7.5 ms p99**; 0 early | **missed** |" in page
    assert "the broker alone takes 2.2 ms" in " ".join(page.split())
    assert "not shown" not in page
    fast = {"dispatch": result(latency=[{"p50_ms": 2.0, "p99_ms": 5, "early": 0}])}
    page = render(fast | {"remarks": why})
    assert "2 ms p50; 5 ms p99; 0 early | met |" in page
    assert "the broker alone" not in page


def test_the_page_shows_medians_spread_conditions_and_what_failed() -> None:
    found = result(throughput=[{"jobs_per_s": 1500}, {"jobs_per_s": 2500.4}, {"jobs_per_s": 1700}])
    found["measures"]["absent"] = {"runs": [], "failed": "benchmarks/x.py is not there\nand more"}
    page = render({"dispatch": found})
    assert "| throughput | jobs per s | 1,700 | 1,500 to 2,500 | 3 |" in page
    assert "| absent | benchmarks/x.py is not there | | | |" in page
    assert "PostgreSQL 15.3 (fsync on, synchronous_commit on" in page
    assert "| dispatch | first | abcdef0 | 0.1 / 2.0 | 61 s |" in page
    assert "How it is measured." in page


def test_the_page_is_the_same_for_the_same_files(tmp_path: Path) -> None:
    results.write(tmp_path, "dispatch", result(throughput=[{"jobs_per_s": 1500}]))
    read = results.read(tmp_path)
    assert render(read) == render(json.loads(json.dumps(read)))


def test_the_page_in_the_docs_is_what_the_result_files_say() -> None:
    page = (ROOT / "docs" / "benchmarks.md").read_text()
    assert page == render(results.read(ROOT / "benchmarks" / "results")), "make bench ARGS=render"
