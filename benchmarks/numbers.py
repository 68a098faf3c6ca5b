"""The numbers to reach: what is promised, from which figures it is read, and whether it holds.

Promise: pure. Each number is one row of the table; each of its parts is compared with its own bound, and
what was not measured is neither met nor missed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from benchmarks.results import Figure, Result, ratio


class Verdict(StrEnum):
    """What became of a number."""

    MET = "met"
    MISSED = "missed"
    UNKNOWN = "not measured"


@dataclass(frozen=True)
class Part:
    """One figure with its bound; with `beside` it is the ratio of the two that counts.

    `share` is printed as a multiple or a share, everything else in its `unit`.
    """

    figure: Figure
    unit: str = ""
    at_least: float | None = None
    at_most: float | None = None
    beside: Figure | None = None

    def value(self, results: Mapping[str, Result]) -> float | None:
        """The median, or the ratio of the medians of one run."""
        if self.beside is None:
            return self.figure.median(results)
        return ratio(self.figure, self.beside, results)

    def verdict(self, results: Mapping[str, Result]) -> Verdict:
        """Whether it is within its bounds."""
        value = self.value(results)
        if value is None:
            return Verdict.UNKNOWN
        low = self.at_least is not None and value < self.at_least
        high = self.at_most is not None and value > self.at_most
        return Verdict.MISSED if low or high else Verdict.MET


@dataclass(frozen=True)
class Number:
    """One row: what it is about, the target in words, what was known of the build before, the parts.

    All parts have to be met, or with `either` one of them.
    """

    name: str
    what: str
    target: str
    before: str
    parts: Sequence[Part]
    either: bool = False

    def verdict(self, results: Mapping[str, Result]) -> Verdict:
        """Missed when a part is, unknown when one is and none is missed."""
        found = {part.verdict(results) for part in self.parts}
        ranked = (Verdict.MISSED, Verdict.UNKNOWN, Verdict.MET)
        return next(one for one in (ranked[::-1] if self.either else ranked) if one in found)


_DISPATCH = Figure("dispatch", "throughput", "jobs_per_s")
_CONSUMED = Figure("consumer", "plain", "jobs_per_s")
_DAEMONS = ("scheduler", "launcher", "reaper", "api")
_PEERS = ("pgqueuer", "procrastinate", "celery", "apscheduler", "oban")

NUMBERS: tuple[Number, ...] = (
    Number(
        "dispatch",
        "Due to confirmed in a durable quorum queue, claim and commit included, of 1,000,000 scheduled",
        ">= 20,000 jobs/s; >= 0.45 of raw confirmed publishing; >= 3 x the build before",
        "1,531 jobs/s, 0.094 of raw",
        (
            Part(_DISPATCH, "jobs/s", at_least=20_000),
            Part(
                _DISPATCH,
                "of raw",
                at_least=0.45,
                beside=Figure("dispatch", "raw-publishing", "messages_per_s"),
            ),
            Part(
                _DISPATCH,
                "x the build before",
                at_least=3,
                beside=Figure("dispatch", "older-build", "jobs_per_s"),
            ),
        ),
    ),
    Number(
        "consumer",
        "The same to a live consumer in another process, acked",
        ">= 14,000 jobs/s; >= 10 x every peer with 1,000,000 future jobs",
        "not measured",
        (
            Part(_CONSUMED, "jobs/s", at_least=14_000),
            *(
                Part(
                    Figure("peers", "atemporal", "jobs_per_s"),
                    f"x {peer}",
                    at_least=10,
                    beside=Figure("peers", peer, "jobs_per_s"),
                )
                for peer in _PEERS
            ),
        ),
    ),
    Number(
        "latency",
        "Due time to the message in another process's hands, light load, 1,000,000 future jobs",
        "p50 <= 2.5 ms, p99 <= 6 ms, none early",
        "not measured",
        (
            Part(Figure("dispatch", "latency", "p50_ms"), "ms p50", at_most=2.5),
            Part(Figure("dispatch", "latency", "p99_ms"), "ms p99", at_most=6),
            Part(Figure("dispatch", "latency", "early"), "early", at_most=0),
        ),
    ),
    Number(
        "old snapshot",
        "Throughput kept while an old snapshot is open",
        ">= 80 %",
        "not measured",
        (Part(Figure("dispatch", "old-snapshot", "kept"), "of it", at_least=0.8),),
    ),
    Number(
        "start skew",
        "Container start minus its time, 200 jobs on the twin with realistic boots",
        "p99 <= 250 ms, none early by a millisecond",
        "minutes: it started when the machine was ready",
        (
            Part(Figure("start_skew", "start-skew", "skew_ms.p99"), "ms p99", at_most=250),
            Part(Figure("start_skew", "start-skew", "early"), "early", at_most=0),
        ),
    ),
    Number(
        "scale",
        "Each question of a person or a daemon, with 1,000,000 jobs scheduled and 1,000,000 finished",
        "p95 <= 100 ms",
        "not measured",
        (
            Part(
                Figure("scale", "a-million-finished", "worst_p95_ms"),
                "ms p95 of the slowest",
                at_most=100,
            ),
        ),
    ),
    Number(
        "page",
        "The page at `/ui`: its first view, with 1,000,000 jobs scheduled and 1,000,000 finished",
        "p95 <= 200 ms, <= 100 KB",
        "no page",
        (
            Part(Figure("page", "views", "first_view_p95_ms"), "ms p95", at_most=200),
            Part(Figure("page", "views", "first_view_kb"), "KB", at_most=100),
            Part(
                Figure("page", "views", "worst_p95_ms"), "ms p95 of the slowest view", at_most=200
            ),
        ),
    ),
    Number(
        "burst",
        "1,000 due jobs of one shape, EC2's default buckets",
        "all instances running in <= 5 s of EC2's time, <= 20 RunInstances calls",
        "one call a job: 498 s",
        (
            Part(Figure("burst", "burst", "all_running_s"), "s", at_most=5),
            Part(Figure("burst", "burst", "run_instances_calls"), "calls", at_most=20),
        ),
    ),
    Number(
        "refused calls",
        "Calls refused by EC2's default buckets, 2 launchers and 2 reapers, hostile weather",
        "none provoked by ourselves beyond the first sign of throttling",
        "476 to 786 a run",
        (
            Part(
                Figure("ec2_calls", "hostile", "refused_beyond_the_first_sign"),
                "beyond the first sign",
                at_most=0,
            ),
        ),
    ),
    Number(
        "ec2 calls",
        "EC2 calls for 100 jobs, calm / hostile",
        "DescribeInstances <= 20 / 80, GetConsoleOutput <= 2 / 30",
        "hostile: 217 to 251 / 107 to 163",
        (
            Part(Figure("ec2_calls", "calm", "describe_per_100"), "Describe calm", at_most=20),
            Part(Figure("ec2_calls", "hostile", "describe_per_100"), "hostile", at_most=80),
            Part(Figure("ec2_calls", "calm", "console_per_100"), "console calm", at_most=2),
            Part(Figure("ec2_calls", "hostile", "console_per_100"), "hostile", at_most=30),
        ),
    ),
    Number(
        "intake",
        "`job.submit`, 10,000 messages",
        ">= 10 x the build before, or >= 5,000 jobs/s",
        "107 jobs/s",
        (
            Part(Figure("intake", "messages", "jobs_per_s"), "jobs/s", at_least=5_000),
            Part(
                Figure("intake", "messages", "jobs_per_s"),
                "x the build before",
                at_least=10,
                beside=Figure("intake", "older-build", "jobs_per_s"),
            ),
        ),
        either=True,
    ),
    Number(
        "terminate",
        "A container's exit to TerminateInstances sent",
        "p99 <= 500 ms",
        "not measured",
        (
            Part(Figure("terminate", "singles", "p99_ms"), "ms p99, one by one", at_most=500),
            Part(Figure("terminate", "burst", "p99_ms"), "ms p99, 500 at once", at_most=500),
        ),
    ),
    Number(
        "footprint",
        "One daemon, idle / after 10,000 jobs",
        "<= 60 MB, < 1 % of a processor / no growth beyond 10 %",
        "55 to 110 MB; reapers grew from 105 to 160-183 MB over 700 jobs",
        (
            *(
                Part(Figure("footprint", "idle", f"{name}_mb"), f"MB {name}", at_most=60)
                for name in _DAEMONS
            ),
            *(
                Part(Figure("footprint", "idle", f"{name}_cpu_percent"), "% of one", at_most=1)
                for name in _DAEMONS
            ),
            *(
                Part(Figure("footprint", "growth", f"{name}_growth_percent"), "% more", at_most=10)
                for name in ("scheduler", "api")
            ),
        ),
    ),
    Number(
        "command line",
        "`atemporal --help` / `list` / `show`, warm",
        "<= 150 ms / <= 400 ms / <= 400 ms",
        "150-450 ms / 2.0-2.8 s",
        (
            Part(Figure("footprint", "command-line", "help_ms"), "ms --help", at_most=150),
            Part(Figure("footprint", "command-line", "list_ms"), "ms list", at_most=400),
            Part(Figure("footprint", "command-line", "show_ms"), "ms show", at_most=400),
        ),
    ),
)
