"""A tiny real run for tests of single stages: forty products, twenty queries, an untrained model; made in a second."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from fuserank.config import Experiment
from fuserank.features.featurizer import Featurizer
from fuserank.features.layout import feature_schema, feature_writer
from fuserank.records.schema import EVENT, JUDGMENT, PRODUCT, QUERY
from tests.serve import shop


def build_run(root: Path, held_out: str = "evaluation") -> Experiment:
    """The serving tests' finished index, with the preprocess and pretrain folders that other stages read below it.

    Twenty queries "colour kind": by text, by picture, or both; every third is of the training split.
    """
    experiment = shop.build_run(root)
    folder = root / "tiny" / "preprocess"
    featurizer = Featurizer.load(root / "featurizer")
    queries, judgments, features = [], [], []
    products = shop.products(folder / "media").to_pylist()
    for number, (colour, kind) in enumerate((c, k) for c in shop.COLOURS for k in shop.KINDS):
        query_id, by_picture = f"q{number:02d}", number % 4 == 1
        words = None if number % 8 == 1 else f"{colour} {kind}"
        queries.append(
            {
                "query_id": query_id,
                "text": words,
                "image": products[number]["images"][0] if by_picture and products[number]["images"] else None,
                "split": "training" if number % 3 == 2 else held_out,
                "group": "seen" if number % 2 else "unseen",
            }
        )
        for product in products:
            match = (colour in product["title"]) + (kind in product["title"])
            if kind in product["title"]:
                judgments.append({"query_id": query_id, "product_id": product["product_id"], "grade": float(match)})
        picture = featurizer.image(shop.picture(colour)).tobytes() if queries[-1]["image"] else None
        tokens = featurizer.text([words])[0] if words else None
        features.append({"query_id": query_id, "tokens": tokens, "image": picture, "audio": None, "price": None})
    pq.write_table(pa.Table.from_pylist(queries, QUERY), folder / "queries.parquet")
    pq.write_table(pa.Table.from_pylist(judgments, JUDGMENT), folder / "judgments.parquet")
    _write_features(folder / "query_features.parquet", "query_id", featurizer, features)
    described = []
    for product in products:
        ids = featurizer.attributes(product)
        name = product["images"][0] if product["images"] else None
        described.append(
            {
                "product_id": product["product_id"],
                "tokens": featurizer.text([featurizer.product_text(product)])[0],
                "image": featurizer.image((folder / "media" / name[:2] / name).read_bytes()).tobytes()
                if name
                else None,
                "audio": None,
                "price": featurizer.price(product["price"]),
                "attributes": None if ids is None else ids.tobytes(),
            }
        )
    _write_features(folder / "features" / "0.parquet", "product_id", featurizer, described)
    pq.write_table(pa.Table.from_pylist(products, PRODUCT), folder / "products.parquet")
    featurizer.save(folder)
    events = [
        {
            "event_id": f"e{user}-{step}",
            "type": "click",
            "user_id": f"u{user}",
            "product_id": products[(user * 3 + step * 4) % 39]["product_id"],
            "timestamp": step * 1000,
        }
        for user in range(12)
        for step in range(1 + user % 6)
    ]
    pq.write_table(pa.Table.from_pylist(events, EVENT), folder / "events.parquet")
    for stage in ("preprocess", "pretrain"):
        (root / "tiny" / stage).mkdir(exist_ok=True)
        (root / "tiny" / stage / "manifest.json").write_text(json.dumps({"digest": "made by a test"}))
    return experiment


def _write_features(file: Path, identifier: str, featurizer: Featurizer, rows: list[dict]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    schema = feature_schema(identifier, featurizer.settings)
    with feature_writer(file, schema) as out:
        out.write_table(pa.Table.from_pylist(rows, schema))
