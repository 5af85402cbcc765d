"""The products as answers show them. Reads the generation's products.parquet and the media folder it names."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq

_MEDIA_NAME = re.compile(r"([0-9a-f]{2})[0-9a-f]{62}\.[a-z0-9]{1,5}")
TYPES = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "gif": "image/gif",
    "webp": "image/webp",
    "bmp": "image/bmp",
    "tiff": "image/tiff",
    "tif": "image/tiff",
}
_SHOWN = ["product_id", "title", "price", "price_max", "currency", "brand", "images", "in_stock"]


class Documents:
    """Row number or product id → what the shop's pages show of the product."""

    def __init__(self, products: Path, media: Path | None):
        """
        Args:
            products: Parquet file with the PRODUCT schema; its rows are the retriever's rows.
            media: folder of content-addressed files, None if the catalogue has no media.
        """
        self._table = pq.read_table(products, memory_map=True)
        self._shown = self._table.select(_SHOWN).combine_chunks()
        self.ids: list[str] = self._table["product_id"].to_pylist()
        self._rows = {product_id: row for row, product_id in enumerate(self.ids)}
        self._media = media

    async def reach(self, seq: int) -> None:
        """Nothing changes here; see LiveDocuments."""

    def row(self, product_id: str) -> int | None:
        """The product's row, None if the generation does not have it."""
        return self._rows.get(product_id)

    def hits(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        """What a hit shows of each row, in order."""
        found = self._shown.take(pa.array(rows, pa.int64())).to_pylist()
        return [shown_hit(product) for product in found]

    def product(self, row: int) -> dict[str, Any]:
        """The whole product, as GET /v1/products/{id} shows it. Labels are for judging and stay inside."""
        return shown_product(self._table.slice(row, 1).to_pylist()[0])

    def named(self, start: int = 0, count: int | None = None) -> list[dict[str, Any]]:
        """Title, brand and category of some rows, of all from `start` on if `count` is None."""
        return self._table.select(["title", "brand", "category"]).slice(start, count).to_pylist()

    def description(self, row: int) -> str | None:
        """The product's description."""
        return self._table["description"][row].as_py()

    def picture(self, row: int) -> tuple[Path, str] | None:
        """File and content type of the main picture, None if there is none."""
        return shown_picture(self._shown["images"][row].as_py(), [self._media] if self._media else [])


def shown_hit(product: Mapping[str, Any]) -> dict[str, Any]:
    """What a hit shows of a PRODUCT row."""
    return {
        "product_id": product["product_id"],
        "title": product["title"],
        "price": _price(product),
        "brand": product["brand"],
        "image": _image_url(product),
        "in_stock": product["in_stock"],
    }


def shown_product(product: Mapping[str, Any]) -> dict[str, Any]:
    """What GET /v1/products/{id} shows of a PRODUCT row."""
    same = ("product_id", "parent_id", "title", "description", "brand", "in_stock", "rating", "review_count")
    return {
        **{name: product[name] for name in same},
        "category": product["category"] or [],
        "variant_ids": product["variant_ids"] or [],
        "attributes": _attributes(product["attributes"] or []),
        "price": _price(product),
        "image": _image_url(product),
    }


def shown_picture(images: Sequence[str] | None, folders: Sequence[Path]) -> tuple[Path, str] | None:
    """File and content type of the first of these media, None if there is none or it is no picture."""
    match = _MEDIA_NAME.fullmatch(images[0]) if images else None
    kind = TYPES.get(match.string.rpartition(".")[2]) if match else None
    if match is None or kind is None:
        return None
    files = [folder / match[1] / match.string for folder in folders]
    return next(((file, kind) for file in files if file.is_file()), None)


def _price(product: Mapping[str, Any]) -> dict[str, Any] | None:
    if product["price"] is None:
        return None
    most = product["price_max"]
    return {
        "amount": float(product["price"]),
        "max": None if most is None else float(most),
        "currency": product["currency"],
    }


def _attributes(pairs: list[tuple[str, str | None]]) -> dict[str, str | list[str]]:
    """An attribute with several values, such as the sizes of a product's variants, as a list."""
    found: dict[str, list[str]] = {}
    for name, value in pairs:
        if value is not None and value not in found.setdefault(name, []):
            found[name].append(value)
    return {name: values[0] if len(values) == 1 else values for name, values in found.items() if values}


def _image_url(product: Mapping[str, Any]) -> str | None:
    return f"/v1/products/{quote(product['product_id'], safe='')}/image" if product["images"] else None
