"""Writes the parts of the documentation that follow from the code: `python docs/generate.py`.

A test fails when what is written is not what this would write.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from atemporal import asyncapi
from atemporal.cli.masks import masked_url
from atemporal.event_types import EVENT_TYPES
from atemporal.job_view import JobView
from atemporal.messages import MESSAGES, JobEvent, ScheduleReply, SubmitReply
from atemporal.settings import PREFIX, fields
from atemporal.states import diagram

DOCS = Path(__file__).parent
_MERMAID = re.compile(r"```mermaid\n.*?```", re.DOTALL)
_SETTINGS = """# Settings

Every process reads these environment variables. `atemporal config` prints them with the values that
are in effect and says where each comes from. An empty variable counts as one that is not set. Daemons
and the operators' commands report one that begins with `ATEMPORAL_` and is not in this list. Lists are
separated by commas.

| variable | default | meaning |
|---|---|---|
"""
_METRICS = re.compile(r"(?<=<!-- metrics -->\n).*?(?=<!-- end of metrics -->)", re.DOTALL)
_QUEUES = re.compile(r"(?<=<!-- queues -->\n).*?(?=<!-- end of queues -->)", re.DOTALL)
_EVENTS = re.compile(r"(?<=<!-- events -->\n).*?(?=<!-- end of events -->)", re.DOTALL)

PROCESSES = ("scheduler", "launcher", "reaper", "api")
# A process shows what it has imported, so each is asked in a process of its own.
_DECLARED = """
import json, sys
from dataclasses import asdict
from importlib import import_module
from atemporal.metrics import FAMILIES
import_module(f"services.{sys.argv[1]}.__main__")
print(json.dumps([asdict(family) for family in FAMILIES.values()]))
"""


def generated() -> dict[Path, str]:
    """Every generated file's whole text."""
    schemas = {
        "job.submit": asyncapi.submit_schema(),
        "job.submit.reply": SubmitReply.model_json_schema(),
        **asyncapi.schedule_schemas(),
        "schedule.reply": ScheduleReply.model_json_schema(),
        "event": JobEvent.model_json_schema(),
        "job": JobView.model_json_schema(mode="serialization"),
    }
    files = {
        DOCS / "schemas" / f"{name}.v1.json": json.dumps(schema, indent=2, sort_keys=True) + "\n"
        for name, schema in schemas.items()
    }
    # In the order in which a reader wants it.
    files[DOCS / "schemas" / "asyncapi.json"] = json.dumps(asyncapi.document(), indent=2) + "\n"
    page = DOCS / "ARCHITECTURE.md"
    diagrams = iter(diagram().split("\n\n"))
    files[page] = _MERMAID.sub(lambda _: f"```mermaid\n{next(diagrams)}\n```", page.read_text())
    page = DOCS / "messages.md"
    files[DOCS / "settings.md"] = settings()
    messages = _QUEUES.sub(lambda _: queues(), page.read_text())
    files[page] = _EVENTS.sub(lambda _: events(), messages)
    page = DOCS / "metrics.md"
    files[page] = _METRICS.sub(lambda _: metrics(), page.read_text())
    return files


def settings() -> str:
    """The page of all settings."""
    rows = [
        f"| `{PREFIX}{name.upper()}` | {_default(field.default)} | {field.description} |"
        for name, field in fields()
    ]
    return _SETTINGS + "\n".join(rows) + "\n"


def _default(value: object) -> str:
    if isinstance(value, SecretStr):
        value = masked_url(value.get_secret_value())
    if value in (None, "", (), {}):
        return ""
    if isinstance(value, tuple):
        value = ",".join(map(str, value))
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def metrics() -> str:
    """The table of the metrics: whose they are, and the values that their labels can have."""
    asked = {
        name: subprocess.Popen(
            [sys.executable, "-c", _DECLARED, name], cwd=DOCS.parent, stdout=subprocess.PIPE
        )
        for name in PROCESSES
    }
    families: dict[str, dict[str, Any]] = {}
    for process, asking in asked.items():
        for family in json.loads(asking.communicate()[0]):
            known = families.setdefault(family["name"], {**family, "of": []})
            known["of"].append(process)
            for label, values in family["labels"].items():
                before = known["labels"][label]
                before += [value for value in values if value not in before]
    rows = ["| metric | type | replicas | labels | of | what |", "|---|---|---|---|---|---|"]
    for name, family in sorted(families.items()):
        labels = "; ".join(
            f"`{label}`" + (": " if values else "") + ", ".join(f"`{value}`" for value in values)
            for label, values in family["labels"].items()
        )
        of = ", ".join(family["of"])
        kind, replicas = family["kind"], family["aggregate"]
        rows.append(f"| `{name}` | {kind} | {replicas} | {labels} | {of} | {family['text']} |")
    return "\n".join(rows) + "\n"


def queues() -> str:
    """The table of the messages that have a queue; who sends and reads one is in its docstring."""
    rows = ["| queue | type and routing key | from -> to |", "|---|---|---|"]
    rows += sorted(
        f"| `{kind.queue}` | `{kind.type_name()}` | {(kind.__doc__ or '').splitlines()[0]} |"
        for kind in MESSAGES
        if kind.queue is not None
    )
    return "\n".join(rows) + "\n"


def events() -> str:
    """The table of the events' types."""
    rows = ["| type | means |", "|---|---|"]
    rows += [f"| `{name}` | {meaning} |" for name, meaning in EVENT_TYPES.items()]
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    for path, text in generated().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
