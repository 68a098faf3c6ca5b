"""What the twin was asked and what went wrong on it, kept beside it: its own log dies with it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx

from tests.chaos.bills import Bill, bill
from tests.e2e.system import instances

# The faults that end a machine, with whatever it had not yet said.
DEADLY = ("dies", "launch-dies", "spot-interruption")


@dataclass(frozen=True)
class End:
    """When an instance was terminated (seconds since the epoch), and EC2's code for why."""

    at: float
    code: str


class Oracle:
    """Looks at a twin's logs from time to time; what came and went between two looks is lost."""

    def __init__(self, twin_url: str, twin_directory: Path) -> None:
        """Nothing is looked at yet."""
        self._url = twin_url
        self._instances = twin_directory / "instances"
        self._seen: dict[tuple[float, str], tuple[str, str]] = {}
        self._deadly: dict[tuple[str, float], str] = {}

    def observe(self) -> None:
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
            if fault["kind"] in DEADLY:
                self._deadly[names, float(fault["at"])] = fault["kind"]

    def ends(self) -> dict[str, End]:
        """When instances really ended: their records on disk say it, no call of EC2 does."""
        found = {}
        for path in self._instances.glob("*/record.json"):
            record: Mapping[str, Any] = json.loads(path.read_bytes())
            if record["terminated_at"] is not None:
                code = (record["state_reason"] or ("",))[0]
                found[path.parent.name] = End(record["terminated_at"], code)
        return found

    def bills(self) -> dict[str, Bill]:
        """What EC2 bills for each instance, by the twin's own times: no call of EC2 tells them all."""
        return {
            path.parent.name: bill(json.loads(path.read_bytes()))
            for path in self._instances.glob("*/record.json")
        }

    def deaths(self) -> dict[str, list[float]]:
        """When EC2 put an end to instances that nobody had asked for."""
        found: dict[str, list[float]] = {}
        for instance, at in self._deadly:
            found.setdefault(instance, []).append(at)
        # A twin that is killed may have ended a machine and not yet said so.
        for instance, end in self.ends().items():
            if end.code.startswith("Server."):
                found.setdefault(instance, []).append(end.at)
        return found

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
