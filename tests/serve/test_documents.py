"""What the shop's pages show of a product that stands for its variants."""

from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from fuserank.records.schema import PRODUCT
from serve.api import Product
from serve.documents import Documents


def test_a_product_with_variants(tmp_path: Path) -> None:
    sizes = [("size", "S"), ("size", "L"), ("size", "S"), ("material", "wool"), ("colour", None)]
    rows = [
        {"product_id": "h", "price": Decimal("49.00"), "price_max": Decimal("52.00"), "currency": "USD",
         "attributes": sizes, "variant_ids": ["h-L", "h-S"], "labels": [("kind", "SECRET")]},
        {"product_id": "m", "price": Decimal("5.10")},
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows, schema=PRODUCT), tmp_path / "products.parquet")
    documents = Documents(tmp_path / "products.parquet", None)
    whole = Product(**documents.product(0)).model_dump()
    assert whole["attributes"] == {"size": ["S", "L"], "material": "wool"}
    assert whole["price"] == {"amount": 49.0, "max": 52.0, "currency": "USD"}
    assert whole["variant_ids"] == ["h-L", "h-S"]
    assert "SECRET" not in str(documents.product(0))
    assert [hit["price"]["max"] for hit in documents.hits([1, 0])] == [None, 52.0]
    assert Product(**documents.product(1)).price is not None
