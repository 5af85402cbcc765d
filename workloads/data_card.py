"""The data card of a `preprocess` run: one HTML page that shows what came in, what went out and what was set aside.

Reads products.parquet, quarantine.parquet, flags.parquet, media/ and the run's summary; writes data_card.html.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fuserank.evaluation.page import Cell, Page, thumbnail
from fuserank.evaluation.plots import counts, distribution
from fuserank.features import attributes
from fuserank.features.attributes import AttributeVocabulary
from fuserank.features.text import product_text, text_columns
from fuserank.records.media import media_path

SHOWN = 12  # products or rows of a gallery
CATEGORIES = 15
VALUES = 20
READ_AT_ONCE = 16_384  # products


def write_data_card(
    folder: Path, name: str, text_fields: tuple[str, ...], known: AttributeVocabulary, summary: dict[str, Any]
) -> Path:
    """Write `data_card.html` beside the tables it describes; returns its path.

    Args:
        folder: the stage's, its tables written. name: the run's. text_fields: what a product's text is made of.
        known: the attribute values that the model is told of.
    """
    page = Page(f"{name}: data card")
    _tables(page, summary)
    columns = ["product_id", "title", "price", "category", "images", *text_columns(text_fields), *attributes.COLUMNS]
    file = pq.ParquetFile(folder / "products.parquet")
    lengths, prices, categories, accepted = [], [], Counter[str](), []
    told: Counter[str] = Counter()
    flagged = {flag["id"]: flag for flag in pq.read_table(folder / "flags.parquet").to_pylist()}
    aside = _set_aside(folder)
    pictures: dict[str, str | None] = dict.fromkeys(row["product_id"] for row in aside if row["product_id"])
    odd: list[tuple[str, str | None]] = []
    for batch in file.iter_batches(READ_AT_ONCE, columns=list(dict.fromkeys(columns))):
        for row in batch.to_pylist():
            lengths.append(len(product_text(row, text_fields).split()))
            prices += [float(row["price"])] if row["price"] is not None else []
            categories.update((row["category"] or [])[-1:])
            told.update(known.told(row))
            if row["product_id"] in pictures:
                pictures[row["product_id"]] = _picture(folder, row)
            flag = flagged.get(row["product_id"])
            if flag is not None and len(odd) < SHOWN:
                odd.append((f"{_caption(row)}: {flag['flag']}, {flag['detail']}", _picture(folder, row)))
            elif flag is None and len(accepted) < SHOWN:
                accepted.append((_caption(row), _picture(folder, row)))
    _plots(page, np.array(lengths), np.array(prices), categories, told)
    page.heading("Products and rows")
    page.gallery("accepted", accepted)
    page.gallery("flagged", odd)
    page.gallery("in quarantine", [(_reason(row), pictures.get(row["product_id"])) for row in aside])
    path = folder / "data_card.html"
    path.write_text(page.html(), encoding="utf-8")
    return path


def _tables(page: Page, summary: dict[str, Any]) -> None:
    page.heading("Rows")
    names = ("in", "out", "merged", "repeated", "quarantined")
    rows: list[list[Cell | str]] = [
        [table, *(Cell(part[n], str(part[n])) for n in names)] for table, part in summary["rows"].items() if part["in"]
    ]
    page.table(["table", *names], rows)
    reasons = [(table, *item) for table, part in summary["rows"].items() for item in part["reasons"].items()]
    if reasons:
        page.heading("Set aside, by reason")
        page.table(["table", "reason", "rows"], [[t, reason, Cell(count, str(count))] for t, reason, count in reasons])
    page.heading("Missing modalities")
    total = max(summary["missing"]["products"], 1)
    page.table(
        ["modality", "products without", "share"],
        [[m, Cell(n, str(n)), Cell(n / total, f"{n / total:.1%}")] for m, n in summary["missing"]["without"].items()],
    )
    page.table(
        ["what a product has", "products"],
        [[names, Cell(count, str(count))] for names, count in summary["missing"]["combinations"].items()],
    )
    if summary["flags"]:
        page.heading("Flagged")
        page.table(["flag", "records"], [[flag, Cell(n, str(n))] for flag, n in summary["flags"].items()])
    if summary["duplicates"]:
        page.heading("Products that seem to be one")
        page.table(["in a group by", "products"], [[why, Cell(n, str(n))] for why, n in summary["duplicates"].items()])


def _plots(page: Page, lengths: np.ndarray, prices: np.ndarray, categories: Counter[str], told: Counter[str]) -> None:
    page.heading("What the products are like")
    middle, most = (float(np.median(lengths)), int(lengths.max())) if len(lengths) else (0.0, 0)
    caption = f"Words of a product's text, split at spaces; median {middle:g}, longest {most}"
    page.plot(distribution(lengths, "text length", "words"), caption)
    if len(prices):
        caption = f"Prices of {len(prices)} products, median {np.median(prices):.2f}"
        page.plot(distribution(prices, "prices", "amount, logarithmic", log=True), caption)
    if categories:
        names, numbers = zip(*categories.most_common(CATEGORIES), strict=True)
        page.plot(counts(names, numbers, "categories"), f"The largest of {len(categories)} categories (lowest level)")
    if told:
        names, numbers = zip(*told.most_common(VALUES), strict=True)
        caption = f"The most frequent of {len(told)} known values of brand, category and attributes"
        page.plot(counts(names, numbers, "attribute values"), caption)


def _set_aside(folder: Path) -> list[dict[str, Any]]:
    """The first rows or parts of each reason."""
    table: pa.Table = pq.read_table(folder / "quarantine.parquet")
    seen: Counter[tuple[str, str]] = Counter()
    found: list[dict[str, Any]] = []
    for row in table.to_pylist():
        reason = row["part"], row["reason"]
        seen[reason] += 1
        if seen[reason] <= 2 and len(found) < 2 * SHOWN:
            found.append(row)
    return found


def _reason(row: dict[str, Any]) -> str:
    return f"{row['part']}: {row['reason']} ({row['source']} row {row['position']}) {row['detail'] or ''}"


def _caption(row: dict[str, Any]) -> str:
    return row["title"] or row["product_id"]


def _picture(folder: Path, row: dict[str, Any]) -> str | None:
    return thumbnail(media_path(folder / "media", row["images"][0])) if row["images"] else None
