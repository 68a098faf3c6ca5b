"""Metrics: whose they are, that they are there from the start, and that their names keep the rules.

The rules are those of Prometheus' own pages on naming and on instrumentation, as far as a program can
check them. `tests/e2e/test_metrics.py` asks the real processes, and promtool.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

import services.api.__main__
import services.launcher.__main__
import services.reaper.__main__
import services.scheduler.__main__  # noqa: F401 - with these four all metrics are declared
from atemporal.broker import DEAD
from atemporal.cloud import FAILURES, NOTICE_KINDS
from atemporal.fleet.ending import TerminationCause
from atemporal.fleet.reconciliation import Status
from atemporal.limits import Limit
from atemporal.messages import LAUNCH, REAP, SCHEDULE, SUBMIT
from atemporal.metrics import FAMILIES, Aggregate, Family, clear, counter, gauge, histogram
from atemporal.metrics import series as declare
from atemporal.model import ClockState
from atemporal.model.dead_letter import DeadReason
from atemporal.recurrence import FireOutcome, FireReason
from atemporal.states import BlockedReason, Reason
from atemporal.store.invariants import INVARIANTS
from atemporal.waiting import Phase
from tests.metrics import documented, families, series

ROOT = Path(__file__).parents[2]
PROCESSES = ("scheduler", "launcher", "reaper", "api")
# Everything a process is made of, before it has asked any server for anything.
START = """
import sys
from importlib import import_module
from atemporal.settings import load
from atemporal.store.database import Database

name, settings = sys.argv[1], load()
main = import_module(f"services.{name}.__main__")
database = Database("postgresql://nobody@127.0.0.1:1/none")
if name == "api":
    process = main.ApiServer(settings, database)
else:
    from atemporal.daemon import Daemon
    process = Daemon(name, main.loops(settings, database))
from atemporal.metrics import exposition
print(exposition()[0].decode())
"""

CAPACITY_TYPES = ("on-demand", "spot")
RESULTS = ("accepted", "duplicate", "rejected")
REPORTED = {
    *(Reason.COMPLETED, Reason.EXIT_NONZERO, Reason.SIGNALLED, Reason.OUT_OF_MEMORY),
    *(Reason.START_FAILED, Reason.TIMED_OUT, Reason.UNREPORTED, Reason.PULL_FAILED),
    *(Reason.IMAGE_REFUSED, Reason.CREATE_FAILED, Reason.SPOT_INTERRUPTED, Reason.INSTANCE_LOST),
}
DEADLINES = {Reason.LAUNCH_DEADLINE, Reason.BOOT_DEADLINE, Reason.PULL_DEADLINE}
DEADLINES |= {Reason.CLAIM_DEADLINE}
LOOPS = {
    "scheduler": [
        *(
            "due",
            "lead",
            "recurring",
            "start-deadlines",
            "cost-limits",
            "submit",
            "schedule-messages",
        ),
        *("dead-letters", "relay", "webhooks"),
    ],
    "launcher": ["launch", "launch-sweep", "launch-tags", "launch-types"],
    "reaper": ["reap", "reap-sweep", "reap-volumes", "audit", "reap-notices", "retention"],
    "api": ["publish"],
}
"""Each process with its loops."""

# A person sets limits while the process runs: it has their series for as long as they are set.
OPEN = {"atemporal_slots", "atemporal_slots_used", "atemporal_slots_waited_for"}

Labels = Mapping[str, Iterable[str]]


def _common(process: str) -> dict[str, Labels]:
    loops = LOOPS[process]
    return {
        "atemporal_ticks_total": {"loop": loops},
        "atemporal_tick_errors_total": {"loop": loops, "kind": ("unavailable", "error")},
        "atemporal_last_tick_timestamp_seconds": {"loop": loops},
        "atemporal_last_success_timestamp_seconds": {"loop": loops},
    }


_LIMITS: dict[str, Labels] = {
    "atemporal_ec2_calls_total": {"kind": Limit},
    "atemporal_ec2_calls_refused_total": {"kind": Limit},
    "atemporal_rate_limit_tokens": {"kind": Limit, "bucket": ["requests", "instances"]},
    "atemporal_rate_limit_tokens_per_second": {
        "kind": Limit,
        "bucket": ["requests", "instances"],
    },
}
CLOSED: dict[str, dict[str, Labels]] = {
    "scheduler": {
        **_common("scheduler"),
        "atemporal_dead_letters_total": {
            "queue": [SUBMIT, SCHEDULE, LAUNCH, REAP, "other"],
            "reason": DeadReason,
        },
        "atemporal_submits_total": {"via": ["amqp"], "result": RESULTS},
        "atemporal_schedule_messages_total": {"result": [*RESULTS, "outdated"]},
        "atemporal_fires_total": {"outcome": FireOutcome, "reason": ["none", *FireReason]},
        "atemporal_webhook_deliveries_total": {"result": ["accepted", "failed", "given_up"]},
        "atemporal_attempt_duration_seconds": {
            "phase": set(Phase) - {Phase.TIME, Phase.DUE, Phase.PAUSE, Phase.LIMIT, Phase.QUEUED}
        },
        "atemporal_oldest_unacked_seconds": {"queue": [SUBMIT, SCHEDULE, DEAD]},
        "atemporal_attempts_ended_total": {
            "reason": [Reason.CANCELLED, Reason.START_DEADLINE, Reason.MAX_COST]
        },
    },
    "launcher": {
        **_common("launcher"),
        **_LIMITS,
        "atemporal_attempts_ended_total": {
            "reason": [Reason.LAUNCH_REFUSED, Reason.INSTANCE_LOST]
        },
        "atemporal_launches_total": {"result": ["launched", *(one.__name__ for one in FAILURES)]},
        "atemporal_launches_blocked": {"reason": ["none", *BlockedReason]},
        "atemporal_stale_launches_total": {"step": ["begin", "walk", "launched"]},
        "atemporal_oldest_unacked_seconds": {"queue": [LAUNCH]},
        "atemporal_taggings_total": {"result": ["tagged", "failed"]},
    },
    "reaper": {
        **_common("reaper"),
        **_LIMITS,
        "atemporal_attempts_ended_total": {"reason": REPORTED | DEADLINES | {Reason.NO_CAPACITY}},
        "atemporal_terminations_total": {"cause": TerminationCause, "result": ["asked", "failed"]},
        "atemporal_oldest_unacked_seconds": {"queue": [REAP]},
        "atemporal_volume_deletions_total": {"result": ["deleted", "failed"]},
        "atemporal_ec2_notices_total": {"kind": NOTICE_KINDS, "result": ["followed", "ignored"]},
        "atemporal_reconciliation_rows": {"status": Status},
        "atemporal_record_violations": {"invariant": [one.name for one in INVARIANTS]},
        "atemporal_cost_usd_total": {"capacity_type": CAPACITY_TYPES},
        "atemporal_billed_seconds_total": {"capacity_type": CAPACITY_TYPES},
        "atemporal_cost_usd_per_hour": {"capacity_type": CAPACITY_TYPES},
        "atemporal_waiting": {"phase": set(Phase) - {Phase.TIME}},
        "atemporal_longest_wait_seconds": {"phase": set(Phase) - {Phase.TIME}},
    },
    "api": {
        **_common("api"),
        "atemporal_attempts_ended_total": {
            "reason": REPORTED | {Reason.CANCELLED, Reason.RESCHEDULED}
        },
        "atemporal_submits_total": {"via": ["http"], "result": RESULTS},
        "atemporal_fires_total": {"outcome": FireOutcome, "reason": ["none", *FireReason]},
        "atemporal_callbacks_total": {
            "kind": ["up", "started", "ready", "claim", "exit", "log", "log_script"],
            "result": ["taken", "early", "stale", "refused", "denied", "failed"],
        },
        "atemporal_log_bytes_total": {"result": ["taken", "repeated", "missing"]},
        "atemporal_machine_clocks_total": {"state": ClockState},
        "atemporal_assignments_total": {
            "result": ["assigned", "wait", "none", "unproven", "denied", "failed"]
        },
    },
}
"""Each process's metrics with labels, and all values of these."""


@pytest.fixture(scope="module")
def started() -> dict[str, str]:
    """What each process shows once it is put together, each in a process of its own."""
    env = os.environ | {
        "ATEMPORAL_CALLBACK_KEYS": "k1:0123456789abcdef0123456789abcdef",
        "ATEMPORAL_EVENTS_QUEUE_URL": "http://127.0.0.1:1/1/events",
    }
    running = {
        name: subprocess.Popen(
            [sys.executable, "-c", START, name],
            cwd=ROOT,
            env=env,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in PROCESSES
    }
    shown = {name: process.communicate(timeout=60)[0] for name, process in running.items()}
    assert {name: process.returncode for name, process in running.items()} == dict.fromkeys(
        PROCESSES, 0
    )
    return shown


@pytest.mark.parametrize("process", PROCESSES)
def test_a_process_shows_its_own_metrics_and_no_others(
    started: dict[str, str], process: str
) -> None:
    mine = {name for name, processes in documented().items() if process in processes}
    assert len(mine) >= 7
    assert families(started[process]).keys() == mine


@pytest.mark.parametrize("process", PROCESSES)
def test_every_series_is_there_from_the_start_with_0(
    started: dict[str, str], process: str
) -> None:
    shown = series(started[process])
    assert shown
    assert set(shown.values()) == {0.0}
    # None is without any: a bare name on the page counts nothing.
    kinds = families(started[process])
    first = {"histogram": "_count"}
    assert kinds.keys() - OPEN == {
        name
        for name, kind in kinds.items()
        if any(one == name + first.get(kind, "") for one, _ in shown)
    }


@pytest.mark.parametrize("process", PROCESSES)
def test_every_value_of_a_closed_label_set_has_its_series(
    started: dict[str, str], process: str
) -> None:
    shown = series(started[process])
    # A histogram is counted once: by its count.
    count = {
        f"{name}_count": name
        for name, kind in families(started[process]).items()
        if kind == "histogram"
    }
    shown = {
        (count.get(name, name), labels): 0.0
        for name, labels in shown
        if not name.endswith(("_bucket", "_sum"))
    }
    labelled = {name for name, labels in shown if labels}
    assert labelled == CLOSED[process].keys()
    for name, labels in CLOSED[process].items():
        expected = {
            frozenset(zip(labels, map(str, values), strict=True))
            for values in product(*labels.values())
            if name != "atemporal_fires_total" or _can_be(*values)
        }
        if name == "atemporal_ec2_notices_total":
            # What says nothing about an instance can not be followed.
            expected.add(frozenset({("kind", "other"), ("result", "ignored")}))
        assert {labels for one, labels in shown if one == name} == expected, name


def _can_be(outcome: str, reason: str) -> bool:
    """Whether a fire can end so: each reason has its outcome, and what ran has none."""
    return outcome == (FireOutcome.RAN if reason == "none" else FireReason(reason).outcome)


def test_all_reasons_of_an_attempts_end_are_counted_by_somebody() -> None:
    counted = {
        str(reason)
        for process in CLOSED.values()
        for reason in process.get("atemporal_attempts_ended_total", {}).get("reason", ())
    }
    # A job that waited too long for a launcher has no attempt.
    assert counted == set(Reason) - {Reason.QUEUE_DEADLINE}


RESERVED = ("_info", "_count", "_sum", "_bucket", "_created", "_min", "_max", "_avg")
TYPES = {"counter", "gauge", "histogram", "summary"}
OTHER_UNITS = {
    *("ms", "us", "ns", "millis", "milliseconds", "microseconds", "nanoseconds", "sec", "secs"),
    *("minutes", "mins", "hours", "days", "kb", "mb", "gb", "kib", "mib", "gib", "kilobytes"),
    *("megabytes", "gigabytes", "bits", "percent", "pct"),
}
TIMES = {
    *(
        "age",
        "delay",
        "duration",
        "elapsed",
        "lag",
        "last",
        "latency",
        "leak",
        "longest",
        "oldest",
    ),
    *("time", "timestamp", "uptime", "wait"),
}
SIZES = {"disk", "memory", "size"}
# What Prometheus itself puts on every series.
TAKEN_LABELS = {"job", "instance", "le", "quantile"}


def broken_rules(family: Family) -> Iterator[str]:
    """What a metric's declaration breaks of the rules, one sentence each."""
    parts = family.name.split("_")
    unit = parts[-2] if parts[-1] == "total" else parts[-1]
    if not re.fullmatch(r"atemporal(_[a-z][a-z0-9]*)+", family.name):
        yield "the name is atemporal_ and words in snake_case"
    if (parts[-1] == "total") != (family.kind == "counter"):
        yield "a counter ends in _total, and nothing else does"
    if family.name.endswith(RESERVED):
        yield "the ending belongs to another kind of metric, or to a query's result"
    if TYPES & set(parts):
        yield "the name does not hold its type"
    if OTHER_UNITS & set(parts):
        yield "units are seconds and bytes"
    if TIMES & set(parts) and unit != "seconds":
        yield "a time ends in its unit, _seconds"
    if SIZES & set(parts) and unit != "bytes":
        yield "a size ends in its unit, _bytes"
    if {"seconds", "bytes"} & set(parts[:-1]) and unit not in ("seconds", "bytes"):
        yield "the unit comes last"
    if {"rate", "frequency"} & {unit}:
        yield "a rate says of what: _per_second"
    for label, values in family.labels.items():
        if not re.fullmatch(r"[a-z]+(_[a-z]+)*", label) or label in TAKEN_LABELS:
            yield f"{label}: a label is snake_case, and not one of Prometheus' own"
        if _stems(label.split("_")) & _stems(parts):
            yield f"{label}: the label repeats the name"
        for value in values:
            if not re.fullmatch(r"[A-Za-z][\w.-]*", value):
                yield f"{label}: {value!r} is no plain word"
    text = family.text
    if not re.match(r"[A-Z1]", text) or not text.endswith(".") or "\n" in text:
        yield "the help is a sentence"
    if not any(stem in text.lower() for stem in _stems(parts[1:]) if len(stem) > 2):
        yield "the help names what is counted"


def _stems(words: Iterable[str]) -> set[str]:
    return {re.sub(r"(es|s|ed)$", "", word) for word in words}


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_a_name_keeps_prometheus_rules(name: str) -> None:
    assert list(broken_rules(FAMILIES[name])) == []


GOOD = Family("atemporal_jobs_total", "counter", "Jobs that ended.", {"result": ["won", "lost"]})


@pytest.mark.parametrize(
    "bad",
    [
        replace(GOOD, name="jobs_total"),
        replace(GOOD, name="atemporal_jobsEnded_total"),
        replace(GOOD, name="atemporal_jobs"),
        replace(GOOD, kind="gauge"),
        replace(GOOD, name="atemporal_jobs_info", kind="gauge"),
        replace(GOOD, name="atemporal_jobs_created", kind="gauge"),
        replace(GOOD, name="atemporal_jobs_counter_total"),
        replace(GOOD, name="atemporal_job_wait_ms", kind="gauge"),
        replace(GOOD, name="atemporal_job_hours_total"),
        replace(GOOD, name="atemporal_job_duration", kind="histogram"),
        replace(GOOD, name="atemporal_job_wait_total"),
        replace(GOOD, name="atemporal_job_size", kind="gauge"),
        replace(GOOD, name="atemporal_job_seconds_spent_total"),
        replace(GOOD, name="atemporal_job_rate", kind="gauge"),
        replace(GOOD, labels={"jobs": ["a"]}),
        replace(GOOD, labels={"job_kind": ["a"]}),
        replace(GOOD, labels={"instance": ["a"]}),
        replace(GOOD, labels={"resultCode": ["a"]}),
        replace(GOOD, labels={"result": [""]}),
        replace(GOOD, labels={"result": ["all went well"]}),
        replace(GOOD, text="Jobs that ended"),
        replace(GOOD, text="jobs that ended."),
        replace(GOOD, text="Something that ended."),
    ],
    ids=str,
)
def test_the_rules_bite(bad: Family) -> None:
    assert list(broken_rules(GOOD)) == []
    assert list(broken_rules(bad)) != []


@pytest.fixture
def declared() -> Iterator[list[str]]:
    """Names of metrics of this test, which are gone after it."""
    names: list[str] = []
    yield names
    for name in names:
        REGISTRY.unregister(REGISTRY._names_to_collectors[name])
        del FAMILIES[name]


def test_a_declared_series_is_there_before_it_counts(declared: list[str]) -> None:
    declared += ["atemporal_test_a_total", "atemporal_test_b", "atemporal_test_c_seconds"]
    made = counter("atemporal_test_a_total", "A.", x=["1", "2"], y=["3"])
    gauge("atemporal_test_b", "B.", aggregate=Aggregate.MAX, x=["1"])
    histogram("atemporal_test_c_seconds", "C.", x=["1"])
    at = REGISTRY.get_sample_value
    assert at("atemporal_test_a_total", {"x": "2", "y": "3"}) == 0
    assert at("atemporal_test_b", {"x": "1"}) == 0
    assert at("atemporal_test_c_seconds_count", {"x": "1"}) == 0
    declare(made, x=["2", "4"], y=["5"])
    assert at("atemporal_test_a_total", {"x": "4", "y": "5"}) == 0
    assert at("atemporal_test_a_total", {"x": "1", "y": "5"}) is None
    assert FAMILIES["atemporal_test_a_total"].labels == {"x": ["1", "2", "4"], "y": ["3", "5"]}


def test_a_label_that_is_not_named_has_all_values_it_has(declared: list[str]) -> None:
    declared.append("atemporal_test_d_total")
    made = counter("atemporal_test_d_total", "D.", x=(), y=["1", "2"])
    assert [sample for family in made.collect() for sample in family.samples] == []
    declare(made, x=["3"])
    at = REGISTRY.get_sample_value
    assert at("atemporal_test_d_total", {"x": "3", "y": "1"}) == 0
    assert at("atemporal_test_d_total", {"x": "3", "y": "2"}) == 0


def test_a_gauge_that_another_replica_has_now_says_0_in_every_series(declared: list[str]) -> None:
    declared += ["atemporal_test_e", "atemporal_test_f"]
    one = gauge("atemporal_test_e", "E.", aggregate=Aggregate.ONE, x=["1", "2"])
    other = gauge("atemporal_test_f", "F.", aggregate=Aggregate.ONE)
    one.labels("2").set(7)
    other.set(7)
    clear(one, other)
    at = REGISTRY.get_sample_value
    assert [at("atemporal_test_e", {"x": x}) for x in "12"] == [0, 0]
    assert at("atemporal_test_f") == 0
