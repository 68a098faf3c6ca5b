"""All questions, and the order in which they are asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.measure import TODAY, Measure, Question

MILLION = "million"
"""The database with 1,000,000 jobs of another day, filled once for several questions."""

# The build before the commands imported only what they need.
_BEFORE_LAZY = "7662d82"
_FUTURE = {"future": 100_000}
# At today's rates two seconds and more; the build before gets 20,000, which favours it if anything.
_MANY = {"due": 50_000}
_FEW = {"due": 5_000, **_FUTURE}
_HELD = {"due": 500, "future": 3_000, "limit_s": 8}
_PEER = {"due": 1_000, "future": 50_000, "limit_s": 8}


def _on_million(
    name: str,
    function: str,
    arguments: Mapping[str, Any] | None = None,
    *,
    quick: Mapping[str, Any] = _FEW,
    times: int = 3,
    build: str | None = None,
) -> Measure:
    return Measure(name, function, arguments or {}, quick, times, build, database=MILLION)


def _peer(name: str, due: int) -> Measure:
    return Measure(name, f"peers:{name}", {"due": due}, _PEER)


QUESTIONS: tuple[Question, ...] = (
    Question(
        "dispatch",
        "From due to confirmed",
        (
            _on_million("throughput", "dispatch:throughput", _MANY),
            Measure("raw-publishing", "ceilings:publishing", quick={"messages": 20_000}),
            _on_million("claiming-alone", "ceilings:claiming"),
            _on_million("older-build", "dispatch:throughput", build=TODAY),
            _on_million("two-replicas", "dispatch:throughput", {**_MANY, "replicas": 2}),
            _on_million("four-replicas", "dispatch:throughput", {**_MANY, "replicas": 4}),
            _on_million("whole-daemon", "dispatch:whole_daemon", times=1),
            _on_million(
                "latency", "dispatch:latency", quick={"over_s": 5, "jobs": 100, **_FUTURE}
            ),
            _on_million("old-snapshot", "dispatch:old_snapshot", times=1),
        ),
    ),
    Question(
        "consumer",
        "From due to acknowledged by another process",
        (
            _on_million("plain", "consumer:plain", _MANY),
            _on_million("launcher", "consumer:launcher", _MANY),
        ),
    ),
    Question(
        "backlog",
        "The cost as the backlog grows",
        (
            Measure("to-1,000,000", "growth:growing", quick={"most": 100_000}, times=1),
            Measure(
                "to-10,000,000",
                "growth:growing",
                {"most": 10_000_000},
                times=1,
                full=True,
                limit_s=3600,
            ),
        ),
    ),
    Question(
        "peers",
        "The same work by others",
        (
            _on_million("atemporal", "consumer:plain", _MANY),
            _peer("pgqueuer", 10_000),
            _peer("procrastinate", 10_000),
            _peer("apscheduler", 5_000),
            _peer("oban", 10_000),
            Measure("celery", "peers:celery", quick=_HELD, times=1),
        ),
    ),
    Question(
        "intake",
        "Messages that become jobs",
        (
            Measure("messages", "intake:messages", quick={"messages": 1_000}),
            Measure(
                "older-build",
                "intake:messages",
                {"messages": 2_000},
                quick={"messages": 300},
                times=2,
                build=TODAY,
            ),
            Measure("batch", "intake:batch", quick={"jobs_": 1_000}),
        ),
    ),
    Question(
        "bloat",
        "A day at one job a second",
        (
            Measure("a-tenth-of-a-day", "bloat:day", quick={"lives": 500}, times=1),
            Measure("a-day", "bloat:day", {"lives": 86_400}, times=1, full=True, limit_s=7200),
        ),
    ),
    Question(
        "scale",
        "What is asked again and again, of large tables",
        (
            Measure(
                "a-million-finished",
                "scale:questions",
                quick={"future": 20_000, "finished": 20_000, "rounds": 3},
                times=1,
                limit_s=1200,
            ),
            Measure(
                "ten-million-finished",
                "scale:questions",
                {"finished": 10_000_000, "thin": True},
                times=1,
                full=True,
                database="ten million",
                limit_s=7200,
            ),
        ),
    ),
    Question(
        "page",
        "How soon a person sees something",
        (
            Measure(
                "views",
                "page:views",
                quick={"future": 20_000, "finished": 20_000, "rounds": 3},
                times=1,
                limit_s=1200,
            ),
        ),
    ),
    Question(
        "burst",
        "A thousand at once",
        (Measure("burst", "burst:burst", quick={"many": 100}, times=1),),
    ),
    Question(
        "start_skew",
        "Container start minus its time",
        (
            Measure(
                "start-skew",
                "start_skew:start_skew",
                # A lead is two minutes until it is learned.
                quick=None,
                times=1,
                limit_s=900,
            ),
        ),
    ),
    Question(
        "terminate",
        "From a container's exit to TerminateInstances",
        (
            Measure("singles", "terminate:singles", quick={"many": 20}, times=1),
            Measure("burst", "terminate:burst", quick={"many": 50}, times=1),
        ),
    ),
    Question(
        "ec2_calls",
        "What EC2 is asked for a hundred jobs",
        (
            Measure("calm", "ec2_calls:calm", quick={"jobs": 10}, times=1, limit_s=900),
            Measure("hostile", "ec2_calls:hostile", quick={"jobs": 5}, times=1, limit_s=900),
        ),
    ),
    Question(
        "footprint",
        "What a process takes",
        (
            Measure("idle", "footprint:idle", quick={"settle_s": 2.0, "over_s": 5.0}, times=1),
            Measure("growth", "footprint:growth", quick={"jobs": 500}, times=1),
            Measure("command-line", "footprint:command_line", quick={"times": 3}),
            Measure(
                "command-line-before",
                "footprint:command_line",
                quick={"times": 3},
                build=_BEFORE_LAZY,
            ),
        ),
    ),
)
