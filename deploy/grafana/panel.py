"""One dashboard's panels, made with Grafana's Foundation SDK.

In a query `@` stands for the matchers that every selector has, the chosen deployments, and `[~]` for the
range that a rate needs at the dashboard's resolution.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from itertools import count
from typing import TypeVar

# Importing the model of any panel warns that this form of a dashboard is old. It is the one that every
# Grafana since 10 takes from a file.
with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from grafana_foundation_sdk.builders import common as common_builders
    from grafana_foundation_sdk.builders import dashboard as builders
    from grafana_foundation_sdk.builders import heatmap, prometheus, stat, timeseries
    from grafana_foundation_sdk.cog.encoder import JSONEncoder as JSONEncoder
    from grafana_foundation_sdk.cog.plugins import (
        register_default_plugins as register_default_plugins,
    )
    from grafana_foundation_sdk.models import common, units
    from grafana_foundation_sdk.models import dashboard as models
    from grafana_foundation_sdk.models import heatmap as heatmap_models
    from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SECONDS, SHARE, BYTES, PER_SECOND, COUNT, DOLLARS = (
    units.Seconds,
    units.PercentUnit,
    units.BytesIEC,
    units.CountsPerSecond,
    units.Short,
    units.Dollars,
)
WIDTH, STAT_HEIGHT, HEIGHT = 24, 4, 8
SOURCE = common.DataSourceRef(type_val="prometheus", uid="${datasource}")
_SHORT = {"@": 'deployment=~"$deployment"', "[~]": "[$__rate_interval]"}
_COLORS = ("green", "yellow", "red")

Builder = stat.Panel | timeseries.Panel | heatmap.Panel
Made = models.Dashboard
"""A dashboard that is made: Grafana's own type of it."""
_Panel = TypeVar("_Panel", stat.Panel, timeseries.Panel, heatmap.Panel)


def stats(
    title: str,
    description: str,
    query: str,
    *,
    unit: str = COUNT,
    limits: Sequence[float] = (1,),
    legend: str = "",
    bad_below: float | None = None,
    width: int = 4,
) -> stat.Panel:
    """A number, or one for each series.

    It is red from the last of `limits` on, of two yellow from the first; or red below `bad_below`.
    """
    panel = stat.Panel().color_mode(common.BigValueColorMode.BACKGROUND)
    panel = panel.graph_mode(common.BigValueGraphMode.NONE).height(STAT_HEIGHT).span(width)
    steps = _steps(limits)
    if bad_below is not None:
        steps = [models.Threshold(None, "red"), models.Threshold(bad_below, "green")]
    panel.thresholds(builders.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps))
    return _queried(panel, title, description, {legend or title: query}, unit, instant=True)


def lines(
    title: str,
    description: str,
    queries: Mapping[str, str],
    *,
    unit: str = COUNT,
    limits: Sequence[float] = (),
    stacked: bool = False,
    width: int = 12,
) -> timeseries.Panel:
    """Lines over time, by legend; a line is drawn at each of the limits."""
    panel = timeseries.Panel().height(HEIGHT).span(width).min(0).fill_opacity(10)
    panel.show_points(common.VisibilityMode.NEVER)
    panel.tooltip(
        common_builders.VizTooltipOptions()
        .mode(common.TooltipDisplayMode.MULTI)
        .sort(common.SortOrder.DESCENDING)
    )
    legend = common_builders.VizLegendOptions().show_legend(True)
    legend.display_mode(common.LegendDisplayMode.LIST).placement(common.LegendPlacement.BOTTOM)
    panel.legend(legend)
    if stacked:
        panel.fill_opacity(40).stacking(
            common_builders.StackingConfig().mode(common.StackingMode.NORMAL)
        )
    if limits:
        config = builders.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE)
        panel.thresholds(config.steps(_steps(limits)))
        style = common_builders.GraphThresholdsStyleConfig()
        panel.thresholds_style(style.mode(common.GraphThresholdsStyleMode.DASHED))
    return _queried(panel, title, description, queries, unit)


def buckets(
    title: str, description: str, query: str, *, unit: str, width: int = 12
) -> heatmap.Panel:
    """A histogram over time."""
    panel = heatmap.Panel().height(HEIGHT).span(width).calculate(False)
    panel.y_axis(heatmap.YAxisConfig().unit(unit))
    panel.color(
        heatmap.HeatmapColorOptions()
        .mode(heatmap_models.HeatmapColorMode.SCHEME)
        .scheme("Blues")
        .steps(64)
    )
    return _queried(panel, title, description, {"{{le}}": query}, unit)


def _steps(limits: Sequence[float]) -> list[models.Threshold]:
    """Green, then yellow, and red from the last limit on."""
    colors = (
        _COLORS[1:][-len(limits) :] if len(limits) < len(_COLORS) else ("yellow", "orange", "red")
    )
    return [
        models.Threshold(None, _COLORS[0]),
        *(models.Threshold(at, color) for at, color in zip(limits, colors, strict=True)),
    ]


def _queried(
    panel: _Panel,
    title: str,
    description: str,
    queries: Mapping[str, str],
    unit: str,
    *,
    instant: bool = False,
) -> _Panel:
    """The panel with what all kinds have."""
    panel.title(title).description(description).unit(unit).datasource(SOURCE)
    for number, (legend, query) in enumerate(queries.items()):
        target = prometheus.Dataquery().datasource(SOURCE).ref_id("ABCDEFGH"[number])
        target.expr(_written_out(query)).legend_format(legend)
        if instant:
            target.instant()
        elif isinstance(panel, heatmap.Panel):
            target.range().format(PromQueryFormat.HEATMAP)
        else:
            target.range()
        panel.with_target(target)
    return panel


def _written_out(query: str) -> str:
    for short, long in _SHORT.items():
        query = query.replace(short, long)
    return query


def dashboard(
    title: str, uid: str, description: str, rows: Mapping[str, Sequence[Builder]]
) -> Made:
    """A dashboard of rows, with the variables that each has: the data source and the deployments."""
    made = (
        builders.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags(["atemporal"])
        .timezone("browser")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .time("now-6h", "now")
        .refresh("30s")
        .with_variable(
            builders.DatasourceVariable("datasource").label("Data source").type("prometheus")
        )
        .with_variable(
            builders.QueryVariable("deployment")
            .label("Deployment")
            .description("The label `deployment` that Prometheus gives the services it scrapes.")
            .datasource(SOURCE)
            .query("label_values(atemporal_ticks_total, deployment)")
            .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
            .multi(True)
            .include_all(True)
            # A deployment without the label is among all of them.
            .all_value(".*")
            .current(models.VariableOption(text=["All"], value=["$__all"]))
        )
        .link(
            builders.DashboardLink("Atemporal")
            .type(models.DashboardLinkType.DASHBOARDS)
            .tags(["atemporal"])
            .as_dropdown(True)
            .include_vars(True)
            .keep_time(True)
        )
    )
    # Links to a panel name its id, which the SDK leaves to Grafana.
    ids = count(1)
    for name, panels in rows.items():
        made.with_row(builders.Row(name).id(next(ids)))
        for panel in panels:
            made.with_panel(panel.id(next(ids)))
    return made.build()
