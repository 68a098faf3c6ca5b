"""What the twin was asked and what went wrong on it, kept beside it: its own log dies with it."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import httpx

from tests.e2e.system import instances


class Witness:
    """Looks at a twin's logs from time to time; what came and went between two looks is lost."""

    def __init__(self, twin_url: str) -> None:
        """Nothing is looked at yet."""
        self._url = twin_url
        self._seen: dict[tuple[float, str], tuple[str, str]] = {}

    def look(self) -> None:
        """Take over what is new; a twin that is down just now is asked the next time."""
        try:
            calls = httpx.get(f"{self._url}/_twin/calls", timeout=10).json()["calls"]
            faults = httpx.get(f"{self._url}/_twin/injected", timeout=10).json()["injected"]
        except httpx.TransportError:
            return
        for call in calls:
            names = " ".join([call["token"], *call["instances"]])
            self._keep(call, names, f"EC2 {call['action']} {names.strip()}: {call['code']}")
        for fault in faults:
            names = str(fault["instance"])
            self._keep(fault, names, f"twin's fault {fault['kind']} {names}")

    def of_job(self, job_id: UUID) -> list[tuple[float, str]]:
        """When (seconds since the epoch) and what of one job's tokens and instances was seen."""
        mine = [str(job_id)]
        for one in instances(self._url):
            if any(tag["Value"] == mine[0] for tag in one["Tags"]):
                mine.append(one["InstanceId"])
        return [
            (at, text)
            for (at, _), (names, text) in self._seen.items()
            if any(name in names for name in mine)
        ]

    def _keep(self, line: dict[str, Any], names: str, text: str) -> None:
        self._seen[float(line["at"]), text] = (names, text)
