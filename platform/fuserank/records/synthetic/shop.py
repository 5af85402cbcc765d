"""Writes the generated shop as an ordinary shop's files; the same seed gives the same bytes
(espeak-ng keeps state between calls: its sounds repeat from one process to the next, not within one).

products.csv, images.zip, audio.zip (with speech), queries.jsonl, judgments.csv, events.jsonl – and truth.json, which no
stage reads: the true attributes, the tastes and the honesty figures.
"""

import csv
import json
import random
import zipfile
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

from fuserank.records.synthetic import speech
from fuserank.records.synthetic.behaviour import User, make_events, make_users
from fuserank.records.synthetic.catalogue import Product, make_products
from fuserank.records.synthetic.honesty import figures
from fuserank.records.synthetic.pictures import encode, render
from fuserank.records.synthetic.queries import Query, grade, make_queries
from fuserank.records.synthetic.searches import make_searches

_STAMP = (2026, 1, 1, 0, 0, 0)  # a fixed time in the zip files, so that their bytes repeat
COLUMNS = (
    *("product_id", "title", "description", "brand", "category", "color", "material", "price", "currency"),
    *("image", "audio", "in_stock", "rating", "review_count"),
)


def write_shop(folder: Path, products: int, users: int, queries: int, seed: int, with_speech: bool) -> dict:
    """Write every file.

    Args:
        with_speech: spoken names and queries, where espeak-ng is installed.

    Returns:
        Counts and the honesty figures.
    """
    folder.mkdir(parents=True, exist_ok=True)
    spoken = with_speech and speech.available()
    items, people = make_products(products, seed), make_users(users, seed)
    if not spoken:  # so that no figure counts speech that nobody hears
        items = [replace(product, spoken="") for product in items]
    asked = make_queries(items, [user.user_id for user in people], queries, seed, spoken)
    _pictures(folder / "images.zip", items, asked, seed)
    if spoken:
        _sounds(folder / "audio.zip", items, asked, seed)
    _products(folder / "products.csv", items, spoken)
    _queries(folder / "queries.jsonl", asked)
    judged = _judgments(folder / "judgments.csv", items, asked)
    events = _events(folder / "events.jsonl", items, people, asked, seed)
    honesty = figures(items, asked)
    truth = {
        "products": [_truth(p) for p in items],
        "queries": [{"query_id": q.query_id, "kind": q.kind, "type": q.type, "wanted": q.wanted} for q in asked],
        "users": [vars(user) for user in people],
        "honesty": honesty,
    }
    (folder / "truth.json").write_text(json.dumps(truth, indent=0), encoding="utf-8")
    counts = {
        "products": len(items),
        "users": len(people),
        "queries": len(asked),
        "judgments": judged,
        "events": events,
    }
    return {**counts, "speech": spoken, "honesty": honesty}


def _events(path: Path, products: list[Product], users: list[User], queries: list[Query], seed: int) -> int:
    count, clicked = 0, defaultdict(set)
    with path.open("w", encoding="utf-8") as out:
        for event in make_events(products, users, seed):
            out.write(json.dumps(event) + "\n")
            count += 1
            if event["type"] == "click":
                clicked[event["user_id"]].add(event["product_id"])
        for event in make_searches(products, users, queries, clicked, seed):
            out.write(json.dumps(event) + "\n")
            count += 1
    return count


def _truth(product: Product) -> dict:
    return {
        name: getattr(product, name)
        for name in ("product_id", "type", "colour", "pattern", "shape", "material", "tier")
    }


def _zip(path: Path) -> zipfile.ZipFile:
    return zipfile.ZipFile(path, "w", zipfile.ZIP_STORED)


def _pictures(path: Path, products: list[Product], queries: list[Query], seed: int) -> None:
    with _zip(path) as archive:
        for product in products:
            if product.has_image:
                draw = random.Random(f"picture-{seed}-{product.product_id}")
                picture = render(product.type, product.colour, product.pattern, product.shape, draw)
                archive.writestr(zipfile.ZipInfo(f"{product.product_id}.jpg", _STAMP), encode(picture))
        for query in queries:
            if query.kind in ("image", "mixed"):
                draw = random.Random(f"picture-{seed}-{query.query_id}")
                picture = render(
                    query.type, query.wanted["colour"], query.wanted["pattern"], query.wanted["shape"], draw
                )
                archive.writestr(zipfile.ZipInfo(f"{query.query_id}.jpg", _STAMP), encode(picture))


def _sounds(path: Path, products: list[Product], queries: list[Query], seed: int) -> None:
    speaker = speech.Speaker()
    said = [(p.product_id, p.spoken) for p in products if p.spoken]
    said += [(q.query_id, q.text) for q in queries if q.kind == "spoken"]
    with _zip(path) as archive:
        for name, text in said:
            draw = random.Random(f"voice-{seed}-{name}")
            sound = speaker.say(text, draw.choice(speech.VOICES), draw.randint(25, 75), draw.randint(190, 240))
            archive.writestr(zipfile.ZipInfo(f"{name}.wav", _STAMP), sound)


def _products(path: Path, products: list[Product], spoken: bool) -> None:
    with path.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(COLUMNS)
        for p in products:
            price = "" if p.price is None else f"{p.price:.2f}"
            image = f"{p.product_id}.jpg" if p.has_image else ""
            audio = f"{p.product_id}.wav" if p.spoken and spoken else ""
            stock = "true" if p.in_stock else "false"
            facts = (p.colour if p.names_colour else "", p.material if p.has_text else "")  # what its text tells
            words = (p.product_id, p.title, p.description, p.brand, "|".join(p.category), *facts)
            writer.writerow((*words, price, "EUR" if price else "", image, audio, stock, p.rating, p.review_count))


def _queries(path: Path, queries: list[Query]) -> None:
    with path.open("w", encoding="utf-8") as out:
        for q in queries:
            row: dict[str, str | None] = {"query_id": q.query_id, "kind": q.kind}
            row["text"] = q.text if q.kind in ("text", "mixed") else None
            row["image"] = f"{q.query_id}.jpg" if q.kind in ("image", "mixed") else None
            row["audio"] = f"{q.query_id}.wav" if q.kind == "spoken" else None
            row["user_id"] = q.user_id or None
            out.write(json.dumps(row) + "\n")


def _judgments(path: Path, products: list[Product], queries: list[Query]) -> int:
    count = 0
    with path.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(("query_id", "product_id", "grade"))
        for query in queries:
            for product in products:
                if (value := grade(product, query)) > 0:
                    writer.writerow((query.query_id, product.product_id, value))
                    count += 1
    return count
