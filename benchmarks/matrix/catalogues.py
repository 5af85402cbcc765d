"""Real data sets with one right answer a question, written as ordinary shops: answers are products."""

import csv
import json
import shutil
import zipfile
from pathlib import Path

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def banking77(data: Path, folder: Path) -> None:
    """Customers' questions (BANKING77) and the 77 intents they mean; the published split is the queries' group.

    Args:
        data: holds intents/train.csv and intents/test.csv (text, category).
    """
    queries, judged, intents = [], [], set()
    for part in ("train", "test"):
        with (data / "intents" / f"{part}.csv").open(encoding="utf-8", newline="") as rows:
            for number, row in enumerate(csv.DictReader(rows)):
                name = f"{part}-{number:05d}"
                queries.append({"query_id": name, "text": row["text"], "group": part})
                judged.append((name, row["category"], 1))
                intents.add(row["category"])
    _write(folder, [(name, name.replace("_", " ")) for name in sorted(intents)], queries, judged)


def digits(data: Path, folder: Path) -> None:
    """Spoken digits and the ten words they mean; the speaker is the queries' group.

    Args:
        data: holds voice/digits.zip, {digit}_{speaker}_{take}.wav.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(data / "voice" / "digits.zip", folder / "digits.zip")
    queries, judged = [], []
    with zipfile.ZipFile(folder / "digits.zip") as sounds:
        for file in sorted(name for name in sounds.namelist() if name.endswith(".wav")):
            digit, speaker, _ = Path(file).stem.split("_")
            queries.append({"query_id": Path(file).stem, "audio": file, "group": speaker})
            judged.append((Path(file).stem, DIGITS[int(digit)], 1))
    _write(folder, [(word, word) for word in DIGITS], queries, judged)


def speakers(data: Path) -> list[str]:
    """Who speaks in voice/digits.zip."""
    with zipfile.ZipFile(data / "voice" / "digits.zip") as sounds:
        return sorted({Path(name).stem.split("_")[1] for name in sounds.namelist() if name.endswith(".wav")})


def _write(folder: Path, products: list[tuple], queries: list[dict], judged: list[tuple]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, head, rows in (
        ("products.csv", ("product_id", "title"), products),
        ("judgments.csv", ("query_id", "product_id", "grade"), judged),
    ):
        with (folder / name).open("w", encoding="utf-8", newline="") as out:
            csv.writer(out).writerows([head, *rows])
    with (folder / "queries.jsonl").open("w", encoding="utf-8") as out:
        out.writelines(json.dumps(query) + "\n" for query in queries)
