"""A real Prometheus with the committed example of a configuration: other addresses, and a quicker pace.

Promise: it listens on loopback only, keeps its data in a folder of the test's own, and ends by `close`.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.servers.child import Child
from tests.servers.ports import free_port

FOLDER = Path(__file__).parents[2] / "deploy" / "prometheus"


class Prometheus:
    """One running server."""

    def __init__(self, directory: Path, ports: Mapping[str, int]) -> None:
        """Start it, scraping services by name at these ports each second; return when it answers."""
        directory.mkdir(exist_ok=True)
        config = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
        config["global"] = dict.fromkeys(config["global"], "1s")
        config["rule_files"] = [str(FOLDER / pattern) for pattern in config["rule_files"]]
        for job in config["scrape_configs"]:
            (targets,) = job["static_configs"]
            port = ports[job["job_name"].removeprefix("atemporal-")]
            targets["targets"] = [f"127.0.0.1:{port}"]
        file = directory / "prometheus.yml"
        file.write_text(yaml.safe_dump(config))
        port = free_port()
        # One for all: to make a client takes longer than to ask.
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30)
        self._child = Child(
            [
                "prometheus",
                f"--config.file={file}",
                f"--storage.tsdb.path={directory / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            log=directory / "prometheus.log",
        )
        self._child.wait_ready(self._answers)

    def _answers(self) -> bool:
        try:
            return self._client.get("/-/ready").status_code == 200
        except httpx.TransportError:
            return False

    def ask(self, query: str) -> list[dict[str, Any]]:
        """The present value of each series of a query.

        Raises:
            ValueError: Prometheus refuses it, or warns of it.
        """
        found: list[dict[str, Any]] = self._get("query", query=query)["result"]
        return found

    def rules(self) -> list[dict[str, Any]]:
        """All rules that it has loaded, each with how its last evaluation went."""
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def _get(self, what: str, **parameters: str) -> Any:
        answer = self._client.get(f"/api/v1/{what}", params=parameters).json()
        if answer["status"] != "success" or answer.get("warnings"):
            raise ValueError(f"{parameters}: {answer}")
        return answer["data"]

    def close(self) -> None:
        """End it."""
        self._client.close()
        self._child.end(signal.SIGTERM)
