"""Lays out the evaluation's numbers, plots and examples as a page. Reads the dict of metrics.json; writes nothing.

Layout of that dict: "run" {name, generation, products, queries, left_out, k, recall_k, relevant, samples, seed},
"variants" {variant: {"single": the best modality alone, "systems": {system: {metric: interval}} over all queries,
"slices": compare(…), "missing": {system: {group: interval}}, "protocol", and of the first variant "ablation", "groups"
and "beyond" (workloads/ablation.py, beyond.py)}}, "recommendation" {"users", "left_out", "systems", "slices":
compare(…), "beyond"} or None, "sessions" {"sessions", "users",
"systems", "slices": compare(…)} or None, "leaks" [leaks.Leak], "protocol" (against.py). An interval is {"mean", "low",
"high", "n"}, null where too few queries count.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from fuserank.evaluation import plots, sections
from fuserank.evaluation.intervals import FEW, SMALL
from fuserank.evaluation.page import Cell, Example, Page, chance, difference, figure
from fuserank.evaluation.slices import ALL
from fuserank.evaluation.words import label, short, title


def build(
    metrics: Mapping,
    histograms: Mapping[str, Mapping[str, np.ndarray]],
    examples: Sequence[Example],
) -> tuple[str, dict[str, bytes]]:
    """The page and its plots.

    Args:
        metrics: see above.
        histograms: variant → name → per-query differences of the first metric [Q].
        examples: shown in this order.

    Returns:
        HTML text, and file name → PNG bytes.
    """
    run = metrics["run"]
    shown = (f"ndcg@{run['k']}", f"recall@{run['recall_k']}", "mrr", "map", f"hit@{run['k']}")
    page, images = Page(f"Evaluation of {run['name']}"), {}
    _opening(page, run)
    sections.leaks(page, metrics["leaks"])
    for variant, found in metrics["variants"].items():
        page.heading(f"Search, {variant}")
        overall = found["slices"][ALL]
        _systems(page, overall["systems"], shown)
        _differences(page, overall["differences"], shown)
        name = f"systems-{variant.replace(' ', '-')}.png"
        systems = list(overall["systems"])
        series = {title(metric): [overall["systems"][system][metric] for system in systems] for metric in shown[:3]}
        images[name] = plots.bars([short(system) for system in systems], series, f"Search, {variant}")
        page.plot(images[name], f"Means with 95 % intervals, {variant}.")
        name = f"differences-{variant.replace(' ', '-')}.png"
        images[name] = plots.histogram(dict(histograms[variant]), title(shown[0]))
        page.plot(
            images[name], f"How often and how far the served answer is better or worse, query by query, {variant}."
        )
        _slices(page, found["slices"], shown[0])
        _missing(page, found["missing"], run["recall_k"])
        if "ablation" in found:
            sections.ablation(page, found["ablation"], shown[:3])
            sections.groups(page, found["groups"], run["recall_k"])
            sections.beyond(page, found["beyond"], run["k"])
    if metrics["recommendation"]:
        _recommendation(page, metrics["recommendation"], run["k"])
    if metrics.get("sessions"):
        _sessions(page, metrics["sessions"], run["k"])
    if examples:
        page.heading("Examples")
        page.text(
            "Drawn at random with the run's seed, not chosen. A green frame marks a product judged relevant.", "soft"
        )
        for example in examples:
            page.example(example)
    return page.html(), images


def _opening(page: Page, run: Mapping) -> None:
    if not run["queries"]:
        page.text(f"Nobody has searched this shop of {run['products']} products, generation {run['generation']}.")
        return
    page.text(
        f"{run['queries']} evaluation queries over all {run['products']} products of the evaluation catalogue, "
        f"generation {run['generation']}. Brackets: 95 % bootstrap intervals over queries ({run['samples']} "
        f"resamples, seed {run['seed']}). Differences are paired: both systems are measured on the same resamples."
    )
    if run["left_out"]:
        page.text(f"{run['left_out']} queries have no relevant product in the catalogue and are left out.", "soft")
    if run["queries"] - run["left_out"] < SMALL:
        page.text(f"Fewer than {SMALL} queries: these intervals are likely too narrow. Judge more queries.", "warn")
    page.text(f"Where fewer than {FEW} queries count, no figure is shown.", "soft")


def _systems(page: Page, systems: Mapping, shown: Sequence[str]) -> None:
    rows = [[label(name), *(figure(found[metric]) for metric in shown)] for name, found in systems.items()]
    marked = [place for place, name in enumerate(systems) if name == "served"]
    page.table(["system", *map(title, shown)], rows, marked)


def _differences(page: Page, differences: Sequence[Mapping], shown: Sequence[str]) -> None:
    rows = [
        [f"{short(row['a'])} − {short(row['b'])}", *(difference(row[m]) for m in shown[:3]), chance(row[shown[0]])]
        for row in differences
    ]
    if rows:
        page.text(
            "Paired differences, coloured where the interval excludes 0; p of the first metric by a sign-flip test "
            f"over queries, Holm-corrected over {', '.join(map(title, shown))}:",
            "soft",
        )
        page.table(["difference", *map(title, shown[:3]), f"p, {title(shown[0])}"], rows)


def _slices(page: Page, slices: Mapping, metric: str) -> None:
    if len(slices) < 2:
        return
    systems = list(slices[ALL]["systems"])
    pairs = [f"{short(row['a'])} − {short(row['b'])}" for row in slices[ALL]["differences"][:2]]
    rows = []
    for name, found in slices.items():
        count = next(iter(found["systems"].values()))[metric]["n"]
        cells: list[Cell | str] = [name, Cell(count, str(count))]
        cells += [figure(found["systems"][system][metric], bounds=False) for system in systems]
        cells += [difference(row[metric]) for row in found["differences"][:2]]
        rows.append(cells)
    page.text(f"{title(metric)} by slice of the queries (n = queries counted):", "soft")
    page.table(["slice", "n", *map(short, systems), *pairs], rows)


def _missing(page: Page, missing: Mapping, recall_k: int) -> None:
    groups = list(next(iter(missing.values()), {}))
    if len(groups) < 2:
        return
    rows = [[label(system), *(figure(found[group]) for group in groups)] for system, found in missing.items()]
    page.text(f"Recall@{recall_k} of those relevant products that lack a modality:", "soft")
    page.table(["system", *groups], rows)


def _recommendation(page: Page, found: Mapping, k: int) -> None:
    page.heading("Recommendation")
    page.text(
        f"Each user's last product is held out and ranked among all products they had not touched before: "
        f"{found['users']} users; {found['left_out']} left out (no earlier event, or the product was trained on)."
    )
    shown = (f"hr@{k}", f"ndcg@{k}")
    overall = found["slices"][ALL]
    _systems(page, overall["systems"], shown)
    _differences(page, overall["differences"], shown)
    sections.beyond(page, found["beyond"], k)


def _sessions(page: Page, found: Mapping, k: int) -> None:
    page.heading("Later searches")
    page.text(
        f"{found['sessions']} search sessions of {found['users']} users, later than all the reranker learnt from: the "
        "page that was shown, in the order of each system; clicked products are relevant. Intervals over users."
    )
    shown = (f"ndcg@{k}",)
    for name, part in found["slices"].items():
        if name != ALL:
            page.subheading(name[0].upper() + name[1:])
        _systems(page, part["systems"], shown)
        _differences(page, part["differences"], shown)
