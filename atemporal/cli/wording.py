"""How a job stands, in a word or two."""

from __future__ import annotations

from datetime import datetime

from atemporal.client import Job, JobDetail


def ending(job: Job | JobDetail) -> str:
    """How a job stands: its outcome when it has finished."""
    return job["outcome"] or job["state"]


def reason(job: Job | JobDetail) -> str:
    """Why it ended so, where its outcome does not say it, and whose fault that was."""
    if job["reason"] is None or job["outcome"] == "succeeded":
        return ""
    why = "" if job["reason"] == ending(job) else job["reason"]
    whose = "not the program's fault" if job["fault"] == "infrastructure" else ""
    return ", ".join(filter(None, (why, whose)))


def at(text: str) -> datetime:
    """An instant that the API has sent."""
    return datetime.fromisoformat(text)
