"""The preprocess stage on small shops with flaws of every kind: exact counts, right places, clear refusals."""

import json
import math
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from fuserank.artifacts import MANIFEST
from fuserank.errors import ConfigError, EmptyCatalogueError, InputError, StageError
from fuserank.features.featurizer import Featurizer
from fuserank.features.table import FeatureTable
from fuserank.records.media import media_path
from fuserank.records.schema import JUDGMENT, PRODUCT, QUARANTINE, QUERY, SPLIT_EVENT
from fuserank.records.splits import split_of
from tests.workloads.flawed import PRODUCTS, colour, experiment, picture, sound, write_shop
from workloads import preprocess

pytestmark = [pytest.mark.usefixtures("ray_cluster"), pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> tuple[Path, dict]:
    """The flawed shop, preprocessed: (the stage's folder, its summary)."""
    base = tmp_path_factory.mktemp("shop")
    write_shop(base / "shop")
    chosen = experiment(base)
    manifest = preprocess.run(chosen)
    return chosen.run / "preprocess", manifest["summary"]


def test_products_are_exact(done: tuple[Path, dict]) -> None:
    folder, summary = done
    table = pq.read_table(folder / "products.parquet")
    assert table.schema.equals(PRODUCT)
    assert table["product_id"].to_pylist() == [f"p{i:02}" for i in range(PRODUCTS)]
    rows = table.to_pylist()
    assert rows[5]["title"] == "Article 5"
    assert rows[5]["description"] == "good & word5"
    assert rows[5]["price"] == Decimal("6.50")
    assert rows[5]["category"] == ["Home", "Mugs"]
    assert rows[5]["labels"] == [("kind", "SECRETLABEL")]
    assert [row["product_id"] for row in rows if not row["images"]] == ["p01", "p02", "p03", "p07"]
    assert [row["product_id"] for row in rows if row["audio"]] == ["p01", "p02", "p03", "p04"]
    assert media_path(folder / "media", rows[5]["images"][0]).read_bytes() == picture(colour(5))
    assert media_path(folder / "media", rows[3]["audio"]).read_bytes() == sound(900)
    assert summary["rows"]["products"]["in"] == PRODUCTS + 4
    assert summary["rows"]["products"]["out"] == PRODUCTS
    assert summary["missing"]["without"] == {"text": 1, "image": 4, "audio": 56, "price": 2, "attributes": 1}
    assert json.loads((folder / "summary.json").read_text()) == summary


def test_quarantine_says_what_and_where(done: tuple[Path, dict]) -> None:
    folder, summary = done
    table = pq.read_table(folder / "quarantine.parquet")
    assert table.schema.equals(QUARANTINE)
    found = {(e["source"], e["position"], e["part"], e["reason"], e["product_id"]) for e in table.to_pylist()}
    at = {f"p{number:02}": PRODUCTS - number for number in range(PRODUCTS)}  # rows stand in reverse after a bad one
    assert found == {
        ("products.csv", 0, "row", "missing product_id", None),
        ("products.csv", 61, "row", "duplicate product_id", "p08"),
        ("products.csv", 62, "row", "wrong number of columns", None),
        ("products.csv", 63, "row", "wrong number of columns", None),
        ("products.csv", at["p00"], "audio", "unreadable sound", "p00"),
        ("products.csv", at["p02"], "image", "missing file", "p02"),
        ("products.csv", at["p03"], "image", "forbidden path", "p03"),
        ("products.csv", at["p04"], "price", "bad price", "p04"),
        ("products.csv", at["p07"], "image", "unreadable picture", "p07"),
        ("queries.jsonl", 31, "image", "unreadable picture", None),
        ("judgments.csv", 30, "row", "unknown product", "nothing"),
        ("events.jsonl", 20, "row", "duplicate event_id", "p00"),
    }
    assert summary["rows"]["events"] == {
        "in": 21, "out": 20, "merged": 0, "repeated": 0, "quarantined": 1, "reasons": {"row: duplicate event_id": 1},
    }  # fmt: skip


def test_features_are_aligned(done: tuple[Path, dict]) -> None:
    folder, _ = done
    featurizer, table = Featurizer.load(folder), FeatureTable.open(folder / "features")
    products = pq.read_table(folder / "products.parquet").to_pylist()
    assert table.ids == [row["product_id"] for row in products]
    for row, product in enumerate(products):
        assert table.has("image")[row] == bool(product["images"])
        assert table.has("audio")[row] == bool(product["audio"])
        assert table.has("price")[row] == (product["price"] is not None)
        assert table.has("text")[row] == (product["product_id"] != "p06")
        if table.has("image")[row]:
            pixels = table.batch([row], "image")["pixels"][0].numpy()
            assert (pixels == np.array(colour(row))[:, None, None]).all()
        if table.has("price")[row]:
            assert table.batch([row], "price")["log_price"].item() == pytest.approx(math.log(row + 1.5))
        if table.has("text")[row]:
            ids = table.batch([row], "text")["input_ids"][0].tolist()
            assert ids == featurizer.text([f"Article {row} Acme Home Mugs good & word{row}"])[0]
        assert table.has("attributes")[row] == (product["product_id"] != "p06")
        if table.has("attributes")[row]:
            ids = table.batch([row], "attributes")["attribute_ids"][0].tolist()
            values = [featurizer.settings.attributes.values[number - 1] for number in ids if number]
            assert values == ["brand=acme", "category=home", "category=mugs"]
        if table.has("audio")[row]:
            assert (table.batch([row], "audio")["mel"][0].numpy() == featurizer.audio(sound(300 * row))).all()


def test_queries_judgments_events(done: tuple[Path, dict]) -> None:
    folder, summary = done
    queries, judgments, events = (pq.read_table(folder / f"{n}.parquet") for n in ("queries", "judgments", "events"))
    assert (queries.schema, judgments.schema, events.schema) == (QUERY, JUDGMENT, SPLIT_EVENT)
    table = FeatureTable.open(folder / "query_features.parquet")
    assert table.ids == queries["query_id"].to_pylist() == sorted(queries["query_id"].to_pylist())
    by_id = {row["query_id"]: row for row in queries.to_pylist()}
    assert all(row["split"] == split_of(name, 10, [7], [8, 9]) for name, row in by_id.items())
    assert {name for name in by_id if table.has("image")[table.rows([name])[0]]} == {"qi"}
    assert not table.has("text")[table.rows(["qi"])[0]]
    assert by_id["qx"]["image"] is None
    assert judgments.num_rows == 30
    assert events["product_id"].to_pylist() == [f"p{i:02}" for i in range(19, -1, -1)]
    assert summary["splits"]["products"] == {}


def test_no_label_reaches_a_feature(done: tuple[Path, dict]) -> None:
    folder, _ = done
    assert "secret" not in (folder / "tokenizer" / "tokenizer.json").read_text().lower()
    featurizer, table = Featurizer.load(folder), FeatureTable.open(folder / "features")
    for row in np.flatnonzero(table.has("text")):
        assert "secret" not in featurizer.decode(table.batch([row], "text")["input_ids"][0].tolist())


def test_tokenizer_sees_training_products_only(tmp_path: Path) -> None:
    root = write_shop(tmp_path / "shop")
    words = {"training": "zzyzx", "validation": "qwrtp", "evaluation": "vbnmk"}
    rows = [f"{i},item {i}" for i in range(60)]
    by_split = {split_of(row.split(",")[0], 10, [7], [8, 9]): None for row in rows}
    assert by_split.keys() == words.keys()
    told = [words[split_of(row.split(",")[0], 10, [7], [8, 9])] for row in rows]
    rows = [f"{row} {word},{word}" for row, word in zip(rows, told, strict=True)]
    (root / "products.csv").write_text("product_id,title,brand\n" + "\n".join(rows))
    chosen = experiment(
        tmp_path, records__products={"files": ["products.csv"]}, records__images=None, records__audio=None,
        records__labels=[], records__queries=None, records__judgments=None, records__events=None,
        records__split={"by": "product", "key": "product_id"},
    )  # fmt: skip
    preprocess.run(chosen)
    folder = chosen.run / "preprocess"
    assert set(pq.read_table(folder / "products.parquet")["split"].to_pylist()) == words.keys()
    vocabulary = json.loads((folder / "tokenizer" / "tokenizer.json").read_text())["model"]["vocab"]
    assert "zzyzx" in vocabulary
    assert not {"qwrtp", "vbnmk"} & vocabulary.keys()
    assert Featurizer.load(folder).settings.attributes.values == ("brand=zzyzx",)
    table = FeatureTable.open(folder / "features")
    assert table.has("attributes").tolist() == [told[int(name)] == "zzyzx" for name in table.ids]


def test_block_size_changes_nothing(done: tuple[Path, dict], tmp_path: Path) -> None:
    folder, _ = done
    write_shop(tmp_path / "shop")
    chosen = experiment(tmp_path, preprocess__rows_per_block=1000)
    preprocess.run(chosen)
    for name in ("products", "features", "queries", "query_features", "quarantine"):
        where = name if name == "features" else f"{name}.parquet"
        assert pq.read_table(chosen.run / "preprocess" / where).equals(pq.read_table(folder / where))


def test_a_second_run_is_skipped_until_a_file_changes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_shop(tmp_path / "shop")
    chosen = experiment(tmp_path)
    first = preprocess.run(chosen)
    assert preprocess.run(chosen) == first
    with (tmp_path / "shop" / "products.csv").open("a") as file:
        file.write("p99,New,,,,5,EUR,,,x\n")
    assert preprocess.run(chosen)["summary"]["rows"]["products"]["out"] == PRODUCTS + 1


def test_too_much_in_quarantine_fails_the_run(tmp_path: Path) -> None:
    write_shop(tmp_path / "shop")
    chosen = experiment(tmp_path, preprocess__max_quarantined=0.1)
    with pytest.raises(StageError, match=r"9 of 64 rows.*wrong number of columns ×2.*max_quarantined"):
        preprocess.run(chosen)
    assert not (chosen.run / "preprocess" / MANIFEST).exists()
    assert pq.read_table(chosen.run / "preprocess" / "quarantine.parquet").num_rows == 12  # kept, to be looked at


@pytest.mark.parametrize(
    ("sets", "error", "message"),
    [
        ({"records__root": None}, ConfigError, r"records\.root is not set"),
        ({"records__root": "/nowhere/at/all"}, InputError, r"records\.root"),
        ({"records__products": {"files": ["prodcuts.csv"]}}, InputError, r"prodcuts\.csv.*products\.csv"),
        ({"records__products": {"files": ["products.csv"], "map": {"title": "titel"}}}, InputError, "Nearest.*title"),
        ({"records__products": {"files": ["products.csv"], "map": {"tilte": "title"}}}, ConfigError, "mean `title`"),
        ({"records__products": {"files": ["products.csv"], "map": {"brand": "kind"}}}, ConfigError, "is a label"),
        ({"records__images": {"source": "pictures.zip"}}, InputError, r"records\.images\.source"),
        ({"records__images": None}, ConfigError, r"records\.images\.source"),
        ({"records__labels": ["knid"]}, InputError, r"records\.labels.*Nearest.*kind"),
        ({"records__split": {"by": "product", "key": "title"}}, ConfigError, r"records\.split\.by"),
        ({"preprocess__text_fields": ["title", "labels"]}, ConfigError, "not a text field"),
    ],
)
def test_bad_config_names_the_remedy(tmp_path: Path, sets: dict, error: type[Exception], message: str) -> None:
    write_shop(tmp_path / "shop")
    with pytest.raises(error, match=message):
        preprocess.run(experiment(tmp_path, **sets))


def test_empty_catalogue(tmp_path: Path) -> None:
    root = write_shop(tmp_path / "shop")
    header = (root / "products.csv").read_text().splitlines()[0]
    (root / "products.csv").write_text(header + "\n")
    with pytest.raises(EmptyCatalogueError):
        preprocess.run(experiment(tmp_path))
