"""A leak planted in a real run's records ends its evaluation by name; the same records without it pass."""

import json
import re

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from fuserank import config
from fuserank.errors import LeakError
from fuserank.records.schema import EVENT, PRODUCT
from fuserank.records.splits import split_events
from tests.workloads import tiny
from workloads import evaluate, leaks

QUICK = {"evaluate.bootstrap": 100, "evaluate.examples": 0, "evaluate.hidden_text": 0.0}


@pytest.fixture
def run(tmp_path):
    """An experiment and its preprocess/ folder."""
    return config.update(tiny.build_run(tmp_path), QUICK), tmp_path / "tiny" / "preprocess"


def rewrite(file, change) -> None:
    table = pq.read_table(file)
    rows = table.to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, table.schema), file)


def products_split(folder) -> None:
    """Even rows train, odd ones are held out; every product has a title of its own."""

    def change(rows: list[dict]) -> None:
        for place, row in enumerate(rows):
            row["split"] = "evaluation" if place % 2 else "training"
            row["title"] = f"{row['title'] or 'nameless'} {place}"

    rewrite(folder / "products.parquet", change)


def test_a_held_out_title_in_training(run):
    experiment, folder = run
    experiment = config.update(experiment, {"records.split.by": "product", "records.split.key": "title"})
    products_split(folder)
    assert leaks.check(experiment, folder) == []

    def plant(rows: list[dict]) -> None:
        rows[4]["title"] = rows[5]["title"].upper().replace(" ", "  ")

    rewrite(folder / "products.parquet", plant)
    with pytest.raises(LeakError, match=r"repeated-products: 1 of \d+ held-out products have the title of one trained"):
        evaluate.run(experiment)
    assert not (folder.parent / "evaluate" / "report.html").exists()


def test_a_held_out_query_in_training(run):
    experiment, folder = run

    def plant(rows: list[dict]) -> None:
        trained = next(row for row in rows if row["split"] == "training" and row["text"] and not row["image"])
        held = next(row for row in rows if row["split"] == "evaluation" and row["text"] and not row["image"])
        trained["text"] = held["text"].title()

    rewrite(folder / "queries.parquet", plant)
    with pytest.raises(LeakError, match=r"repeated-queries: 1 of 14 held-out queries are asked in training too"):
        evaluate.run(experiment)


def test_known_words_over_new_products_are_no_leak_but_held_out_words_are(run):
    experiment, folder = run
    experiment = config.update(experiment, {"records.split.by": "product", "records.split.key": "title"})
    products_split(folder)

    def repeat(group: str):
        def change(rows: list[dict]) -> None:
            trained = next(row for row in rows if row["split"] == "training" and row["text"])
            held = next(row for row in rows if row["split"] == "evaluation" and row["text"] and row["group"] == group)
            held["text"], held["image"] = trained["text"], trained["image"]

        return change

    rewrite(folder / "queries.parquet", repeat("seen"))
    assert leaks.check(experiment, folder) == []
    rewrite(folder / "queries.parquet", repeat("unseen"))
    with pytest.raises(LeakError, match="repeated-queries: 1 of"):
        leaks.check(experiment, folder)


def test_an_event_after_the_split(run):
    experiment, folder = run
    experiment = config.update(experiment, {"records.event_split.by": "time"})
    file = folder / "events.parquet"
    pq.write_table(split_events(pq.read_table(file).cast(EVENT), "time", 0.2, 0.2), file)
    assert leaks.check(experiment, folder) == []
    table = pq.read_table(file)
    first = pc.call_function("min", [table.filter(pc.field("split") == "evaluation")["timestamp"]]).as_py()

    def plant(rows: list[dict]) -> None:
        next(row for row in rows if row["split"] == "training")["timestamp"] = first

    rewrite(file, plant)
    with pytest.raises(LeakError, match=r"later-events: 1 of \d+ events trained on are not earlier than"):
        evaluate.run(experiment)


def test_a_held_out_user_in_training(run):
    experiment, folder = run
    experiment = config.update(experiment, {"records.event_split.by": "user"})
    file = folder / "events.parquet"
    pq.write_table(split_events(pq.read_table(file).cast(EVENT), "user", 0.2, 0.4), file)
    assert leaks.check(experiment, folder) == []

    def plant(rows: list[dict]) -> None:
        user = next(row["user_id"] for row in rows if row["split"] == "evaluation")
        next(row for row in rows if row["split"] == "training")["user_id"] = user

    rewrite(file, plant)
    with pytest.raises(LeakError, match=r"later-events: 1 of \d+ held-out users have events in training \('u\d+'\)"):
        evaluate.run(experiment)


def label(folder, share: float) -> None:
    """Each product's colour becomes a label; a share of them also has it as brand, differently written."""

    def change(rows: list[dict]) -> None:
        for place, row in enumerate(rows):
            colour = (row["title"] or "black thing").split()[0]
            row["labels"], row["attributes"] = [("colour", colour)], []
            row["brand"] = colour.upper() if place < share * len(rows) else "Alder"

    rewrite(folder / "products.parquet", change)


def test_the_label_as_a_feature(run):
    experiment, folder = run
    label(folder, 0.9)
    assert leaks.check(experiment, folder) == []  # as titles do that name their product's colour
    label(folder, 1.0)
    with pytest.raises(LeakError, match=r"label-as-feature: 40 of 40 products have their label 'colour' as brand"):
        evaluate.run(experiment)
    unread = config.update(experiment, {"preprocess.text_fields": ["title"], "encoders.attributes": None})
    assert leaks.check(unread, folder) == []


def test_an_attribute_that_is_the_label(run):
    experiment, folder = run
    unread = config.update(experiment, {"preprocess.text_fields": ["title"], "encoders.attributes": None})
    as_text = config.update(unread, {"preprocess.text_fields": ["title", "attributes.shade"]})
    as_modality = config.update(unread, {"encoders.attributes": {}})

    def change(rows: list[dict]) -> None:
        for place, row in enumerate(rows):
            row["labels"] = [("colour", f"c{place % 3}")]
            row["attributes"] = [("shade", f"C{place % 3}"), ("shade", "dark")]

    rewrite(folder / "products.parquet", change)
    assert leaks.check(unread, folder) == []
    with pytest.raises(LeakError, match=r"label 'colour' as attributes\.shade"):
        leaks.check(as_text, folder)
    with pytest.raises(LeakError, match=r"label 'colour' as attributes, which is read"):
        leaks.check(as_modality, folder)


def test_an_allowed_leak_is_shown_and_its_remedy_works(run):
    experiment, folder = run
    label(folder, 1.0)
    with pytest.raises(LeakError) as caught:
        evaluate.run(experiment)
    remedy = re.search(r"evaluate\.allow_leaks=(\[.*?\])", caught.value.hint)
    assert remedy is not None
    allowed = config.update(experiment, {"evaluate.allow_leaks": remedy[1].strip("[]").split(", ")})
    evaluate.run(allowed)
    written = folder.parent / "evaluate"
    assert json.loads((written / "metrics.json").read_text())["leaks"][0]["name"] == "label-as-feature"
    assert "label-as-feature" in (written / "report.html").read_text()


def test_the_schema_of_planted_rows_is_the_real_one(run):
    assert pq.read_schema(run[1] / "products.parquet").names == PRODUCT.names
