"""The rules for Prometheus: each alert fires and keeps still in a test, and says where to read on.

They name metrics that there are, and put replicas together as each metric's definition says.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.metrics import Documented, page
from tests.promql import mistakes, selectors

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "prometheus"
RULES = sorted(FOLDER.glob("*.rules.yml"))
TESTS = sorted(FOLDER.glob("*.test.yml"))
RUNBOOK = ROOT / "docs" / "runbook.md"
SEVERITIES = {"page", "ticket"}


def promtool(*words: str | Path) -> str:
    done = subprocess.run(["promtool", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rules(kind: str) -> dict[str, dict[str, Any]]:
    """All rules of a kind, `alert` or `record`, by name."""
    return {
        rule[kind]: rule
        for path in RULES
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
        if kind in rule
    }


ALERTS = rules("alert")
RECORDS = rules("record")


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.stem)
def test_rules_are_valid_and_say_what_is_expected(path: Path) -> None:
    promtool("check", "rules", path)
    promtool("test", "rules", path.with_name(path.name.replace(".rules.", ".test.")))


def test_the_example_of_a_configuration_is_valid_and_loads_all_rules() -> None:
    printed = promtool("check", "config", FOLDER / "prometheus.yml")
    assert f"{len(RULES)} rule files found" in printed
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    jobs = {one["job_name"] for one in config["scrape_configs"]}
    assert jobs == {f"atemporal-{name}" for name in ("scheduler", "launcher", "reaper", "api")}


def cases() -> Iterator[tuple[str, bool]]:
    """Each alert that a test asks for, and whether it fires there; where its series are."""
    asked = re.compile(r'ALERTS\{alertname="(\w+)",alertstate="firing"\}')
    for path in TESTS:
        for one in yaml.safe_load(path.read_text())["tests"]:
            given = {re.match(r"[\w:]+", row["series"])[0] for row in one["input_series"]}  # type: ignore[index]
            for expected in one["promql_expr_test"]:
                if found := asked.fullmatch(expected["expr"]):
                    alert = found[1]
                    fires = bool(expected.get("exp_samples"))
                    if fires or inputs(ALERTS[alert]["expr"]) & given:
                        yield alert, fires


def inputs(query: str) -> set[str]:
    """The metrics that a query is made of, through the rules that it asks for."""
    found = {one.name for one in selectors(query)}
    for name in found & RECORDS.keys():
        found |= inputs(RECORDS[name]["expr"])
    return found


def test_each_alert_is_tested_firing_and_not_firing() -> None:
    seen = set(cases())
    assert {name for name, fires in seen if fires} == ALERTS.keys()
    assert {name for name, fires in seen if not fires} == ALERTS.keys()


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_how_bad_it_is_what_it_is_and_what_to_do(name: str) -> None:
    alert = ALERTS[name]
    assert alert["labels"].keys() == {"severity"}
    assert alert["labels"]["severity"] in SEVERITIES
    says = alert["annotations"]
    assert says.keys() == {"summary", "description", "runbook_url"}
    assert says["summary"]
    assert says["description"].endswith((".", "?"))
    assert says["runbook_url"] == f"docs/runbook.md#{name.lower()}"


def test_each_alert_has_its_section_of_the_runbook_and_each_section_its_alert() -> None:
    sections = dict(
        re.findall(r"^### (Atemporal\w+)\n\n(.+?)(?=\n#|\Z)", RUNBOOK.read_text(), re.M | re.S)
    )
    assert sections.keys() == ALERTS.keys()
    for name, text in sections.items():
        for part in ("means", "see", "do"):
            assert re.search(rf"^- \*{part}\*: \S", text, re.M), f"{name} does not say: {part}"


@pytest.mark.parametrize("name", [*RECORDS, *ALERTS])
def test_a_rule_asks_for_metrics_as_they_are_defined(name: str) -> None:
    query = (RECORDS.get(name) or ALERTS[name])["expr"]
    assert list(mistakes(query, page())) == []
    recorded = {one.name for one in selectors(query) if ":" in one.name}
    assert recorded <= RECORDS.keys()


def test_the_windows_of_both_slos_are_the_standard_ones() -> None:
    for slo in ("atemporal:starts_late:ratio_rate", "atemporal:leak:ratio"):
        windows = {name.removeprefix(slo) for name in RECORDS if name.startswith(slo)}
        assert windows == {"5m", "30m", "1h", "6h", "3d"}


METRICS = {
    "atemporal_jobs_total": Documented("counter", "sum", {"result": ["won", "lost"]}, ["api"]),
    "atemporal_wait_seconds": Documented("gauge", "max", {"name": []}, ["api"]),
    "atemporal_way_seconds": Documented("histogram", "sum", {}, ["api"]),
}


@pytest.mark.parametrize(
    "query",
    [
        "sum(rate(atemporal_other_total[5m]))",
        "sum(atemporal_jobs_total)",
        "rate(atemporal_jobs_total[5m])",
        "max(rate(atemporal_jobs_total[5m]))",
        'sum(rate(atemporal_jobs_total{result="one"}[5m]))',
        'sum(rate(atemporal_jobs_total{result=~"won|one"}[5m]))',
        'sum(rate(atemporal_jobs_total{outcome="won"}[5m]))',
        "atemporal_wait_seconds",
        "sum(atemporal_wait_seconds)",
        "sum(max(atemporal_wait_seconds)) + avg(atemporal_wait_seconds)",
        "histogram_quantile(0.9, max by (le) (rate(atemporal_way_seconds_bucket[5m])))",
    ],
)
def test_a_mistake_is_found(query: str) -> None:
    assert list(mistakes(query, METRICS)) != []


@pytest.mark.parametrize(
    "query",
    [
        'sum by (result) (rate(atemporal_jobs_total{result=~"won|lost",job="x"}[5m]))',
        'max by (name) (atemporal_wait_seconds{name="any"}) > 3 and up == 1',
        "sum(max by (name) (atemporal_wait_seconds))",
        "histogram_quantile(0.9, sum by (le) (rate(atemporal_way_seconds_bucket[5m])))",
        "sum(increase(atemporal_way_seconds_count[5m]))",
        "max(last_over_time(atemporal_wait_seconds[1d]))",
    ],
)
def test_what_is_right_is_no_mistake(query: str) -> None:
    assert list(mistakes(query, METRICS)) == []
