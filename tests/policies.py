"""IAM's decisions about the policies in `deploy/aws`, as Terraform gives them to the daemons.

Promise: `Policies.decide` says what IAM would say to a request, conditions included; a request or a key
that IAM does not know is an error, never a refusal.
Mechanism: iam-simulate (npm), an evaluator of IAM's rules on the data that AWS publishes of all actions.
Which daemon has which policies, and what is put in for which word, is read from the Terraform files.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy.terraform.configuration import Configuration, plain

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "deploy" / "aws"
TERRAFORM = ROOT / "deploy" / "terraform"
DEPLOYMENT = "prod"
JOB_ROLE = "jobs-may"
ACCOUNT = "111122223333"
REGION = "eu-central-1"
ALLOWED = "Allowed"
_WORD = re.compile(r'"([A-Z_]+)", var\.(\w+)')


@dataclass(frozen=True)
class Request:
    """One action on one resource; `context` is what AWS says of it, tags for example."""

    action: str
    resource: str
    context: Mapping[str, Any] = field(default_factory=dict)


def ec2(kind: str, name: str = "", **how: Any) -> str:
    """The ARN of one of EC2's resources in our account."""
    account = "" if kind in ("image", "snapshot") else how.get("account", ACCOUNT)
    return f"arn:aws:ec2:{REGION}:{account}:{kind}/{name or kind + '-1'}"


class Policies:
    """All policies, rendered for the deployment `prod`, and the daemons' lists of them."""

    def __init__(self) -> None:
        """Read the Terraform files."""
        configuration = Configuration.read(TERRAFORM)
        values = {"deployment": DEPLOYMENT, "job_role": JOB_ROLE}
        words = _WORD.findall(configuration.locals["policies"])
        self.documents = {
            path.name.removesuffix("-policy.json"): self._rendered(path, words, values)
            for path in sorted(FOLDER.glob("*-policy.json"))
        }
        daemons = plain(configuration.locals["daemons"])
        self.of = {name: list(daemon["policies"]) for name, daemon in daemons.items()}
        self.of["server"] = ["server"]
        self.of["jobs"] = ["job-images", "job-secrets"]

    @staticmethod
    def _rendered(
        path: Path, words: Sequence[tuple[str, str]], values: Mapping[str, str]
    ) -> dict[str, Any]:
        text = path.read_text()
        for word, variable in words:
            text = text.replace(word, values[variable])
        document: dict[str, Any] = json.loads(text)
        return document

    def decide(
        self, asked: Sequence[tuple[str, Request]], *, without: Sequence[str] = ()
    ) -> list[str]:
        """IAM's verdicts on requests of daemons: `Allowed`, `ImplicitlyDenied`, `ExplicitlyDenied`."""
        requests = [
            {
                "policies": [name for name in self.of[who] if name not in without],
                "action": request.action,
                "resource": request.resource,
                "context": dict(request.context),
            }
            for who, request in asked
        ]
        answers = evaluate({"policies": self.documents, "requests": requests})
        for (_, request), answer in zip(asked, answers, strict=True):
            if "error" in answer:
                raise AssertionError(f"{request}: {answer['error']}")
        return [answer["verdict"] for answer in answers]


def evaluate(asked: Mapping[str, Any]) -> list[Any]:
    """Ask the evaluator."""
    node = shutil.which("node")
    if node is None:
        raise RuntimeError("no node: run `python -m tests.provision`")
    done = subprocess.run(
        [node, str(ROOT / "tests" / "iam" / "evaluate.mjs")],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=True,
    )
    answers: list[Any] = json.loads(done.stdout)
    return answers
