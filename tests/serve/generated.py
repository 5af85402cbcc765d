"""The generated shop as a finished run for serving tests: its products, pictures and users' log, an untrained model.

What a user turns to is learnt from the log alone, by the same code as in `fuserank index`.
"""

import hashlib
import json
import random
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa

from fuserank import config
from fuserank.feedback.behaviour import count_behaviour
from fuserank.models.checkpoint import load_model
from fuserank.records.schema import EVENT, PRODUCT
from fuserank.records.synthetic.behaviour import make_events, make_users
from fuserank.records.synthetic.catalogue import Product, make_products
from fuserank.records.synthetic.pictures import encode, render
from fuserank.retrieval.generation import open_generation
from serve.app import generation_folder
from tests.serve import shop
from workloads.blending import fit_blend

SEED = 7


def build_run(
    root: Path, products: int = 300, users: int = 500
) -> tuple[config.Experiment, list[Product], dict[str, Any]]:
    """An experiment with an index; its products in truth; what `index` says of the blend."""
    items = make_products(products, SEED)
    experiment = shop.build_run(root, lambda media: _table(items, media))
    folder = generation_folder(experiment)
    opened = open_generation(folder)
    log = list(make_events(items, make_users(users, SEED), SEED))
    events = pa.Table.from_pylist([dict.fromkeys(EVENT.names) | event for event in log], EVENT)
    count_behaviour(events, opened.catalogue.ids).save(folder / "model")
    blend, figures, neighbours = fit_blend(opened.catalogue, load_model(folder / "model"), events, SEED)
    neighbours.save(folder / "model")
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"blend": dict(blend.weights)}))
    return experiment, items, {"weights": dict(blend.weights), **figures}


def _table(items: list[Product], media: Path) -> pa.Table:
    rows = []
    for item in items:
        names = []
        if item.has_image:
            draw = random.Random(f"picture-{SEED}-{item.product_id}")
            data = encode(render(item.type, item.colour, item.pattern, item.shape, draw))
            names = [f"{hashlib.sha256(data).hexdigest()}.jpg"]
            file = media / names[0][:2] / names[0]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        told = [("color", item.colour)] if item.names_colour else []
        told += [("material", item.material)] if item.has_text else []
        rows.append(
            dict.fromkeys(PRODUCT.names)
            | {
                "product_id": item.product_id,
                "title": item.title or None,
                "description": item.description or None,
                "images": names,
                "price": None if item.price is None else Decimal(f"{item.price:.2f}"),
                "currency": "EUR",
                "brand": item.brand or None,
                "category": list(item.category),
                "attributes": told,
                "in_stock": item.in_stock,
                "rating": item.rating,
                "review_count": item.review_count,
            }
        )
    return pa.Table.from_pylist(rows, PRODUCT)
