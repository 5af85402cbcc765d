"""The report's further sections: leaks, ablation, groups of products, answers beyond accuracy, another run.

Each reads its part of metrics.json (see report.py) and writes onto the page.
"""

from collections.abc import Mapping, Sequence

from fuserank.evaluation import plots
from fuserank.evaluation.intervals import SMALL
from fuserank.evaluation.page import Cell, Page, chance, difference, figure
from fuserank.evaluation.words import label, short, title

BEYOND = {
    "coverage": "share of the catalogue in any list",
    "novelty": "bits of surprise: −log2 of how often training turned to a product",
    "diversity": "mean 1 − cosine between the fused vectors of two products of a list",
    "calibration": "divergence in nats of the list's categories from those wanted; 0 is best",
}
GROUPS = {
    "modalities": "which modalities a product has",
    "popularity": "head: the most popular products, which together have half of training's events",
    "training": "cold: no event and no judgment of training is about it",
    "category": "category",
    "price": "price, in quarters of the catalogue",
}


def leaks(page: Page, found: Sequence[Mapping]) -> None:
    """What the config allows in spite of a leak; one line where there is none."""
    if not found:
        page.text(
            "No leak: no held-out product, query or event was seen in training, and no label is read as text.", "soft"
        )
    for leak in found:
        page.text(
            f"Allowed by evaluate.allow_leaks – {leak['name']}: {leak['count']} of {leak['of']} {leak['detail']}. "
            "Figures may flatter by that much.",
            "warn",
        )


def ablation(page: Page, found: Mapping, shown: Sequence[str]) -> None:
    """Figures of each ablated ranking, and what is lost."""
    if len(found["systems"]) < 2:
        return
    page.subheading("Ablation")
    page.text(
        "The fused score with one modality of every product hidden; the model is the same. A difference below 0 is "
        "what that modality adds.",
        "soft",
    )
    lost = {row["a"]: row for row in found["differences"]}
    rows: list[list[Cell | str]] = []
    for system, metrics in found["systems"].items():
        row = lost.get(system)
        cells: list[Cell | str] = [short(system), *(figure(metrics[metric]) for metric in shown)]
        cells += (
            [Cell(None, "–"), Cell(None, "–")] if row is None else [difference(row[shown[0]]), chance(row[shown[0]])]
        )
        rows.append(cells)
    page.table(["system", *map(title, shown), f"Δ {title(shown[0])}", "p (Holm)"], rows)


def groups(page: Page, found: Mapping[str, Mapping], recall_k: int) -> None:
    """Recall by group of products, one table a kind of group."""
    if not found:
        return
    page.subheading("By group of products")
    page.text(
        f"Recall@{recall_k} of the relevant products of each group, over the queries that have any (n). "
        "A query may count in several groups.",
        "soft",
    )
    for what, members in found.items():
        if not members:
            continue
        systems = list(next(iter(members.values()))["systems"])
        rows: list[list[Cell | str]] = []
        for name, group in members.items():
            count = group["systems"]["served"]["n"]
            cells: list[Cell | str] = [name, Cell(group["products"], str(group["products"])), Cell(count, str(count))]
            cells += [figure(group["systems"][system], bounds=system == "served") for system in systems]
            rows.append([*cells, difference(group["difference"])])
        page.text(f"By {GROUPS[what]}:", "soft")
        page.table([what, "products", "n", *map(short, systems), "served − BM25"], rows)


def beyond(page: Page, found: Mapping[str, Mapping], k: int) -> None:
    """Coverage, novelty, diversity and calibration of the first k."""
    shown = [name for name in BEYOND if any(name in figures for figures in found.values())]
    rows: list[list[Cell | str]] = []
    for system, figures in found.items():
        cells: list[Cell | str] = [label(system)]
        for name in shown:
            value = figures.get(name)
            cells.append(_share(value) if name == "coverage" else figure(value or {"mean": None}))
        rows.append(cells)
    page.subheading("Beyond accuracy")
    page.text(f"Of each answer's first {k}: " + "; ".join(f"{name}, {BEYOND[name]}" for name in shown) + ".", "soft")
    page.table(["system", *shown], rows, [place for place, name in enumerate(found) if name == "served"])


def comparison(found: Mapping) -> str:
    """The page of `fuserank evaluate --against RUN`: HTML text. Takes what against.compare_runs returns."""
    ours, theirs = found["run"], found["against"]
    page = Page(f"{ours} against {theirs}")
    page.text(
        f"Both runs answered the same queries over the same catalogue. Δ is {ours} − {theirs}, with the 95 % "
        "bootstrap interval of the paired difference; p is that of a sign-flip test over queries, Holm-corrected over "
        "the metrics of one system."
    )
    for reason in found["left_out"]:
        page.text(f"Not compared – {reason}.", "warn")
    for variant, systems in found["variants"].items():
        page.heading(variant if variant == "recommendation" else f"Search, {variant}")
        rows: list[list[Cell | str]] = []
        bars: list[tuple[str, Mapping]] = []
        for system, metrics in systems.items():
            for metric, row in metrics.items():
                cells = [_share(row["ours"]), _share(row["theirs"]), difference(row), chance(row, "p"), chance(row)]
                rows.append([short(system), title(metric), *cells, Cell(row["n"], str(row["n"]))])
                if metric.startswith("ndcg@"):
                    bars.append((f"{short(system)}, {title(metric)}", row))
        counts = [row["n"] for metrics in systems.values() for row in metrics.values()]
        if counts and min(counts) < SMALL:
            page.text(f"Fewer than {SMALL} queries: these intervals are likely too narrow.", "warn")
        page.table(["system", "metric", ours, theirs, "Δ", "p", "p (Holm)", "n"], rows)
        if bars:
            page.plot(plots.differences(dict(bars), f"{ours} − {theirs}"), f"Paired differences, {variant}.")
    return page.html()


def _share(value: float | None) -> Cell:
    return Cell(value, "–" if value is None else f"{value:.3f}")
