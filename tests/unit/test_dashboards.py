"""Grafana's dashboards: what is committed is what their code makes, and Grafana's own types read it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.grafana.build import files
from deploy.grafana.panel import JSONEncoder, Made, register_default_plugins
from tests.dashboards import FILES, Query, load, panels, queries
from tests.metrics import page
from tests.promql import TARGET_LABELS, mistakes, selectors
from tests.unit.test_rules import RECORDS

ROOT = Path(__file__).parents[2]
PROVISIONING = ROOT / "deploy" / "grafana" / "provisioning"

every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def test_what_is_committed_is_what_the_code_makes() -> None:
    made = files()
    assert set(FILES) == made.keys()
    stale = [path.name for path, text in made.items() if path.read_text() != text]
    assert not stale, "run: python -m deploy.grafana.build"


def test_there_is_an_overview_and_one_for_each_daemon() -> None:
    names = {"overview", "scheduler", "launcher", "reaper", "api"}
    assert {path.stem for path in FILES} == names
    assert {load(path)["uid"] for path in FILES} == {f"atemporal-{name}" for name in names}


@every_file
def test_grafanas_own_types_read_the_whole_of_it(path: Path) -> None:
    register_default_plugins()
    text = load(path)
    read = Made.from_json(text)
    assert json.loads(json.dumps(read, cls=JSONEncoder)) == text
    # A kind that they do not know would be kept as it is, unread.
    for panel in read.panels or []:
        for target in getattr(panel, "targets", None) or []:
            assert type(target).__module__.endswith(".prometheus")


@every_file
def test_a_panel_says_what_it_shows_in_which_unit_and_of_what(path: Path) -> None:
    dashboard = load(path)
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    titles = [panel["title"] for panel in panels(dashboard)]
    assert len(set(titles)) == len(titles) <= 24
    for panel in panels(dashboard):
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        for target in panel["targets"]:
            assert target["datasource"] == panel["datasource"]
            assert target["legendFormat"]


@every_file
def test_panels_fill_their_rows_and_none_lies_over_another(path: Path) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in load(path)["panels"]:
        at = panel["gridPos"]
        squares = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not squares & taken, panel["title"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        taken |= squares


@every_file
def test_a_reader_chooses_the_data_source_and_the_deployments(path: Path) -> None:
    variables = {one["name"]: one for one in load(path)["templating"]["list"]}
    assert variables.keys() == {"datasource", "deployment"}
    assert variables["datasource"]["query"] == "prometheus"
    deployment = variables["deployment"]
    assert (deployment["includeAll"], deployment["multi"]) == (True, True)
    assert deployment["allValue"] == ".*"
    asked = re.fullmatch(r"label_values\((\w+), deployment\)", deployment["query"])
    assert asked
    assert asked[1] in page()


@pytest.mark.parametrize("query", queries(), ids=lambda one: one.panel)
def test_a_query_asks_for_metrics_as_they_are_defined(query: Query) -> None:
    assert list(mistakes(query.query, page())) == []
    asked = selectors(query.query)
    assert asked
    for one in asked:
        chosen = [(str(m.op), m.value) for m in one.matchers if m.name == "deployment"]
        assert len(chosen) == 1, f"{one.name} is not of the chosen deployments"
        assert ":" not in one.name or one.name in RECORDS


@every_file
def test_a_rate_is_over_what_the_resolution_needs(path: Path) -> None:
    """A fixed range is for numbers alone, which say it."""
    for panel in panels(load(path)):
        for target in panel["targets"]:
            ranges = set(re.findall(r"\[(.*?)\]", target["expr"]))
            assert ranges <= {"$__rate_interval"} or panel["type"] == "stat", panel["title"]


@every_file
def test_a_legend_names_labels_that_the_query_keeps(path: Path) -> None:
    for panel in panels(load(path)):
        for target in panel["targets"]:
            for label in re.findall(r"{{(\w+)}}", target["legendFormat"]):
                kept = re.findall(r"by \(([^)]*)\)", target["expr"])
                named = {one.strip() for group in kept for one in group.split(",")}
                assert label in named | (TARGET_LABELS if ":" in target["expr"] else set())


def test_grafana_is_provisioned_with_both() -> None:
    def read(name: str) -> Any:
        return yaml.safe_load((PROVISIONING / name).read_text())

    (source,) = read("datasources/prometheus.yml")["datasources"]
    assert source["type"] == "prometheus"
    config = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    assert source["jsonData"]["timeInterval"] == config["global"]["scrape_interval"]
    (provider,) = read("dashboards/atemporal.yml")["providers"]
    assert provider["type"] == "file"
    assert provider["options"]["path"].startswith("/")
