"""Writes the parts of the documentation that follow from the code: `python docs/generate.py`.

A test fails when what is written is not what this would write.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from atemporal.messages import JobEvent, JobSubmit, SubmitReply
from atemporal.model import JobSpec
from atemporal.states import diagram

DOCS = Path(__file__).parent
_MERMAID = re.compile(r"```mermaid\n.*?```", re.DOTALL)


def generated() -> dict[Path, str]:
    """Every generated file's whole text."""
    submit = JobSubmit.model_json_schema()
    submit["properties"]["job"] = JobSpec.model_json_schema(ref_template="#/$defs/{model}")
    submit["$defs"] = submit["properties"]["job"].pop("$defs")
    schemas = {
        "job.submit": submit,
        "job.submit.reply": SubmitReply.model_json_schema(),
        "event": JobEvent.model_json_schema(),
    }
    files = {
        DOCS / "schemas" / f"{name}.v1.json": json.dumps(schema, indent=2, sort_keys=True) + "\n"
        for name, schema in schemas.items()
    }
    page = DOCS / "ARCHITECTURE.md"
    diagrams = iter(diagram().split("\n\n"))
    files[page] = _MERMAID.sub(lambda _: f"```mermaid\n{next(diagrams)}\n```", page.read_text())
    return files


if __name__ == "__main__":
    for path, text in generated().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
