"""A small shop with flaws of every kind, and the experiment that preprocesses it."""

import csv
import io
import json
import wave
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from fuserank import config
from fuserank.config import Experiment

PRODUCTS = 60


def picture(colour: tuple[int, int, int]) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (20, 30), colour).save(out, "PNG")
    return out.getvalue()


def sound(frequency: float) -> bytes:
    samples = 12000 * np.sin(2 * np.pi * frequency * np.arange(8000) / 16000)
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setparams((1, 2, 16000, 8000, "NONE", ""))
        file.writeframes(samples.astype("<i2").tobytes())
    return out.getvalue()


def colour(number: int) -> tuple[int, int, int]:
    return (number * 4 % 256, 100, 255 - number)


def write_shop(root: Path) -> Path:
    """60 good rows and 4 bad ones; some media are missing, damaged or outside the archive."""
    root.mkdir(parents=True, exist_ok=True)
    rows = [
        {
            "product_id": f"p{number:02}", "title": f"Article {number}",
            "description": f"<b>good</b> &amp; word{number}",
            "brand": "Acme", "category": "Home|Mugs", "price": f"{number + 1}.50", "currency": "EUR",
            "image": f"{number}.png", "audio": f"{number}.wav" if number < 5 else "", "kind": "SECRETLABEL",
        }
        for number in range(PRODUCTS)
    ]  # fmt: skip
    rows[1]["image"] = ""
    rows[2]["image"] = "gone.png"
    rows[3]["image"] = "../evil.png"
    rows[4]["price"] = "call us"
    rows[6].update(title="", description="", brand="", category="", price="")
    rows[7]["image"] = "broken.png"
    rows[0]["audio"] = "broken.wav"
    bad = [{**rows[8], "product_id": ""}, {**rows[8], "title": "second"}]
    with (root / "products.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows([bad[0], *rows[::-1], bad[1]])
        file.write("too,few\nvalues\n")
    with zipfile.ZipFile(root / "images.zip", "w") as archive:
        for number in range(PRODUCTS):
            archive.writestr(f"{number}.png", picture(colour(number)))
        archive.writestr("broken.png", picture(RED)[:60])
        archive.writestr("../evil.png", picture(RED))
    with zipfile.ZipFile(root / "audio.zip", "w") as archive:
        for number in range(1, 5):
            archive.writestr(f"{number}.wav", sound(300 * number))
        archive.writestr("broken.wav", b"RIFF????")
    queries = [{"query_id": f"q{i}", "text": f"article {i}"} for i in range(30)]
    queries += [{"query_id": "qi", "image": "9.png"}, {"query_id": "qx", "text": "mixed", "image": "broken.png"}]
    (root / "queries.jsonl").write_text("\n".join(json.dumps(query) for query in queries))
    judgments = "".join(f"q{i},p{i:02},2\n" for i in range(30))
    (root / "judgments.csv").write_text(f"query_id,product_id,grade\n{judgments}q0,nothing,1\n")
    event = {"type": "click", "user_id": "u", "session_id": "s"}
    events = [
        {**event, "event_id": f"e{i}", "product_id": f"p{i:02}", "timestamp": 1714557600000 - i} for i in range(20)
    ]
    (root / "events.jsonl").write_text("\n".join(json.dumps(row) for row in [*events, events[0]]))
    return root


RED = (255, 0, 0)
SHOP = {
    "products": {"files": ["products.csv"], "map": {"images": "image"}},
    "images": {"source": "images.zip"},
    "audio": {"source": "audio.zip"},
    "labels": ["kind"],
    "queries": {"files": ["queries.jsonl"]},
    "judgments": {"files": ["judgments.csv"]},
    "events": {"files": ["events.jsonl"]},
}


def experiment(tmp_path: Path, **sets: object) -> Experiment:
    values = {
        "name": "t",
        "storage": {"root": str(tmp_path / "runs")},
        "records": {"root": str(tmp_path / "shop"), **SHOP},
        "preprocess": {"image_size": [10, 8], "rows_per_block": 7, "vocabulary": 500},
    }
    return config.update(config.validate(values), {path.replace("__", "."): value for path, value in sets.items()})
