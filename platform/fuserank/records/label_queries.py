"""Queries and judgments made from label columns: every combination of values that occurs becomes "value value".

Grade 2 if all labels match, 1 if only the required one does; a query is judged on its own split's products only.
Combinations in the held-out share never occur in training or validation. Reads and writes nothing.
"""

from collections import defaultdict
from collections.abc import Sequence

import pyarrow as pa

from fuserank.errors import ConfigError
from fuserank.records.schema import JUDGMENT, QUERY
from fuserank.records.splits import EVALUATION, SPLITS, TRAINING, VALIDATION, bucket

SEEN, UNSEEN = "seen", "unseen"
VALIDATION_MIN = 3  # products a validation query needs, so that its nDCG says something


def held_out(text: str, modulus: int) -> bool:
    """Whether a query's text never occurs in training or validation: int(sha1(text), 16) % modulus == 0."""
    return bucket(text, modulus) == 0


def label_queries(
    products: pa.Table, columns: Sequence[str], required: str, min_products: int, holdout_modulus: int
) -> tuple[pa.Table, pa.Table]:
    """Make the queries of all three splits.

    Args:
        products: PRODUCT columns product_id, labels, split.
        columns: the label columns of a combination, in the order of the query's words.
        required: the one of them that alone earns grade 1.
        min_products: an evaluation query needs so many products that match it wholly.
        holdout_modulus: one in so many combinations is held out.

    Returns:
        QUERY (ids like `evaluation:red shoes`, group "seen" or "unseen") and JUDGMENT, both sorted by id.

    Raises:
        ConfigError: `required` is not one of the columns.
    """
    if required not in columns:
        raise ConfigError(
            f"records.label_queries.required: {required!r} is not in records.label_queries.columns.",
            f"Give one of {', '.join(columns)}.",
        )
    whole: dict[str, dict[tuple[str, ...], list[str]]] = {split: defaultdict(list) for split in SPLITS}
    partly: dict[str, dict[str, list[str]]] = {split: defaultdict(list) for split in SPLITS}
    place = list(columns).index(required)
    rows = zip(*(products[name].to_pylist() for name in ("product_id", "labels", "split")), strict=True)
    for product_id, pairs, split in rows:
        labels = dict(pairs or [])
        values = [labels.get(column) for column in columns]
        if split is None or values[place] is None:
            continue
        words = tuple(value.lower() for value in values if value is not None)
        partly[split][str(values[place]).lower()].append(product_id)
        if len(words) == len(columns):
            whole[split][words].append(product_id)
    least = {TRAINING: 1, VALIDATION: VALIDATION_MIN, EVALUATION: min_products}
    queries, judged = [], []
    for split in SPLITS:
        for words, matching in whole[split].items():
            text = " ".join(words)
            hidden = held_out(text, holdout_modulus)
            if len(matching) < least[split] or (hidden and split != EVALUATION):
                continue
            query_id = f"{split}:{text}"
            queries.append({"query_id": query_id, "text": text, "split": split, "group": UNSEEN if hidden else SEEN})
            best = set(matching)
            judged += [(query_id, product, 2.0 if product in best else 1.0) for product in partly[split][words[place]]]
    queries.sort(key=lambda query: query["query_id"])
    judged.sort()
    columns_out = [pa.array([row[i] for row in judged], f.type) for i, f in enumerate(JUDGMENT)]
    return pa.Table.from_pylist(queries, schema=QUERY), pa.table(columns_out, schema=JUDGMENT)
