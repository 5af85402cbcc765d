"""Plots as PNG bytes: bars with error bars, a histogram of per-query differences, a search's trials. Writes nothing.

Drawn on matplotlib's Agg canvas without pyplot, so nothing global changes and no display is needed.
"""

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

COLOURS = ("#2b5fb3", "#d9822b", "#3d9970")
GREY = "#8a94a3"


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _png(figure: Figure) -> bytes:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_axisbelow(True)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110)
    return out.getvalue()


def bars(systems: Sequence[str], metrics: dict[str, list[dict]], title: str) -> bytes:
    """Horizontal bars with intervals, one group a system.

    Args:
        metrics: metric → for each system {"mean", "low", "high"} (numbers or None).
    """
    figure = _figure(8.2, 0.9 + 0.26 * len(systems) * len(metrics))
    axes = figure.add_subplot()
    height = 0.8 / len(metrics)
    for place, (metric, found) in enumerate(metrics.items()):
        y = np.arange(len(systems)) + (place - (len(metrics) - 1) / 2) * height
        mean = np.array([interval["mean"] or 0.0 for interval in found])
        low = [np.nan if interval["low"] is None else interval["low"] for interval in found]
        high = [np.nan if interval["high"] is None else interval["high"] for interval in found]
        error = np.maximum(np.array([mean - np.array(low), np.array(high) - mean]), 0)
        axes.barh(y, mean, height * 0.92, color=COLOURS[place % len(COLOURS)], label=metric)
        axes.errorbar(mean, y, xerr=error, fmt="none", ecolor="#222222", elinewidth=1, capsize=2)
    axes.set_yticks(np.arange(len(systems)), systems)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.grid(axis="x", color="#e3e7ed")
    axes.set_title(title, loc="left", fontsize=11)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8, frameon=False)
    return _png(figure)


def histogram(differences: dict[str, np.ndarray], metric: str) -> bytes:
    """Per-query differences, one panel for each pair: name → float64 [Q] (NaN left out)."""
    figure = _figure(8.2, 3.0)
    edges = np.linspace(-1, 1, 41)
    for place, (name, values) in enumerate(differences.items(), start=1):
        axes = figure.add_subplot(1, len(differences), place)
        values = values[~np.isnan(values)]
        for part, colour in (
            (values[values < 0], "#b3261e"),
            (values[values == 0], GREY),
            (values[values > 0], COLOURS[0]),
        ):
            axes.hist(part, bins=edges.tolist(), color=colour)
        axes.axvline(0, color="#222222", linewidth=0.8)
        better, worse = int((values > 0).sum()), int((values < 0).sum())
        axes.set_title(f"{name}\nbetter {better} · equal {len(values) - better - worse} · worse {worse}", fontsize=9)
        axes.set_xlabel(f"difference in {metric}, per query", fontsize=8)
        axes.set_ylabel("queries" if place == 1 else "", fontsize=8)
    return _png(figure)


def trials(scores: Sequence[float | None], kinds: Sequence[str], metric: str) -> bytes:
    """A search's trials in order, coloured by fusion kind, with the best so far; failed ones are crosses below."""
    figure = _figure(8.2, 3.4)
    axes = figure.add_subplot()
    values = np.array([np.nan if score is None else score for score in scores], dtype=np.float64)
    numbers, failed = np.arange(len(values)), np.isnan(values)
    palette = ("#2b5fb3", "#d9822b", "#3d9970", "#9c4dcc", "#b3261e", "#5b6675")
    for place, kind in enumerate(dict.fromkeys(kinds)):
        chosen = np.array([other == kind for other in kinds]) & ~failed
        axes.scatter(numbers[chosen], values[chosen], s=42, color=palette[place % len(palette)], label=kind, zorder=3)
    axes.step(numbers, np.fmax.accumulate(values), where="post", color=GREY, linewidth=1, label="best so far")
    if failed.any():
        floor = np.nanmin(values) if not failed.all() else 0.0
        axes.scatter(numbers[failed], np.full(failed.sum(), floor), marker="x", color="#222222", label="failed")
    axes.set_xlabel("trial (0 = the config as it stands)")
    axes.set_ylabel(metric)
    axes.grid(axis="y", color="#e3e7ed")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8, frameon=False)
    return _png(figure)
