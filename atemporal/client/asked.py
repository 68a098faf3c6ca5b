"""What was asked of a job, as the API shows it: the fields of its specification."""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict


class Asked(TypedDict):
    """A job's own fields; `time` is when it is due, `payload` its environment once more."""

    image: str
    command: list[str] | None
    entrypoint: list[str] | None
    env: dict[str, str]
    secrets: NotRequired[dict[str, None]]
    secret_refs: NotRequired[dict[str, str]]
    delivery: NotRequired[str]
    payload: str
    time: str
    lead: int | str
    start_deadline_s: int | None
    timeout_s: int
    max_attempts: int
    infra_retries: int
    retry_on: list[int]
    no_retry_on: list[int]
    backoff_s: int
    max_cost: str | None
    priority: int
    machine: dict[str, Any]
    ports: list[str]
    user: str | None
    workdir: str | None
    memory_mb: int | None
    shm_mb: int | None
    volumes: list[str]
    gpus: int | str | None
    network: str
    labels: dict[str, str]
    key: str | None
