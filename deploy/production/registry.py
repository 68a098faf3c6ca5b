"""The image, from this machine into the account's registry (ECR).

Promise: a tag there that names a commit is of an image that was built from just this commit. A tag is
pushed once and never changed: pushing the same image again does nothing, another one is refused.
Mechanism: `make image` writes the commit into the image's labels, with `-dirty` for what is in none.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from atemporal.errors import Refused
from deploy.production.infra import AWS
from deploy.production.tools import Deployment, Needs, Tools

REPOSITORY = "atemporal"
DOCKER = "https://docs.docker.com/engine/install/"
GIT = "https://git-scm.com/downloads"
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
# A date has no letter.
_COMMIT = re.compile(r"(?=.*[a-f])[0-9a-f]{7,40}")
_REVISION = "org.opencontainers.image.revision"


@dataclass(frozen=True)
class Local:
    """An image on this machine: its name, `sha256:...`, what it is in registries, and its commit."""

    name: str
    id: str
    digests: frozenset[str]
    revision: str

    @classmethod
    def find(cls, needs: Needs, name: str) -> Local:
        """Ask docker; what is missing is in `needs`."""
        needs.programs(docker=DOCKER)
        if "docker" in needs.missing:
            return cls(name, "", frozenset(), "")
        try:
            answer = needs.tools.ask("docker", "image", "inspect", "--format", "{{json .}}", name)
        except Refused as error:
            # In either case of its letters: docker's own words differ by its version.
            if "no such image" in str(error).lower():
                needs.missing[name] = "no such image on this machine: `make image` builds it"
            else:
                needs.missing["docker"] = f"{error}; does it run, and may you use it?"
            return cls(name, "", frozenset(), "")
        found = json.loads(answer)
        digests = [str(one).partition("@")[2] for one in found.get("RepoDigests") or ()]
        labels = (found.get("Config") or {}).get("Labels") or {}
        return cls(name, str(found["Id"]), frozenset(digests), str(labels.get(_REVISION, "")))


class Registry:
    """The account's, for one image under one tag."""

    def __init__(self, tools: Tools, region: str, host: str, local: Local, tag: str) -> None:
        """Nothing is asked yet."""
        self._tools = tools
        self._region = ("--region", region)
        self._host = host
        self._local = local
        self._tag = tag
        self.image = f"{host}/{REPOSITORY}:{tag}"
        """The image's name there."""

    @classmethod
    def find(cls, needs: Needs, name: str, local: str, tag: str) -> Registry:
        """Whether all is there that a push needs; what is missing is in `needs`."""
        needs.programs(aws=AWS, git=GIT)
        account = needs.credentials()
        deployment = Deployment.find(needs, name)
        needs.value("TAG", tag, TAG, "make ... TAG=1.2.0; a tag is pushed once and never changed")
        image = Local.find(needs, local)
        if not {"TAG", "git", "docker", local} & set(needs.missing) and (
            wrong := _other(needs.tools, image.revision, tag)
        ):
            needs.missing[local] = f"{wrong}: `make image` builds one of what is checked out here"
        host = f"{account}.dkr.ecr.{deployment.region}.amazonaws.com"
        return cls(needs.tools, deployment.region, host, image, tag)

    def is_there(self) -> bool:
        """Whether the registry has just this image under the tag. Changes nothing.

        Raises:
            Refused: it has another one.
        """
        if not self._has_repository():
            return False
        found = self._tools.json(
            *("aws", "ecr", "batch-get-image", *self._region),
            *("--repository-name", REPOSITORY, "--image-ids", f"imageTag={self._tag}"),
        )["images"]
        if not found:
            return False
        # By docker's store its id is the configuration's digest, or the manifest's.
        digest = str(found[0]["imageId"]["imageDigest"])
        manifest = json.loads(found[0]["imageManifest"])
        theirs = {digest, (manifest.get("config") or {}).get("digest")}
        if theirs & {self._local.id, *self._local.digests}:
            return True
        raise Refused(
            f"{self.image} is another image already ({digest}) than {self._local.name} here "
            f"({self._local.id}), and a tag is never changed: write another TAG, or leave this one "
            f"and deploy it as it is, with IMAGE={self.image}"
        )

    def push(self) -> None:
        """Make the repository if need be, and push the image unless it is there.

        Raises:
            Refused: another one has that tag, or the push failed.
        """
        if self.is_there():
            print(f"{self.image} is there already.")
            return
        print(f"Pushing {self._local.name} as {self.image}.")
        if not self._has_repository():
            self._tools.run(
                *("aws", "ecr", "create-repository", *self._region),
                *("--repository-name", REPOSITORY, "--image-tag-mutability", "IMMUTABLE"),
                *("--image-scanning-configuration", "scanOnPush=true"),
            )
        password = self._tools.ask("aws", "ecr", "get-login-password", *self._region)
        login = ("login", "--username", "AWS", "--password-stdin", self._host)
        self._tools.run("docker", *login, feed=password)
        # By its id: the name may be another image's by now.
        self._tools.run("docker", "tag", self._local.id, self.image)
        self._tools.run("docker", "push", self.image)

    def _has_repository(self) -> bool:
        names = self._tools.json(
            *("aws", "ecr", "describe-repositories", *self._region),
            *("--query", "repositories[].repositoryName"),
        )
        return REPOSITORY in names


def _other(tools: Tools, revision: str, tag: str) -> str:
    """Why an image of this revision may not have the tag; "" if it may."""
    if not revision or revision == "unknown":
        return f"it does not say which commit it is of (label {_REVISION})"
    if revision.endswith("-dirty"):
        return f"it was built with changes that are in no commit ({revision}): commit them"
    if revision.startswith(tag):
        return ""
    try:
        commit = tools.ask("git", "rev-parse", "--verify", "--quiet", f"{tag}^{{commit}}")
    except Refused:
        # A name of another kind says of no commit that the image is built from it.
        return f"git knows no commit {tag}" if _COMMIT.fullmatch(tag) else ""
    return "" if revision == commit else f"it is of commit {revision}, and TAG={tag} is {commit}"


def push(tools: Tools, name: str, local: str, tag: str) -> None:
    """Push the image, and say its name there.

    Raises:
        Invalid: with all that is missing.
        Refused: another image has that tag.
    """
    needs = Needs(tools)
    registry = Registry.find(needs, name, local, tag)
    needs.check()
    registry.push()
    print(f"\nNext: IMAGE={registry.image}")
