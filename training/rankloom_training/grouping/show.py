"""A groups' report as a table, and the users as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from rankloom_adapters.router import Router, directions
from rankloom_training.grouping.report import GroupsReport, GroupSummary
from rankloom_training.grouping.users import GroupedUsers, routes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Planar = NDArray[np.float64]  # (points, 2)


def show(console: Console, report: GroupsReport) -> None:
    """One row for each group and what is typical of it; then the routes, and what decides them."""
    table = Table(
        *("group", "users", "share", "likes", "expert", "silhouette", "apart (d)"),
        title=f"groups of {report.num_users:,} of {report.num_histories:,} users",
    )
    for group in report.groups:
        table.add_row(*_cells(group, report.num_users))
    console.print(table)
    silhouette = f"silhouette of all: {_number(report.silhouette)}"
    for line in (*_typical_lines(report), silhouette, *_route_lines(report)):
        console.print(line, highlight=False, soft_wrap=True, markup=False)


def _cells(group: GroupSummary, num_users: int) -> list[str]:
    return [
        group.name,
        f"{group.users:,}",
        f"{100 * group.users / num_users:.0f} %",
        "-" if group.likes is None else f"{100 * group.likes:.0f} %",
        "its own" if group.own_expert else "as global",
        _number(group.silhouette),
        _number(group.separation),
    ]


def _typical_lines(report: GroupsReport) -> list[str]:
    return [
        f"{group.name} differs in (d): "
        + (", ".join(f"{trait.name} {trait.d:+.1f}" for trait in group.typical) or "nothing")
        for group in report.groups
    ]


def _route_lines(report: GroupsReport) -> list[str]:
    shares = [
        f"route {route}: {100 * share.users:.1f} % of the users, {100 * share.events:.1f} % of "
        f"the events"
        for route, share in report.routes.items()
    ]
    return [
        *shares,
        f"single above a weight of {report.single_above:.2f}, global from an entropy of "
        f"{report.global_from:.2f} ln N, temperature {report.temperature}; users without a vector, "
        f"who go to the global expert: {report.num_cold:,}",
    ]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def write_plot(users: GroupedUsers, router: Router, path: Path) -> None:
    """Users on their first two principal components: left by group, right by route.

    Stars are the groups' centroids. The file name's ending sets the format.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    points, stars = _planar(users.directions, directions(router.centroids, router.centre))
    by_group = {name: users.group == index for index, name in enumerate(router.groups)}
    by_route = {str(route): taken for route, taken in routes(users).items()}
    for axes, title, parts in ((left, "groups", by_group), (right, "routes", by_route)):
        _scatter(axes, points, parts)
        axes.scatter(stars[:, 0], stars[:, 1], s=220, marker="*", c="black", edgecolors="white")
        axes.set(title=title, xlabel="first component", xticks=[], yticks=[])
        axes.legend(loc="best", markerscale=2)
    left.set(ylabel="second component")
    for name, star in zip(router.groups, stars, strict=True):
        left.annotate(
            name, tuple(star), textcoords="offset points", xytext=(0, 9), ha="center", weight="bold"
        )
    figure.savefig(path, dpi=120)


def _scatter(axes: Axes, points: Planar, parts: dict[str, NDArray[np.bool_]]) -> None:
    for name, mask in parts.items():
        share = f"{name} ({100 * mask.mean():.0f} %)"
        axes.scatter(points[mask, 0], points[mask, 1], s=10, alpha=0.6, label=share, linewidths=0)


def _planar(users: NDArray[np.float64], stars: NDArray[np.float64]) -> tuple[Planar, Planar]:
    """Both on the two directions in which the users differ most."""
    mean = users.mean(axis=0)
    axes = np.linalg.svd(users - mean, full_matrices=False)[2][:2]
    return (users - mean) @ axes.T, (stars - mean) @ axes.T
