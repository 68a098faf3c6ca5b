"""A dashboard for each daemon: whether its loops succeed, what it does, and what hinders it."""

from __future__ import annotations

from collections.abc import Sequence

from deploy.grafana.panel import (
    BYTES,
    PER_SECOND,
    SECONDS,
    SHARE,
    Builder,
    buckets,
    dashboard,
    lines,
    stats,
)


def _quantiles(metric: str, *, by: str = "", only: str = "") -> dict[str, str]:
    """The median and the slow end of a histogram; of each value of the label `by` that is in `only`."""
    labels, legend, matcher = ("le", "", "@")
    if by:
        labels, legend, matcher = (f"le, {by}", f"{{{{{by}}}}} ", f'{by}=~"{only}",@')
    return {
        f"{legend}p{share * 100:.0f}": f"histogram_quantile({share}, "
        f"sum by ({labels}) (rate({metric}_bucket{{{matcher}}}[~])))"
        for share in (0.5, 0.95)
    }


def _process(name: str) -> Sequence[Builder]:
    """What every process shows."""
    job = f'job="atemporal-{name}",@'
    return [
        stats(
            "Replicas",
            "How many answer Prometheus.",
            f"sum(up{{{job}}})",
            bad_below=1,
        ),
        stats(
            "Slowest loop",
            "Time since the last success of the loop that is furthest behind, by its best "
            "replica.",
            "max(time() - max by (deployment, loop) "
            f"(atemporal_last_success_timestamp_seconds{{{job}}}))",
            unit=SECONDS,
            limits=(300, 900),
        ),
        stats(
            "Unforeseen errors",
            "Ticks of the last hour that failed for a reason that nobody foresaw.",
            f'sum(increase(atemporal_tick_errors_total{{kind="error",{job}}}[1h]))',
        ),
        stats(
            "Rows left out",
            "Times in the last hour that a row was left out because this release can not read it.",
            f"sum(increase(atemporal_unreadable_rows_total{{{job}}}[1h]))",
        ),
        stats(
            "Memory",
            "Resident memory of the largest replica.",
            f"max(process_resident_memory_bytes{{{job}}})",
            unit=BYTES,
            limits=(1e9, 2e9),
        ),
        stats(
            "Processor",
            "Processors that the busiest replica keeps busy.",
            f"max(rate(process_cpu_seconds_total{{{job}}}[~]))",
            limits=(0.7, 0.9),
        ),
        lines(
            "Time since each loop's last success",
            "By its best replica. A loop rests for a minute at most while there is nothing to do.",
            {
                "{{loop}}": "max by (loop) (time() - max by (deployment, loop) "
                f"(atemporal_last_success_timestamp_seconds{{{job}}}))"
            },
            unit=SECONDS,
            limits=(900,),
        ),
        lines(
            "Failed ticks",
            "unavailable: a server that it needs was away. error: nobody foresaw it; the log has "
            "a traceback.",
            {
                "{{loop}} {{kind}}": "sum by (loop, kind) "
                f"(rate(atemporal_tick_errors_total{{{job}}}[~]))"
            },
            unit=PER_SECOND,
        ),
    ]


def _unacked(queue: str, width: int = 12) -> Builder:
    return lines(
        "Messages in hand",
        "How long the oldest message that is not acknowledged has been in a process' hand.",
        {"{{queue}}": f'max by (queue) (atemporal_oldest_unacked_seconds{{queue=~"{queue}",@}})'},
        unit=SECONDS,
        limits=(900,),
        width=width,
    )


def _limits(name: str) -> Sequence[Builder]:
    """EC2's limits, as one kind of process uses them."""
    job = f'job="atemporal-{name}",@'
    return [
        lines(
            "Calls to EC2",
            "By kind, and those that EC2 refused as too many.",
            {
                "{{kind}}": f"sum by (kind) (rate(atemporal_ec2_calls_total{{{job}}}[~]))",
                "{{kind}} refused": "sum by (kind) "
                f"(rate(atemporal_ec2_calls_refused_total{{{job}}}[~])) > 0",
            },
            unit=PER_SECOND,
        ),
        lines(
            "Tokens left",
            "Of each limit, for all processes together, when one last asked: at 0 calls wait.",
            {
                "{{kind}} {{bucket}}": "min by (kind, bucket) "
                f"(atemporal_rate_limit_tokens{{{job}}})"
            },
        ),
    ]


SCHEDULER = dashboard(
    "Atemporal: scheduler",
    "atemporal-scheduler",
    "Takes submits, hands on what is due, makes the jobs of schedules, tells others what happens.",
    {
        "Process": _process("scheduler"),
        "Jobs": [
            lines(
                "The job that has been due the longest",
                "Without being handed on. What waits for a concurrency limit does not count.",
                {"waits": "max(atemporal_oldest_due_seconds{@})"},
                unit=SECONDS,
                limits=(60,),
            ),
            lines(
                "Jobs handed on, and submits by message",
                "The jobs that came by HTTP are on the dashboard of the API.",
                {
                    "handed on": "sum(rate(atemporal_due_jobs_published_total{@}[~]))",
                    "submit {{result}}": "sum by (result) "
                    '(rate(atemporal_submits_total{via="amqp",@}[~]))',
                },
                unit=PER_SECOND,
            ),
            lines(
                "Fires of schedules",
                "What became of them, and why they were not run.",
                {
                    "{{outcome}} {{reason}}": "sum by (outcome, reason) "
                    "(increase(atemporal_fires_total{@}[~]))"
                },
            ),
            lines(
                "Leads",
                "How long before its time the launch of a job begins.",
                _quantiles("atemporal_lead_seconds"),
                unit=SECONDS,
            ),
        ],
        "Messages": [
            lines(
                "Events that wait for the broker",
                "10,000 stands for that many or more.",
                {"events": "sum(max by (deployment) (atemporal_outbox_events{@}))"},
            ),
            lines(
                "The oldest event that waits",
                "For the broker, and for the receiver of a webhook.",
                {
                    "broker": "max(atemporal_outbox_oldest_seconds{@})",
                    "webhook": "max(atemporal_webhook_oldest_pending_seconds{@})",
                },
                unit=SECONDS,
                limits=(300, 3600),
            ),
            lines(
                "Events published, webhooks delivered",
                "refused: by the queue of a listener that is full.",
                {
                    "published": "sum(rate(atemporal_events_relayed_total{@}[~]))",
                    "refused": "sum(rate(atemporal_events_refused_total{@}[~]))",
                    "webhook {{result}}": "sum by (result) "
                    "(rate(atemporal_webhook_deliveries_total{@}[~]))",
                },
                unit=PER_SECOND,
            ),
            lines(
                "Dead letters",
                "Those that came, by reason.",
                {"{{reason}}": "sum by (reason) (increase(atemporal_dead_letters_total{@}[~]))"},
            ),
            _unacked("atemporal.submit|atemporal.schedule|atemporal.dead", width=24),
        ],
    },
)

LAUNCHER = dashboard(
    "Atemporal: launcher",
    "atemporal-launcher",
    "Asks EC2 for instances.",
    {
        "Process": _process("launcher"),
        "Launches": [
            stats(
                "Circuit breaker",
                "1 while EC2 refuses every launch of a launcher.",
                "max(atemporal_launch_circuit_breaker_open{@})",
                width=8,
            ),
            stats(
                "Machines that do not boot",
                "1 while the last machines never booted, and one is tried at a time.",
                "max(atemporal_machines_not_booting{@})",
                width=8,
            ),
            stats(
                "Offerings in cooldown",
                "Types and subnets that are not asked for now: no capacity, no quota, or not "
                "authorized.",
                "max(atemporal_offerings_unavailable{@})",
                limits=(1, 5),
                width=8,
            ),
            lines(
                "What EC2 answers",
                "launched, or the class of its error.",
                {"{{result}}": "sum by (result) (rate(atemporal_launches_total{@}[~])) > 0"},
                unit=PER_SECOND,
            ),
            lines(
                "Launches without an instance, by what they are blocked on",
                "none: nothing, they are on their way.",
                {
                    "{{reason}}": "sum by (reason) "
                    "(max by (deployment, reason) (atemporal_launches_blocked{@}))"
                },
                stacked=True,
            ),
            lines(
                "How long a call takes",
                "From asking EC2 for a launch to its answer.",
                _quantiles("atemporal_launch_duration_seconds"),
                unit=SECONDS,
            ),
            lines(
                "How long attempts take to get ready",
                "launch: until EC2 gave an instance. boot: until its boot callback. pull: until "
                "the container was created.",
                _quantiles(
                    "atemporal_attempt_duration_seconds", by="phase", only="launch|boot|pull"
                ),
                unit=SECONDS,
            ),
        ],
        "EC2's limits": _limits("launcher"),
        "Messages": [_unacked("atemporal.launch", width=24)],
    },
)

REAPER = dashboard(
    "Atemporal: reaper",
    "atemporal-reaper",
    "Ends instances, compares EC2 with the records, ends what is lost or late.",
    {
        "Process": _process("reaper"),
        "EC2 beside the records": [
            lines(
                "Instances that should not be",
                "orphaned: no attempt accounts for them. leaked: their attempt has ended. "
                "foreign: another installation's, with our name. missing: attempts whose "
                "instance EC2 does not show.",
                {
                    "orphaned": "max(atemporal_orphaned_instances{@})",
                    "leaked": "max(atemporal_leaked_instances{@})",
                    "foreign": "max(atemporal_foreign_instances{@})",
                    "missing": 'max(atemporal_reconciliation_rows{status="missing",@})',
                    "volumes": "max(atemporal_orphaned_volumes{@})",
                },
                limits=(1,),
            ),
            lines(
                "Part of the time with a leak",
                "Minutes of the last six hours in which an instance was orphaned or leaked, or "
                "nobody swept. From 6 % on somebody is paged.",
                {"{{deployment}}": "atemporal:leak:ratio6h{@}"},
                unit=SHARE,
                limits=(0.01, 0.06),
            ),
            lines(
                "Terminations",
                "That EC2 was asked for, by cause; and those that it refused.",
                {
                    "{{cause}}": "sum by (cause) "
                    '(increase(atemporal_terminations_total{result="asked",@}[~]))',
                    "failed": 'sum(increase(atemporal_terminations_total{result="failed",@}[~]))',
                },
            ),
            lines(
                "How long attempts run, and how long their instances take to end",
                "stop: from the end of an attempt until EC2 shows its instance gone.",
                _quantiles("atemporal_attempt_duration_seconds", by="phase", only="run|stop"),
                unit=SECONDS,
            ),
            stats(
                "Violations of the records",
                "Rows that break a promise of the tables; the alert names the invariant.",
                "sum(max by (deployment, invariant) (atemporal_record_violations{@}))",
                width=12,
            ),
            lines(
                "Notices of EC2's, jobs deleted",
                "Notices come where ATEMPORAL_EVENTS_QUEUE_URL is set; jobs are deleted when "
                "their retention is over.",
                {
                    "{{kind}}": "sum by (kind) (increase(atemporal_ec2_notices_total{@}[~])) > 0",
                    "deleted": "sum(increase(atemporal_jobs_deleted_total{@}[~]))",
                },
            ),
        ],
        "EC2's limits": _limits("reaper"),
        "Messages": [_unacked("atemporal.reap", width=24)],
    },
)

API = dashboard(
    "Atemporal: API",
    "atemporal-api",
    "Takes submits, and the callbacks of machines.",
    {
        "Process": _process("api"),
        "Machines": [
            lines(
                "Callbacks that were taken",
                "up: booted. ready: the container could start. claim: asked whether it may run. "
                "started. exit: ended. log: a part of its output.",
                {
                    "{{kind}}": "sum by (kind) "
                    '(rate(atemporal_callbacks_total{result="taken",@}[~]))'
                },
                unit=PER_SECOND,
            ),
            lines(
                "Callbacks that were not",
                "early: asked again later. stale: of an attempt that has ended. denied, refused: "
                "wrong. failed: ours.",
                {
                    "{{result}}": "sum by (result) "
                    '(rate(atemporal_callbacks_total{result!="taken",@}[~]))'
                },
                unit=PER_SECOND,
            ),
            buckets(
                "How late containers start",
                "From a job's time to the start of its container, of those that were launched "
                "ahead; seconds.",
                "sum by (le) (increase(atemporal_start_skew_seconds_bucket{@}[~]))",
                unit=SECONDS,
            ),
            lines(
                "Clocks of machines",
                "What is known of the clock of each machine that got ready, beside the "
                "database's.",
                {"{{state}}": "sum by (state) (increase(atemporal_machine_clocks_total{@}[~]))"},
            ),
            lines(
                "Machines of launch groups that ask for their job",
                "assigned, or why not yet.",
                {"{{result}}": "sum by (result) (rate(atemporal_assignments_total{@}[~]))"},
                unit=PER_SECOND,
            ),
            lines(
                "Output of containers",
                "taken; repeated: known before; missing: never sent.",
                {"{{result}}": "sum by (result) (rate(atemporal_log_bytes_total{@}[~]))"},
                unit="binBps",
            ),
        ],
        "People and programs": [
            lines(
                "Submits over HTTP",
                "duplicate: the same key and job as before. rejected: something is wrong with it.",
                {"{{result}}": 'sum by (result) (rate(atemporal_submits_total{via="http",@}[~]))'},
                unit=PER_SECOND,
                width=24,
            ),
        ],
    },
)
