"""Writes the parts of the documentation that follow from the code: `python docs/generate.py`.

A test fails when what is written is not what this would write.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from atemporal.job_view import JobView
from atemporal.messages import MESSAGES, JobEvent, JobSubmit, SubmitReply
from atemporal.model import JobSpec
from atemporal.states import diagram

DOCS = Path(__file__).parent
_MERMAID = re.compile(r"```mermaid\n.*?```", re.DOTALL)
_QUEUES = re.compile(r"(?<=<!-- queues -->\n).*?(?=<!-- end of queues -->)", re.DOTALL)


def generated() -> dict[Path, str]:
    """Every generated file's whole text."""
    submit = JobSubmit.model_json_schema()
    submit["properties"]["job"] = JobSpec.model_json_schema(ref_template="#/$defs/{model}")
    submit["$defs"] = submit["properties"]["job"].pop("$defs")
    schemas = {
        "job.submit": submit,
        "job.submit.reply": SubmitReply.model_json_schema(),
        "event": JobEvent.model_json_schema(),
        "job": JobView.model_json_schema(mode="serialization"),
    }
    files = {
        DOCS / "schemas" / f"{name}.v1.json": json.dumps(schema, indent=2, sort_keys=True) + "\n"
        for name, schema in schemas.items()
    }
    page = DOCS / "ARCHITECTURE.md"
    diagrams = iter(diagram().split("\n\n"))
    files[page] = _MERMAID.sub(lambda _: f"```mermaid\n{next(diagrams)}\n```", page.read_text())
    page = DOCS / "messages.md"
    files[page] = _QUEUES.sub(lambda _: queues(), page.read_text())
    return files


def queues() -> str:
    """The table of the messages that have a queue; who sends and reads one is in its docstring."""
    rows = ["| queue | type and routing key | from -> to |", "|---|---|---|"]
    rows += sorted(
        f"| `{kind.queue}` | `{kind.type_name()}` | {(kind.__doc__ or '').splitlines()[0]} |"
        for kind in MESSAGES
        if kind.queue is not None
    )
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    for path, text in generated().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
