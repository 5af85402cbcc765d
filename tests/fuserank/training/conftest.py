"""A tiny finished `preprocess`: 54 products that tell colour, kind and tier by text, picture, price and attributes."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fuserank import config
from fuserank.features.attributes import AttributeVocabulary
from fuserank.features.featurizer import FeatureSettings, Featurizer
from fuserank.features.layout import feature_schema, feature_writer
from fuserank.records.schema import EVENT, JUDGMENT, PRODUCT, QUERY

COLOURS = {"red": (200, 30, 30), "green": (30, 180, 40), "blue": (30, 50, 210)}
KINDS = ("scarf", "lamp", "mug")
PRODUCTS, USERS = 54, 14
# of product 19 nothing is known: it is the one row that lacks text, picture, price and attributes


def picture(colour: str, random: np.random.Generator) -> bytes:
    noise = random.integers(-20, 20, (16, 16, 3))
    return (np.array(COLOURS[colour]) + noise).clip(0, 255).astype(np.uint8).tobytes()


def write(file: Path, identifier: str, featurizer: Featurizer, rows: list[dict]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    schema = feature_schema(identifier, featurizer.settings)
    with feature_writer(file, schema) as out:
        out.write_table(pa.Table.from_pylist(rows, schema))


@pytest.fixture(autouse=True, scope="module")
def float32() -> Iterator[None]:
    """`precision: auto` computes in bfloat16 where the machine has it; figures here are compared more closely."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fuserank.training.encode.bfloat16_pays", lambda device: False)
        yield


@pytest.fixture(scope="session")
def preprocess(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`<root>/tiny/preprocess`, read-only for tests."""
    folder, random = tmp_path_factory.mktemp("training") / "tiny" / "preprocess", np.random.default_rng(0)
    folder.mkdir(parents=True)
    kinds = [(c, k) for c in COLOURS for k in KINDS]
    titles = [f"{c} {k} number {n % 7}" for n in range(PRODUCTS) for c, k in [kinds[n % 9]]]
    prices = [float(np.log(5 + 10 * (n % 6))) for n in range(PRODUCTS)]
    facts = [
        {"brand": f"maker {n % 4}", "attributes": {"colour": c, "kind": k}} if n % 6 != 1 else {}
        for n in range(PRODUCTS)
        for c, k in [kinds[n % 9]]
    ]
    known = AttributeVocabulary.fit(facts, width=6)
    settings = FeatureSettings(image_size=(16, 16), mels=4, rate=1000, seconds=0.1, text_tokens=12, attributes=known)
    featurizer = Featurizer.fit(titles, prices, settings, vocabulary=120, price_quantiles=4)
    featurizer.save(folder)
    features, products = [], []
    for n, (title, price) in enumerate(zip(titles, prices, strict=True)):
        ids = featurizer.attributes(facts[n])
        features.append(
            {
                "product_id": f"p{n:02d}",
                "tokens": featurizer.text([title])[0] if n % 8 != 3 else None,
                "image": picture(title.split()[0], random) if n % 5 != 4 else None,
                "audio": None,
                "price": price if n % 7 != 5 else None,
                "attributes": None if ids is None else ids.tobytes(),
            }
        )
        products.append({"product_id": f"p{n:02d}", "title": title})
    write(folder / "features" / "0.parquet", "product_id", featurizer, features)
    pq.write_table(pa.Table.from_pylist(products, PRODUCT), folder / "products.parquet")
    asked, queries, judgments = [], [], []
    for n in range(27):
        colour, kind = kinds[n % 9]
        words = f"{colour} {kind}"
        asked.append(
            {
                "query_id": f"q{n:02d}",
                "tokens": featurizer.text([words])[0] if n % 4 != 3 else None,
                "image": picture(colour, random) if n % 4 in (1, 3) else None,
                "audio": None,
                "price": None,
            }
        )
        split = "validation" if n >= 18 else "training"
        queries.append({"query_id": f"q{n:02d}", "text": words if n % 4 != 3 else None, "split": split})
        for row, title in enumerate(titles):
            grade = (kind in title) + (kind in title and colour in title)
            if grade:
                judgments.append({"query_id": f"q{n:02d}", "product_id": f"p{row:02d}", "grade": float(grade)})
    write(folder / "query_features.parquet", "query_id", featurizer, asked)
    pq.write_table(pa.Table.from_pylist(queries, QUERY), folder / "queries.parquet")
    pq.write_table(pa.Table.from_pylist(judgments, JUDGMENT), folder / "judgments.parquet")
    events = [
        {
            "event_id": f"e{user}-{step}",
            "type": ("view", "click", "impression", "purchase")[(user + step) % 4],
            "user_id": f"u{user}",
            "product_id": f"p{(user * 3 + step * 9) % PRODUCTS:02d}",  # a user stays with one colour and kind
            "timestamp": 1000 * (user + 100 * step),
        }
        for step in range(12)
        for user in range(USERS)
    ]
    pq.write_table(pa.Table.from_pylist(events, EVENT), folder / "events.parquet")
    (folder / "manifest.json").write_text('{"digest": "made by a test"}')
    return folder


@pytest.fixture(scope="session")
def experiment(preprocess: Path) -> config.Experiment:
    """An experiment whose run folder holds `preprocess`."""
    return config.validate(
        {
            "name": "tiny",
            "storage": {"root": str(preprocess.parents[1])},
            "encoders": {
                "text": {"layers": 1, "hidden": 16, "heads": 2},
                "audio": None,
                "recommender": {"events": 4, "layers": 1, "heads": 2},
            },
            "fusion": {"width": 16},
            "train": {"epochs": 4, "batch_size": 18, "sequences": 6, "precision": "float32", "learning_rate": 5e-3},
            "tune": {"epochs": 3},
        }
    )
