"""Honesty figures: what each modality alone could answer at best, so that nobody can claim more for a model.

nDCG@10 with gain 2^grade − 1. An oracle restricted to a modality knows, of the products that have it, exactly the
attributes it shows, and ranks by how many of the wanted ones it sees match; ties fall to the greater product id.
"""

import heapq
import math
import random
from collections.abc import Iterable

from fuserank.records.synthetic.catalogue import Product, visible
from fuserank.records.synthetic.queries import Query, grade

MODALITIES = ("text", "image", "audio", "price")


def ndcg(grades: list[int], ideal: list[int], k: int = 10) -> float:
    """nDCG@k of grades in ranked order."""

    def dcg(values: Iterable[int]) -> float:
        return sum((2**g - 1) / math.log2(place + 2) for place, g in enumerate(list(values)[:k]))

    return dcg(grades) / dcg(sorted(ideal, reverse=True))


def _ranked(products: list[Product], shown: list[frozenset[str]], query: Query) -> list[int]:
    """Rows of the best ten by what is seen of each product."""

    def worth(row: int) -> tuple[float, str]:
        product, seen = products[row], shown[row]
        if "type" in seen and product.type != query.type:
            return (-1.0, product.product_id)
        known = [product.value(name) == value for name, value in query.wanted.items() if name in seen]
        return (10.0 * ("type" in seen) + 2 * sum(known) - len(known), product.product_id)

    return heapq.nlargest(10, range(len(products)), key=worth)


def figures(products: list[Product], queries: list[Query]) -> dict[str, dict[str, float]]:
    """Share of queries each modality can answer alone, and nDCG@10 of oracles and of chance."""
    seen = {name: [visible(p, name) for p in products] for name in MODALITIES}
    seen["all modalities"] = [frozenset().union(*each) for each in zip(*seen.values(), strict=True)]
    shows = {name: frozenset().union(*each) for name, each in seen.items()}
    answerable = {
        name: sum("type" in shows[name] and set(q.wanted) <= shows[name] for q in queries) / len(queries)
        for name in seen
    }
    scores: dict[str, list[float]] = {name: [] for name in ("truth", *seen, "chance")}
    draw = random.Random("chance")
    for query in queries:
        grades = [grade(p, query) for p in products]
        scores["truth"].append(ndcg(heapq.nlargest(10, grades), grades))
        for name, each in seen.items():
            scores[name].append(ndcg([grades[row] for row in _ranked(products, each, query)], grades))
        scores["chance"].append(ndcg(draw.sample(grades, 10), grades))
    means = {name: round(sum(values) / len(values), 4) for name, values in scores.items()}
    return {"answerable": {k: round(v, 4) for k, v in answerable.items()}, "ndcg@10": means}
