"""The first step of `fuserank evaluate`: whether training saw what is about to be asked.

Reads preprocess/ (products, queries, events); writes nothing.
"""

from pathlib import Path

import pyarrow.parquet as pq

from fuserank.config import Experiment
from fuserank.evaluation import leaks
from fuserank.feedback.sequences import has_splits
from fuserank.records.label_queries import UNSEEN
from workloads.progress import say

ATTRIBUTES = ("brand", "category", "attributes")
"""What the modality of that name reads of a product."""


def check(experiment: Experiment, preprocess: Path) -> list[dict]:
    """The leaks that the config allows, for the report.

    Raises:
        LeakError: there are others.
    """
    records = experiment.records
    products = pq.read_table(preprocess / "products.parquet")
    queries = pq.read_table(preprocess / "queries.parquet")
    by_product = records.split.by == "product"
    found = leaks.repeated_queries(queries, by_product, UNSEEN)
    if by_product:
        found += leaks.repeated_products(products, records.split.key)
    shapes = experiment.preprocess
    read = list(dict.fromkeys([*shapes.text_fields, *(shapes.word_fields or ())]))
    if experiment.encoders.attributes is not None:
        read += [field for field in ATTRIBUTES if field not in read]
    found += leaks.label_as_feature(products, read)
    file = preprocess / "events.parquet"
    events = pq.read_table(file) if file.is_file() else None
    if events is not None and has_splits(events):
        found += leaks.later_events(events, records.event_split.by == "user")
    leaks.refuse(found, experiment.evaluate.allow_leaks)
    for leak in found:
        say(f"evaluate: allowed leak {leak.name}: {leak.count} of {leak.of} {leak.detail}")
    return [leak.as_dict() for leak in found]
