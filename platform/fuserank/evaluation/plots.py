"""Plots as PNG bytes: bars with error bars, histograms, curves, a search's trials. Writes nothing.

Drawn on matplotlib's Agg canvas without pyplot, so nothing global changes and no display is needed.
"""

import io
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, MultipleLocator, NullFormatter

COLOURS = ("#2b5fb3", "#d9822b", "#3d9970")
PALETTE = (*COLOURS, "#9c4dcc", "#b3261e", "#5b6675")
GREY, RED, GRID = "#8a94a3", "#b3261e", "#e3e7ed"
WIDTH = 5.6  # inches: on a telephone, 340 pixels wide, text of FONT points is still 9 pixels high
FONT = 10.5


def _figure(height: float) -> Figure:
    figure = Figure(figsize=(WIDTH, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _png(figure: Figure) -> bytes:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=FONT)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=160)
    return out.getvalue()


def bars(systems: Sequence[str], metrics: dict[str, list[dict]], title: str) -> bytes:
    """Horizontal bars with intervals, one group a system.

    Args:
        metrics: metric → for each system {"mean", "low", "high"} (numbers or None).
    """
    figure = _figure(1.0 + 0.24 * len(systems) * len(metrics))
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
    axes.grid(axis="x", color=GRID)
    axes.set_title(title, loc="left", fontsize=FONT + 1)
    figure.legend(loc="outside lower center", ncols=len(metrics), fontsize=FONT, frameon=False)
    return _png(figure)


def differences(found: Mapping[str, Mapping], title: str) -> bytes:
    """Differences with their intervals, one line a name, the ones that exclude 0 in colour.

    Args:
        found: name → {"mean", "low", "high", "excludes_zero"}, null where too few queries count.
    """
    figure = _figure(1.0 + 0.36 * len(found))
    axes = figure.add_subplot()
    for place, interval in enumerate(found.values()):
        if interval["low"] is None:
            continue
        colour = (COLOURS[0] if interval["mean"] > 0 else RED) if interval["excludes_zero"] else GREY
        axes.plot([interval["low"], interval["high"]], [place, place], color=colour, linewidth=2)
        axes.plot(interval["mean"], place, "o", color=colour, markersize=6)
    axes.axvline(0, color="#222222", linewidth=0.8)
    axes.set_yticks(np.arange(len(found)), list(found))
    axes.set_ylim(len(found) - 0.5, -0.5)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.grid(axis="x", color=GRID)
    axes.set_title(title, loc="left", fontsize=FONT + 1)
    return _png(figure)


def histogram(differences: dict[str, np.ndarray], metric: str) -> bytes:
    """Per-query differences, one panel for each pair: name → float64 [Q] (NaN left out)."""
    figure = _figure(2.5 * len(differences))
    edges = np.linspace(-1, 1, 41)
    for place, (name, values) in enumerate(differences.items(), start=1):
        axes = figure.add_subplot(len(differences), 1, place)
        values = values[~np.isnan(values)]
        for chosen, colour in ((values < 0, RED), (values == 0, GREY), (values > 0, COLOURS[0])):
            axes.hist(values[chosen], bins=edges.tolist(), color=colour)
        axes.axvline(0, color="#222222", linewidth=0.8)
        better, worse = int((values > 0).sum()), int((values < 0).sum())
        words = f"better {better} · equal {len(values) - better - worse} · worse {worse}"
        axes.set_title(f"{name}\n{words}", fontsize=FONT)
        axes.set_xlabel(f"difference in {metric} of a query", fontsize=FONT)
        axes.set_ylabel("queries", fontsize=FONT)
        axes.xaxis.set_major_locator(MultipleLocator(0.5))
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    return _png(figure)


def curves(lines: dict[str, list[tuple[int, float]]], xlabel: str, ylabel: str) -> bytes:
    """One line a name, through its (x, y) points."""
    figure = _figure(3.2)
    axes = figure.add_subplot()
    for place, (name, points) in enumerate(lines.items()):
        colour = PALETTE[place % len(PALETTE)]
        x, y = zip(*points, strict=True)
        axes.plot(x, y, color=colour, linewidth=2 if place == 0 else 1.2, marker="o", markersize=3, label=name)
    axes.set_xlabel(xlabel, fontsize=FONT)
    axes.set_ylabel(ylabel, fontsize=FONT)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", color=GRID)
    axes.legend(fontsize=FONT, frameon=False)
    return _png(figure)


def reliability(found: Mapping[str, Sequence[float]], title: str) -> bytes:
    """`chance` that was told against the `share` that happened, a point a bin; the diagonal is perfect."""
    figure = _figure(3.2)
    axes = figure.add_subplot()
    most = max(*found["chance"], *found["share"]) * 1.05 or 1.0
    axes.plot([0, most], [0, most], color=GRID, linewidth=1.2)
    axes.plot(found["chance"], found["share"], color=PALETTE[0], linewidth=1.5, marker="o", markersize=4)
    axes.set_title(title, fontsize=FONT)
    axes.set_xlabel("chance told", fontsize=FONT)
    axes.set_ylabel("share that happened", fontsize=FONT)
    axes.grid(color=GRID)
    return _png(figure)


def trials(scores: Sequence[float | None], kinds: Sequence[str], stopped: Sequence[bool], metric: str) -> bytes:
    """A search's trials in order, coloured by fusion kind, with the best complete one so far; stopped ones are hollow,
    failed ones crosses below."""
    figure = _figure(3.8)
    axes = figure.add_subplot()
    values = np.array([np.nan if score is None else score for score in scores], dtype=np.float64)
    numbers, failed, ended = np.arange(len(values)), np.isnan(values), np.array(stopped, dtype=bool)
    for place, kind in enumerate(dict.fromkeys(kinds)):
        of, colour = np.array([other == kind for other in kinds]) & ~failed, PALETTE[place % len(PALETTE)]
        whole, early = of & ~ended, of & ended
        axes.scatter(numbers[early], values[early], s=30, facecolors="white", edgecolors=colour, zorder=3)
        axes.scatter(numbers[whole], values[whole], s=42, color=colour, label=kind, zorder=4)
    if (~failed & ended).any():
        axes.scatter([], [], s=30, facecolors="white", edgecolors=GREY, label="stopped")
    best = np.fmax.accumulate(np.where(ended, np.nan, values))
    axes.step(numbers, best, where="post", color=GREY, linewidth=1, label="best so far")
    if failed.any():
        floor = np.nanmin(values) if not failed.all() else 0.0
        axes.scatter(numbers[failed], np.full(failed.sum(), floor), marker="x", color="#222222", label="failed")
    axes.set_xlabel("trial (0 = the config as it stands)", fontsize=FONT)
    axes.set_ylabel(metric, fontsize=FONT)
    axes.grid(axis="y", color=GRID)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(loc="outside lower center", ncols=4, fontsize=FONT, frameon=False)
    return _png(figure)


def front(points: Sequence[tuple[float, float]], kinds: Sequence[str], line: Sequence[int], chosen: int) -> bytes:
    """A search's complete trials by latency and quality, and the Pareto front through those no other one beats.

    Args:
        points: (ms a query, nDCG@10) of each trial; kinds: its fusion.
        line: places in `points` of the front, the fastest first; chosen: the place of the one that was taken.
    """
    figure = _figure(3.8)
    axes = figure.add_subplot()
    x, y = (np.array([point[axis] for point in points], dtype=np.float64) for axis in (0, 1))
    for place, kind in enumerate(dict.fromkeys(kinds)):
        of = np.array([other == kind for other in kinds], dtype=bool)
        axes.scatter(x[of], y[of], s=42, color=PALETTE[place % len(PALETTE)], label=kind, zorder=3)
    axes.plot(x[list(line)], y[list(line)], color=GREY, linewidth=1, label="Pareto front", drawstyle="steps-post")
    axes.scatter(x[[chosen]], y[[chosen]], s=150, facecolors="none", edgecolors="#222222", label="chosen", zorder=4)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.set_xlabel("ms a query, measured alone", fontsize=FONT)
    axes.set_ylabel("validation ndcg@10", fontsize=FONT)
    axes.grid(color=GRID)
    figure.legend(loc="outside lower center", ncols=4, fontsize=FONT, frameon=False)
    return _png(figure)


def shares(found: Mapping[str, float], title: str) -> bytes:
    """Horizontal bars of shares between 0 and 1, in the given order."""
    figure = _figure(0.8 + 0.28 * len(found))
    axes = figure.add_subplot()
    axes.barh(np.arange(len(found)), list(found.values()), color=COLOURS[0])
    axes.set_yticks(np.arange(len(found)), list(found))
    axes.invert_yaxis()
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.grid(axis="x", color=GRID)
    axes.set_title(title, loc="left", fontsize=FONT + 1)
    return _png(figure)


def distribution(values: np.ndarray, title: str, xlabel: str, log: bool = False) -> bytes:
    """How often values occur. [N] → PNG; with `log` the bins are equally wide in the logarithm (values above 0) where
    those span a factor of ten."""
    figure = _figure(2.4)
    axes = figure.add_subplot()
    values = values[values > 0] if log else values
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    if log and high >= 10 * low > 0:
        axes.hist(values, bins=np.geomspace(low, high, 40).tolist(), color=COLOURS[0])
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        room = 0.0 if high > low else 0.1 * (abs(low) or 1.0)  # all are the same: a bar in the middle
        axes.hist(values, bins=np.linspace(low - room, high + room, 41).tolist(), color=COLOURS[0])
        axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.grid(axis="y", color=GRID)
    axes.set_xlabel(xlabel, fontsize=FONT)
    axes.set_title(title, loc="left", fontsize=FONT + 1)
    return _png(figure)


def counts(names: Sequence[str], numbers: Sequence[int], title: str) -> bytes:
    """Horizontal bars of counts, in the given order."""
    figure = _figure(0.8 + 0.28 * len(names))
    axes = figure.add_subplot()
    axes.barh(np.arange(len(names)), numbers, color=COLOURS[0])
    axes.set_yticks(np.arange(len(names)), [name if len(name) <= 32 else f"{name[:31]}…" for name in names])
    axes.invert_yaxis()
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.grid(axis="x", color=GRID)
    axes.set_title(title, loc="left", fontsize=FONT + 1)
    return _png(figure)
