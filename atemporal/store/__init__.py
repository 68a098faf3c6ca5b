"""Postgres, the truth: every SQL statement of the project is in this package.

Promise: a transition is one guarded UPDATE (id, attempt and the states it may come from) plus one row
in `events`, in one transaction; zero rows updated means that the caller's view was stale, and nothing
happens. Functions take an open transaction, so a caller decides what belongs together; where a job
and its attempt change together the job's row is locked first, so two processes never deadlock.
What is due is decided by the database's clock alone.

`database` connections, locks and the notification listener · `rows` what can not be read ·
`transitions` the guarded updates · `jobs` · `attempts` · `launches` intents without an instance ·
`concurrency_limits` · `slots` who counts against them · `limited_claims` what may start ·
`limit_waits` who waits · `events` history and outbox · `counts` · `reconciliation` what one reads ·
`invariants` the promises as queries · `api_tokens` · `installation` whose database this is
"""
