"""Draws the plots of docs/performance.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "performance"  # equal plots make equal files

from matplotlib import pyplot  # noqa: E402

from benchmarks.summary import Result, Results, short  # noqa: E402

OURS, THEIRS, LOOPS = "#0b6e4f", "#9aa5b1", "#d9a441"


def draw(results: Results, folder: Path) -> dict[str, list[str]]:
    """Draw the plots in ``folder``, in place of others, and return their names by program."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.svg"):
        old.unlink()
    plots = {}
    if "fanout" in results:
        plots["fanout"] = _draw_fanout(results["fanout"], folder)
    if "growth" in results:
        plots["growth"] = _draw_growth(results["growth"], folder)
    if "memory" in results:
        plots["memory"] = _draw_memory(results["memory"], folder)
    return plots


def _draw_fanout(result: Result, folder: Path) -> list[str]:
    costs = [
        figure
        for figure in result["figures"]
        if figure["unit"] == "µs/delivery"
        and not figure["name"].startswith("Redis")
        and not figure["name"].endswith(" clients")
    ]
    _bars(folder / "delivery.svg", "CPU per delivery, 2,000 clients", "µs", costs)
    latencies = [
        {**figure, "name": figure["name"].removesuffix(", latency")}
        for figure in result["figures"]
        if figure["unit"] == "ms, median"
    ]
    title = "Time from publishing until a client has the message, 2,000 clients"
    _bars(folder / "latency.svg", title, "ms, median", latencies)
    return ["delivery", "latency"]


def _draw_growth(result: Result, folder: Path) -> list[str]:
    series: dict[str, list[tuple[float, float]]] = {}
    for figure in result["figures"]:
        name, _, ratio = figure["name"].partition(": ")
        clients = name.endswith("clients")
        if ratio == ("ours, deliveries alone / C loop" if clients else "ours / C loop"):
            words = name.split()
            number = next(word for word in words if word[0].isdigit())
            channels = "existing channels" if "existing" in words else "channels published to"
            about = "clients" if clients else channels
            series.setdefault(about, []).append((float(number.replace(",", "")), figure["median"]))
    _lines(folder / "growth.svg", "CPU per delivery, as a ratio to the C loop", "ratio", series)
    return ["growth"]


def _draw_memory(result: Result, folder: Path) -> list[str]:
    kept, opening = (
        [figure for figure in result["figures"] if figure["unit"] == unit]
        for unit in ("KiB/websocket", "µs/handshake")
    )
    _bars(folder / "memory.svg", "Memory of an idle connection", "KiB", kept)
    _bars(folder / "handshake.svg", "CPU of a handshake", "µs", opening)
    return ["memory", "handshake"]


def _bars(path: Path, title: str, unit: str, figures: list[Result]) -> None:
    """Draw a horizontal bar for each figure, the lowest on top, with the range of its rounds."""
    figures = sorted(figures, key=lambda figure: -figure["median"])
    values = [figure["median"] for figure in figures]
    spread = [
        [figure["median"] - figure["lowest"] for figure in figures],
        [figure["highest"] - figure["median"] for figure in figures],
    ]
    plot, axes = pyplot.subplots(figsize=(7.5, 0.8 + 0.32 * len(figures)))
    axes.barh(
        [figure["name"] for figure in figures],
        values,
        xerr=spread,
        color=[_color(figure["name"]) for figure in figures],
        error_kw={"ecolor": "#555555", "lw": 1},
    )
    axes.bar_label(axes.containers[-1], [f"  {short(value)}" for value in values])
    axes.set_xscale("log")
    axes.margins(x=0.15, y=0.01)
    axes.set_xlabel(f"{unit} (logarithmic)")
    axes.set_title(title, loc="left", fontsize=11)
    _save(plot, path)


def _lines(
    path: Path, title: str, label: str, series: dict[str, list[tuple[float, float]]]
) -> None:
    plot, axes = pyplot.subplots(figsize=(7.5, 3))
    for name, points in series.items():
        axes.plot(*zip(*points, strict=True), marker="o", label=name)
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("number of clients or channels")
    axes.set_ylabel(label)
    axes.legend(frameon=False)
    axes.set_title(title, loc="left", fontsize=11)
    _save(plot, path)


def _color(name: str) -> str:
    if "ws4redis" in name:
        return OURS
    return LOOPS if "loop" in name else THEIRS


def _save(plot: Any, path: Path) -> None:
    for axes in plot.axes:
        axes.spines[["top", "right"]].set_visible(False)
    plot.tight_layout()
    plot.savefig(path, metadata={"Date": None})
    pyplot.close(plot)
