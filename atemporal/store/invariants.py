"""The promises about jobs and attempts, as queries that find what breaks them.

Promise: `violations` returns nothing on the tables of a system that kept its word, in every moment
and not only when it is calm; each query reads one snapshot, so it can be asked while daemons work.
Mechanism: an `Invariant` is a sentence and a query for the rows that contradict it. What the CHECKs
and unique indexes of `tables` forbid is asked again, because a restored or hand-mended database may
have lost them. The history is compared with the same tables of transitions that guard the updates.
Failure: with the whole history a query reads whole tables, and takes minutes where there are millions
of jobs. So what looks every few minutes asks about the jobs that have `moved`, and those under way; what
a hand does to the others is found by `atemporal audit --history`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection, text

from atemporal.concurrency import OF_INSTANCES, VCPUS
from atemporal.lead import CLAIM_AHEAD_S
from atemporal.states import ATTEMPT_TRANSITIONS, JOB_TRANSITIONS, LIVE_ATTEMPT, Fault, Reason
from atemporal.store.due import AHEAD_S
from atemporal.store.slots import COUNTED, HELD

RECENT = 1000
"""So many events are the latest."""

# A transaction that began earlier may write an event with a smaller number later.
_OVERLAP = 200
_MOVED = text(
    """
    WITH since AS (
        SELECT coalesce(:after - :overlap, (SELECT max(id) FROM events) - :limit, 0) AS id
    ), latest AS (
        SELECT id, job_id FROM events WHERE id > (SELECT id FROM since)
        ORDER BY id LIMIT :limit + :overlap
    )
    SELECT NULL AS job_id, coalesce(max(id), :after, 0) AS until, count(*) - :overlap AS events
    FROM latest
    UNION ALL
    SELECT job_id, NULL, NULL FROM latest
    UNION ALL
    SELECT job_id, NULL, NULL FROM attempts WHERE state <> 'closed'
    """
)
# Before the tables' names mean less: a slot counts whoever holds it.
_HELD_SLOTS = f"WITH held_slots AS MATERIALIZED (SELECT * FROM slots WHERE {HELD})"
# The queries find these in the place of the tables. Job by job, each by its index: for many at
# once Postgres may read the whole table instead.
_SCOPE = f"{_HELD_SLOTS}, " + ", ".join(
    f"""
    {table} AS MATERIALIZED (
        SELECT found.* FROM unnest(CAST(:jobs AS uuid[])) AS given(id), LATERAL (
            SELECT * FROM {table} WHERE {table}.{column} = given.id OFFSET 0) AS found)
    """
    for table, column in (("jobs", "id"), ("attempts", "job_id"), ("events", "job_id"))
)


@dataclass(frozen=True)
class Invariant:
    """One promise: `sentence` states it, `query` gives job_id, attempt and what of what breaks it."""

    name: str
    sentence: str
    query: str


@dataclass(frozen=True)
class Violation:
    """One row that breaks a promise; `attempt` is 0 where the job as a whole does."""

    invariant: Invariant
    job_id: UUID
    attempt: int
    what: str

    def __str__(self) -> str:
        """Name the promise, the attempt and what is wrong with it."""
        promise = f"{self.invariant.name} ({self.invariant.sentence})"
        return f"{promise}: job {self.job_id} attempt {self.attempt}: {self.what}"


class Moved(NamedTuple):
    """Jobs with something new in their history; `until` is the last event of it that was looked at."""

    jobs: set[UUID]
    until: int
    more: bool


def moved(tx: Connection, *, after: int | None = None, limit: int = RECENT) -> Moved:
    """The jobs of up to `limit` events behind the event `after`, and all with an open attempt.

    Without `after` of the newest events.
    """
    rows = tx.execute(_MOVED, {"after": after, "limit": limit, "overlap": _OVERLAP}).all()
    (last,) = (row for row in rows if row.job_id is None)
    jobs = {row.job_id for row in rows if row.job_id is not None}
    return Moved(jobs, int(last.until), more=last.events >= limit)


def violations(tx: Connection, jobs: Collection[UUID] | None = None) -> list[Violation]:
    """Return what contradicts the promises, of these jobs or of all; nothing when they hold."""
    if jobs is not None:
        # In one statement: what the queries read is read once, and by one snapshot.
        found = tx.execute(text(_AT_ONCE), {"jobs": list(map(str, jobs))})
        return [
            Violation(INVARIANTS[row.number], row.job_id, row.attempt, row.what) for row in found
        ]
    # Somebody waits for it: it may take longer than any daemon's statement.
    tx.execute(text("SET LOCAL statement_timeout = 0"))
    return [
        Violation(invariant, row.job_id, row.attempt, row.what)
        for invariant in INVARIANTS
        for row in tx.execute(text(f"{_HELD_SLOTS} {invariant.query}"))
    ]


def _listed(values: Iterable[StrEnum]) -> str:
    return ", ".join(f"'{value.value}'" for value in values)


def _pairs(transitions: Iterable[tuple[StrEnum, StrEnum]], first: StrEnum) -> str:
    pairs = [("", first.value), *((a.value, b.value) for a, b in transitions)]
    return ", ".join(f"('{a}', '{b}')" for a, b in pairs)


def _of_fault(fault: Fault) -> str:
    return _listed(reason for reason in Reason if reason.fault is fault and reason.costs)


_LIVE = _listed(LIVE_ATTEMPT)
_ATTEMPT_STATES = ", ".join(f"'attempt.{b.value}'" for _, b in ATTEMPT_TRANSITIONS)
_JOB_FIRST, _ATTEMPT_FIRST = next(iter(JOB_TRANSITIONS))[0], next(iter(ATTEMPT_TRANSITIONS))[0]

# A job's or an attempt's history as its states in order, each beside the one before it.
_JOB_PATH = """
    SELECT job_id, attempt, id, at, detail, split_part(type, '.', 2) AS state,
           coalesce(lag(split_part(type, '.', 2)) OVER w, '') AS before,
           lag(at) OVER w AS before_at, lag(detail) OVER w AS before_detail
    FROM events WHERE type LIKE 'job.%' AND type <> 'job.rescheduled'
    WINDOW w AS (PARTITION BY job_id ORDER BY id)
"""
_ATTEMPT_PATH = f"""
    SELECT job_id, attempt, id, split_part(type, '.', 2) AS state,
           coalesce(lag(split_part(type, '.', 2)) OVER w, '') AS before
    FROM events WHERE type IN ('attempt.{_ATTEMPT_FIRST.value}', {_ATTEMPT_STATES})
    WINDOW w AS (PARTITION BY job_id, attempt ORDER BY id)
"""

# Who holds a slot of what, and who has to: the limit that holds for a name is the one of just this name,
# else that of each value.
_OF_NAME = """
    SELECT most, changed_at FROM concurrency_limits AS l
    WHERE l.name = {name}
       OR strpos({name}, '=') > 0 AND l.name = split_part({name}, '=', 1) || '=*'
    ORDER BY l.name = {name} DESC LIMIT 1
"""
_UNDER_LIMITS = f"""
    SELECT job_id, number, CASE WHEN strpos(l.name, '=') = 0 THEN l.name
           ELSE key || '=' || (spec -> 'labels' ->> key) END AS name
    FROM (
        SELECT id AS job_id, attempt AS number, spec, NULL AS exit_code
        FROM jobs WHERE state = 'queued'
        UNION ALL
        SELECT a.job_id, a.number, j.spec, a.exit_code
        FROM attempts AS a JOIN jobs AS j ON j.id = a.job_id WHERE a.state <> 'closed'
    ) AS active
    CROSS JOIN (
        SELECT name, split_part(name, '=', 1) AS key, substr(name, strpos(name, '=') + 1) AS value
        FROM concurrency_limits
    ) AS l
    WHERE (exit_code IS NULL OR l.name IN ({", ".join(f"'{name}'" for name in OF_INSTANCES)}))
      AND (strpos(l.name, '=') = 0
           OR {COUNTED.format(key="key")} AND (spec -> 'labels' ->> key = value OR value = '*'))
"""

INVARIANTS: tuple[Invariant, ...] = (
    Invariant(
        "one_live_attempt",
        "a job has at most one live attempt",
        f"""
        SELECT job_id, max(number) AS attempt, count(*) || ' live attempts' AS what
        FROM attempts WHERE state IN ({_LIVE}) GROUP BY job_id HAVING count(*) > 1
        """,
    ),
    Invariant(
        "instance_of_one_attempt",
        "an instance belongs to at most one attempt",
        """
        SELECT job_id, number AS attempt, instance_id || ' has another attempt too' AS what
        FROM attempts AS a WHERE instance_id IS NOT NULL AND EXISTS (
            SELECT 1 FROM attempts AS b WHERE b.instance_id = a.instance_id
            AND (b.job_id, b.number) <> (a.job_id, a.number))
        """,
    ),
    Invariant(
        "finished_says_how",
        "a finished job has an outcome, and no other job has one",
        """
        SELECT id AS job_id, attempt, state || ', outcome ' || coalesce(outcome, 'none') AS what
        FROM jobs WHERE (state = 'finished') <> (outcome IS NOT NULL)
           OR (state = 'finished') <> (finished_at IS NOT NULL)
           OR (state = 'finished') <> (reason IS NOT NULL)
        """,
    ),
    Invariant(
        "reason_of_the_last_attempt",
        "a finished job that nothing else ended ended for its last attempt's reason",
        """
        SELECT j.id AS job_id, j.attempt,
               j.reason || ', its attempt ' || coalesce(a.reason, 'has not ended') AS what
        FROM jobs AS j JOIN attempts AS a ON a.job_id = j.id AND a.number = j.attempt
        WHERE j.state = 'finished' AND j.reason NOT IN ('cancelled', 'start_deadline', 'max_cost')
          AND a.reason IS DISTINCT FROM j.reason
        """,
    ),
    Invariant(
        "live_attempt_of_active_job",
        "only a warming or running job has a live attempt, and it is the current one",
        f"""
        SELECT a.job_id, a.number AS attempt,
               a.state || ' while the job is ' || j.state || ' at attempt ' || j.attempt AS what
        FROM attempts AS a JOIN jobs AS j ON j.id = a.job_id
        WHERE a.state IN ({_LIVE})
          AND (j.state NOT IN ('warming', 'running') OR a.number <> j.attempt)
        """,
    ),
    Invariant(
        "active_job_has_its_attempt",
        "a warming job has a live attempt that does not run, a running job one that runs",
        f"""
        SELECT j.id AS job_id, j.attempt,
               j.state || ', its attempt ' || coalesce(a.state, 'is missing') AS what
        FROM jobs AS j LEFT JOIN attempts AS a ON a.job_id = j.id AND a.number = j.attempt
        WHERE (j.state = 'running' AND a.state IS DISTINCT FROM 'running')
           OR (j.state = 'warming' AND (a.state IS NULL OR a.state = 'running'
                                        OR a.state NOT IN ({_LIVE})))
        """,
    ),
    Invariant(
        "attempt_numbers",
        "a job's attempt number is its newest attempt's, or that of one not yet begun",
        """
        SELECT a.job_id, a.number AS attempt, 'the job is at attempt ' || j.attempt AS what
        FROM attempts AS a JOIN jobs AS j ON j.id = a.job_id
        WHERE a.number > j.attempt OR (j.state = 'queued' AND a.number = j.attempt)
        """,
    ),
    Invariant(
        "within_budget",
        "neither the program nor the infrastructure fails more often than the job allows",
        f"""
        SELECT id AS job_id, attempt,
               program || ' failures of the program, ' || infra || ' of the infrastructure' AS what
        FROM (
            SELECT j.id, j.attempt, j.attempt_base, j.attempt_limit, j.spec,
                   count(*) FILTER (WHERE a.reason IN ({_of_fault(Fault.PROGRAM)})) AS program,
                   count(*) FILTER (
                       WHERE a.reason IN ({_of_fault(Fault.INFRASTRUCTURE)})) AS infra
            FROM jobs AS j
            LEFT JOIN attempts AS a ON a.job_id = j.id AND a.number > j.attempt_base
            GROUP BY j.id, j.attempt, j.attempt_base, j.attempt_limit, j.spec
        ) AS counted
        WHERE program > (spec ->> 'max_attempts')::int
           OR infra > (spec ->> 'infra_retries')::int + 1
           OR attempt - attempt_base > attempt_limit
        """,
    ),
    Invariant(
        "ended_says_why",
        "an attempt that has ended says why and when, a live one does not",
        f"""
        SELECT job_id, number AS attempt, state || ', reason ' || coalesce(reason, 'none') AS what
        FROM attempts WHERE (state IN ({_LIVE})) <> (reason IS NULL)
           OR (state IN ({_LIVE})) <> (exited_at IS NULL)
           OR (state = 'closed') <> (closed_at IS NOT NULL)
        """,
    ),
    Invariant(
        "exit_code_fits",
        "an attempt is completed if and only if its container's exit code is 0",
        """
        SELECT job_id, number AS attempt,
               reason || ', exit code ' || coalesce(exit_code::text, 'none') AS what
        FROM attempts WHERE (reason = 'completed' AND exit_code IS DISTINCT FROM 0)
           OR (reason = 'exit_nonzero' AND coalesce(exit_code, 0) = 0)
        """,
    ),
    Invariant(
        "not_before_its_time",
        "nothing starts before the time that was asked for, but for an operator's retry",
        f"""
        SELECT a.job_id, a.number AS attempt,
               'claimed at ' || a.running_at || ', started at ' || coalesce(a.started_at::text, '?')
               || ', asked for ' || j.run_at AS what
        FROM attempts AS a JOIN jobs AS j ON j.id = a.job_id
        WHERE (a.running_at < j.run_at - make_interval(secs => {CLAIM_AHEAD_S})
               OR a.started_at < j.run_at)
          AND NOT EXISTS (
            SELECT 1 FROM events AS e WHERE e.job_id = a.job_id
            AND (e.at <= a.running_at AND e.type = 'job.scheduled'
                 AND e.detail ->> 'retry' = 'operator'
                 OR e.at > a.running_at AND e.type = 'job.rescheduled'))
        """,
    ),
    Invariant(
        "not_after_its_start_deadline",
        "no machine is told to start a container after its job's start deadline",
        """
        SELECT a.job_id, a.number AS attempt,
               'claimed at ' || a.running_at || ', to start by ' || j.start_by AS what
        FROM attempts AS a JOIN jobs AS j ON j.id = a.job_id AND j.attempt = a.number
        WHERE a.running_at > j.start_by + interval '1 s'
        """,
    ),
    Invariant(
        "not_before_its_backoff",
        "another attempt is not queued before its backoff is over",
        f"""
        SELECT job_id, attempt, 'scheduled at ' || before_at || ' in '
               || (before_detail ->> 'in_s') || ' s, queued at ' || at AS what
        FROM ({_JOB_PATH}) AS path
        WHERE state = 'queued' AND before_detail ->> 'in_s' IS NOT NULL
          AND at < before_at + make_interval(secs => (before_detail ->> 'in_s')::float - {AHEAD_S})
          AND NOT EXISTS (
            SELECT 1 FROM events AS e WHERE e.job_id = path.job_id AND e.type = 'job.rescheduled'
            AND e.at BETWEEN before_at AND path.at)
        """,
    ),
    Invariant(
        "job_transitions",
        "a job's history is a path of its state machine",
        f"""
        SELECT job_id, attempt, 'from ' || before || ' to ' || state AS what
        FROM ({_JOB_PATH}) AS path
        WHERE (before, state) NOT IN ({_pairs(JOB_TRANSITIONS, _JOB_FIRST)})
        """,
    ),
    Invariant(
        "attempt_transitions",
        "an attempt's history is a path of its state machine",
        f"""
        SELECT job_id, attempt, 'from ' || before || ' to ' || state AS what
        FROM ({_ATTEMPT_PATH}) AS path
        WHERE (before, state) NOT IN ({_pairs(ATTEMPT_TRANSITIONS, _ATTEMPT_FIRST)})
        """,
    ),
    Invariant(
        "finished_is_final",
        "a finished job changes by an operator's retry only",
        f"""
        SELECT job_id, attempt, 'finished, then ' || state AS what
        FROM ({_JOB_PATH}) AS path
        WHERE before = 'finished' AND detail ->> 'retry' IS DISTINCT FROM 'operator'
        """,
    ),
    Invariant(
        "closed_is_final",
        "nothing happens to a closed attempt, but that an instance it had is written down",
        """
        SELECT later.job_id, later.attempt, 'closed, then ' || later.type AS what
        FROM events AS closed JOIN events AS later
          ON later.job_id = closed.job_id AND later.attempt = closed.attempt
         AND later.id > closed.id AND later.type LIKE 'attempt.%'
         AND later.type <> 'attempt.instance'
        WHERE closed.type = 'attempt.closed'
        """,
    ),
    Invariant(
        "job_has_its_event",
        "a job is in the state that its history ends with",
        f"""
        SELECT j.id AS job_id, j.attempt,
               j.state || ', the history ends with ' || coalesce(last.state, 'nothing') AS what
        FROM jobs AS j LEFT JOIN (
            SELECT DISTINCT ON (job_id) job_id, state FROM ({_JOB_PATH}) AS path
            ORDER BY job_id, id DESC
        ) AS last ON last.job_id = j.id
        WHERE last.state IS DISTINCT FROM j.state
        """,
    ),
    Invariant(
        "attempt_has_its_event",
        "an attempt is in the state that its history ends with",
        f"""
        SELECT a.job_id, a.number AS attempt,
               a.state || ', the history ends with ' || coalesce(last.state, 'nothing') AS what
        FROM attempts AS a LEFT JOIN (
            SELECT DISTINCT ON (job_id, attempt) job_id, attempt, state
            FROM ({_ATTEMPT_PATH}) AS path ORDER BY job_id, attempt, id DESC
        ) AS last ON last.job_id = a.job_id AND last.attempt = a.number
        WHERE last.state IS DISTINCT FROM a.state
        """,
    ),
    Invariant(
        "within_limits",
        "nothing is dispatched beyond a concurrency limit",
        f"""
        SELECT job_id, attempt,
               'dispatched at ' || taken_at || ' as ' || name || ' number ' || so_far
               || ', the limit is ' || most || ' since ' || changed_at AS what
        FROM (
            SELECT job_id, attempt, name, taken_at, sum(amount) OVER (
                PARTITION BY name ORDER BY taken_at, job_id, attempt ROWS UNBOUNDED PRECEDING
            ) AS so_far
            FROM (
                SELECT *, CASE WHEN name <> '{VCPUS}' THEN 1 ELSE (
                    SELECT coalesce(max(vcpus), 0) FROM instance_types AS t
                    WHERE t.name = ANY(held_slots.instance_types)) END AS amount
                FROM held_slots
            ) AS counted
        ) AS held CROSS JOIN LATERAL ({_OF_NAME.format(name="held.name")}) AS of_name
        -- Where the limit of just one value was removed, that of each holds since then.
        WHERE so_far > most AND taken_at > greatest(changed_at, (
            SELECT max(at) FROM limit_changes AS c WHERE c.name = held.name))
        """,
    ),
    Invariant(
        "limited_job_holds_its_slot",
        "whoever is dispatched under a concurrency limit holds a slot of it",
        f"""
        SELECT job_id, number AS attempt, 'holds no slot of ' || name AS what
        FROM ({_UNDER_LIMITS}) AS wanted
        WHERE NOT EXISTS (
            SELECT FROM held_slots AS h WHERE h.name = wanted.name
            AND h.job_id = wanted.job_id AND h.attempt = wanted.number)
        """,
    ),
)

_AT_ONCE = _SCOPE + " UNION ALL ".join(
    f"""
    SELECT {number} AS number, job_id, attempt, CAST(what AS text) AS what
    FROM ({invariant.query}) AS broken_{number}
    """
    for number, invariant in enumerate(INVARIANTS)
)
