"""The image, from this machine into the account's registry (ECR)."""

from __future__ import annotations

import re

from atemporal.errors import Refused
from deploy.production.infra import AWS
from deploy.production.tools import Deployment, Needs, Tools

REPOSITORY = "atemporal"
DOCKER = "https://docs.docker.com/engine/install/"
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


def push(tools: Tools, name: str, local: str, tag: str) -> str:
    """Make the repository if need be, push the image, and return its name there.

    Raises:
        Invalid: with all that is missing.
    """
    needs = Needs(tools)
    needs.programs(docker=DOCKER, aws=AWS)
    account = needs.credentials()
    deployment = Deployment.find(needs, name)
    needs.value("TAG", tag, TAG, "make ... TAG=1.2.0; a tag is pushed once and never changed")
    if "docker" not in needs.missing:
        try:
            tools.ask("docker", "image", "inspect", "--format", "{{.Id}}", local)
        except Refused:
            needs.missing[local] = "no such image on this machine: `make image` builds it"
    needs.check()
    region = ("--region", deployment.region)
    host = f"{account}.dkr.ecr.{deployment.region}.amazonaws.com"
    image = f"{host}/{REPOSITORY}:{tag}"
    print(f"Pushing {local} as {image}.")
    _make(tools, *region)
    password = tools.ask("aws", "ecr", "get-login-password", *region)
    tools.run("docker", "login", "--username", "AWS", "--password-stdin", host, feed=password)
    tools.run("docker", "tag", local, image)
    tools.run("docker", "push", image)
    print(f"\nNext: IMAGE={image}")
    return image


def _make(tools: Tools, *region: str) -> None:
    names = tools.json(
        *("aws", "ecr", "describe-repositories", *region),
        *("--query", "repositories[].repositoryName"),
    )
    if REPOSITORY not in names:
        tools.run(
            *("aws", "ecr", "create-repository", *region, "--repository-name", REPOSITORY),
            *("--image-tag-mutability", "IMMUTABLE"),
            *("--image-scanning-configuration", "scanOnPush=true"),
        )
