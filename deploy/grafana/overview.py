"""The overview: is it well, what waits, what does it cost?"""

from __future__ import annotations

from deploy.grafana.panel import (
    COUNT,
    DOLLARS,
    PER_SECOND,
    SECONDS,
    SHARE,
    dashboard,
    lines,
    stats,
)

OVERVIEW = dashboard(
    "Atemporal: overview",
    "atemporal-overview",
    "Is it well, what waits, what does it cost? The dashboards of the daemons say why.",
    {
        "Is it well?": [
            stats(
                "Alerts",
                "Alerts of ours that fire; docs/runbook.md has a section for each.",
                'count(ALERTS{alertstate="firing",alertname=~"Atemporal.+",@}) or vector(0)',
            ),
            stats(
                "Replicas",
                "Replicas of each daemon that answer Prometheus.",
                'sum by (job) (up{job=~"atemporal-.+",@})',
                legend="{{job}}",
                bad_below=1,
                width=8,
            ),
            stats(
                "Last sweep",
                "Time since EC2's listing was last compared with the records. Leaks that nobody "
                "sees count as leaks.",
                "max(time() - max by (deployment) (atemporal_last_sweep_timestamp_seconds{@}))",
                unit=SECONDS,
                limits=(60, 300),
            ),
            stats(
                "Leaked instances",
                "Instances that nobody should pay for: no attempt accounts for them, or theirs "
                "has ended.",
                "sum(max by (deployment) (atemporal_orphaned_instances{@}) + max by "
                "(deployment) (atemporal_leaked_instances{@}))",
            ),
            stats(
                "Dead letters",
                "Messages that nobody could use, and about which nobody has decided.",
                "sum(max by (deployment) (atemporal_dead_letters_undecided{@}))",
            ),
            lines(
                "Pace at which the budgets go",
                "Of the two objectives: starts within a second of their time, and minutes "
                "without a leak. At 1 the budget of 30 days lasts 30 days; from 6 and 14.4 on "
                "somebody is paged.",
                {
                    "starts {{deployment}}": "atemporal:starts_late:ratio_rate1h{@} / 0.01",
                    "leaks {{deployment}}": "atemporal:leak:ratio1h{@} / 0.01",
                },
                limits=(1, 6, 14.4),
            ),
            lines(
                "How late containers start",
                "From a job's time to the start of its container, of those that were launched "
                "ahead.",
                {
                    f"p{share * 100:.0f}": f"histogram_quantile({share}, sum by (le) "
                    "(rate(atemporal_start_skew_seconds_bucket{@}[~])))"
                    for share in (0.5, 0.95, 0.99)
                },
                unit=SECONDS,
                limits=(1,),
            ),
        ],
        "What waits?": [
            lines(
                "Jobs and attempts, by what they wait for",
                "Due ones only. due: a scheduler, limit: a concurrency limit, queued: a "
                "launcher, launch: EC2, boot and pull: their machine, hold: their time, run: "
                "their program, stop: the end of their instance.",
                {
                    "{{phase}}": "sum by (phase) (max by (deployment, phase) "
                    "(atemporal_waiting{@}))"
                },
                stacked=True,
            ),
            lines(
                "The longest wait",
                "Without the phases that take as long as a job wants: its hold and its run.",
                {
                    "{{phase}}": "max by (phase) "
                    '(atemporal_longest_wait_seconds{phase!~"hold|run",@})'
                },
                unit=SECONDS,
            ),
            lines(
                "Jobs on their way",
                "Each job goes through these once, and a retry through the last three again.",
                {
                    "submitted": 'sum(rate(atemporal_submits_total{result="accepted",@}[~]))',
                    "dispatched": "sum(rate(atemporal_due_jobs_published_total{@}[~]))",
                    "launched": 'sum(rate(atemporal_launches_total{result="launched",@}[~]))',
                    "ended": "sum(rate(atemporal_attempts_ended_total{@}[~]))",
                },
                unit=PER_SECOND,
            ),
            lines(
                "How attempts end",
                "By reason; docs/endings.md says whose fault each is.",
                {
                    "{{reason}}": "sum by (reason) "
                    "(increase(atemporal_attempts_ended_total{@}[~])) > 0"
                },
                stacked=True,
            ),
        ],
        "What does it cost?": [
            lines(
                "What the instances cost in an hour",
                "Of those that are there now, by the prices of their launches.",
                {
                    "{{capacity_type}}": "sum by (capacity_type) (max by (deployment, "
                    "capacity_type) (atemporal_cost_usd_per_hour{@}))"
                },
                unit=DOLLARS,
                stacked=True,
            ),
            lines(
                "What closed attempts cost, an hour",
                "Booked when EC2 has confirmed an instance's end; without a price table nothing.",
                {
                    "{{capacity_type}}": "sum by (capacity_type) "
                    "(rate(atemporal_cost_usd_total{@}[~])) * 3600"
                },
                unit=DOLLARS,
                stacked=True,
            ),
            lines(
                "Instances that are paid for, by what they do",
                "From EC2's answer to the launch until EC2 shows the instance gone.",
                {
                    "{{phase}}": "sum by (phase) (max by (deployment, phase) "
                    '(atemporal_waiting{phase=~"boot|pull|hold|run|stop",@}))'
                },
                stacked=True,
            ),
            lines(
                "Part of the paid time in which a program runs",
                "The rest is boot, pull, hold and stop. It is counted when a phase ends, so of "
                "jobs that run for hours see a longer time.",
                {
                    "runs": 'sum(rate(atemporal_attempt_duration_seconds_sum{phase="run",@}[~])) / '
                    'sum(rate(atemporal_attempt_duration_seconds_sum{phase!="launch",@}[~]))'
                },
                unit=SHARE,
            ),
            lines(
                "Concurrency limits, by how full they are",
                "Held slots of all slots of each limit that is set.",
                {
                    "{{limit}}": "max by (limit) (atemporal_slots_used{@}) / max by "
                    "(limit) (atemporal_slots{@})"
                },
                unit=SHARE,
                limits=(1,),
            ),
            lines(
                "Jobs that wait for a concurrency limit",
                "Counted up to 1000.",
                {"{{limit}}": "max by (limit) (atemporal_slots_waited_for{@})"},
                unit=COUNT,
            ),
        ],
    },
)
