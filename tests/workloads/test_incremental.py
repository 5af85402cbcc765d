"""A changed shop: only new and changed products are processed, and the result is that of a run from nothing."""

import json
import shutil
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fuserank.artifacts import MANIFEST
from fuserank.config import Experiment
from fuserank.features.featurizer import FeatureSettings, Featurizer
from fuserank.features.parts import block_begins, set_aside
from fuserank.features.rows import RowFeaturizer
from fuserank.features.table import FeatureTable
from fuserank.records.media import MediaSource
from fuserank.records.products import STAGED
from tests.workloads.flawed import PRODUCTS, colour, experiment, picture, write_shop
from workloads import preprocess

pytestmark = [pytest.mark.usefixtures("ray_cluster"), pytest.mark.timeout(120)]

TABLES = ("products", "queries", "query_features", "judgments", "events", "quarantine", "duplicates", "flags")


def outputs(chosen: Experiment) -> dict[str, object]:
    """Everything a later stage reads."""
    folder = chosen.run / "preprocess"
    found: dict[str, object] = {name: pq.read_table(folder / f"{name}.parquet").to_pylist() for name in TABLES}
    found["features"] = pq.read_table(folder / "features").to_pylist()
    found["tokenizer"] = (folder / "tokenizer" / "tokenizer.json").read_text()
    found["media"] = sorted(path.name for path in (folder / "media").glob("*/*"))
    found["folders"] = sorted(path.name for path in folder.iterdir())
    return found


def processed(chosen: Experiment) -> dict[str, int]:
    return preprocess.run(chosen)["summary"]["processed"]


def change(root: Path) -> None:
    """A new product, a changed text, a removed product, a changed picture, a changed price, a picture that came."""
    path = root / "products.csv"
    text = path.read_text().replace("word20", "otherword").replace("31.50,EUR", "777.00,EUR")
    lines = [line for line in text.splitlines() if not line.startswith("p40,")]
    path.write_text("\n".join([*lines, "p99,New,,,,5,EUR,9.png,,x"]) + "\n")
    old = zipfile.ZipFile(root / "images.zip")
    with zipfile.ZipFile(root / "images.new", "w") as new:
        for name in old.namelist():
            new.writestr(name, picture((1, 2, 3)) if name == "50.png" else old.read(name))
        new.writestr("gone.png", picture(colour(2)))
    (root / "images.new").replace(root / "images.zip")


@pytest.mark.parametrize("rows_per_block", [7, 1000])
def test_only_changes_are_processed(tmp_path: Path, rows_per_block: int) -> None:
    chosen = experiment(tmp_path / "one", preprocess__rows_per_block=rows_per_block)
    write_shop(tmp_path / "one" / "shop")
    assert processed(chosen) == {"anew": PRODUCTS, "as before": 0}
    change(tmp_path / "one" / "shop")
    assert processed(chosen) == {"anew": 4, "as before": PRODUCTS - 4}  # p99, p20, p50, p02; not p30, whose price moved
    fresh = experiment(tmp_path / "other", preprocess__rows_per_block=rows_per_block)
    write_shop(tmp_path / "other" / "shop")
    change(tmp_path / "other" / "shop")
    assert processed(fresh) == {"anew": PRODUCTS, "as before": 0}
    assert outputs(chosen) == outputs(fresh)
    table = FeatureTable.open(chosen.run / "preprocess" / "features")
    at = table.rows(["p50", "p51"])
    assert table.batch(at, "image")["pixels"][:, :, 0, 0].tolist() == [[1, 2, 3], list(colour(51))]


def test_other_settings_process_all(tmp_path: Path) -> None:
    write_shop(tmp_path / "shop")
    assert processed(experiment(tmp_path))["as before"] == 0
    assert processed(experiment(tmp_path, preprocess__vocabulary=300))["as before"] == PRODUCTS  # tokens are made anew
    larger = experiment(tmp_path, preprocess__image_size=[12, 8])
    assert processed(larger) == {"anew": PRODUCTS, "as before": 0}
    folder = larger.run / "preprocess"
    assert FeatureTable.open(folder / "features").images.shape[1:] == (12, 8, 3)
    for path in (folder / "media").glob("*/*"):
        path.unlink()  # media that went are read again, whatever the index says
    (folder / MANIFEST).unlink()
    assert processed(larger)["anew"] == PRODUCTS - 1  # the one that has neither picture nor sound… is p01, with a sound
    assert len(list((folder / "media").glob("*/*"))) > 50


def test_a_run_that_broke_off_goes_on(tmp_path: Path) -> None:
    """Finished parts count, half a part does not; nothing is missing or doubled."""
    write_shop(tmp_path / "shop")
    chosen = experiment(tmp_path)
    processed(chosen)
    whole, folder = outputs(chosen), chosen.run / "preprocess"
    parts = sorted((folder / "features").glob("*.parquet"))
    kept = pq.read_table(parts[0]).num_rows + pq.read_table(parts[1]).num_rows
    for path in parts[3:]:
        path.unlink()
    parts[2].write_bytes(parts[2].read_bytes()[:100])
    (folder / "features" / ".half.parquet.77").write_bytes(b"PAR1")
    for name in ("manifest.json", "products.parquet", "quarantine.parquet"):
        (folder / name).unlink()
    (folder / "media" / "00").mkdir(exist_ok=True)
    (folder / "media" / "00" / ".00.png.77").write_bytes(b"half")
    assert processed(chosen) == {"anew": PRODUCTS - kept, "as before": kept}
    assert outputs(chosen) == whole


def test_what_could_not_be_read_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk or network that failed once does not stay; a damaged file does."""
    (tmp_path / "1.png").write_bytes(picture((5, 6, 7)))
    (tmp_path / "2.png").write_bytes(b"no picture")
    rows = [{"product_id": str(n), "image_paths": [f"{n}.png"], "source": "p", "position": n} for n in (1, 2)]
    staged = pa.Table.from_pylist(rows, schema=STAGED)
    featurizer = Featurizer.fit(["words"], [], FeatureSettings(image_size=(4, 4)))
    worker = RowFeaturizer(featurizer, tmp_path / "media", MediaSource(tmp_path), None)

    def fail(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    (tmp_path / "features").mkdir()
    monkeypatch.setattr(MediaSource, "_from_folder", fail)
    told, part = worker.apply(staged)
    assert [p["reason"] for row in told["problems"].to_pylist() for p in row] == ["unreadable file"] * 2
    monkeypatch.undo()
    for reused in ([False, False], [True, True]):
        pq.write_table(part, tmp_path / "features" / "0.parquet")
        worker.earlier = set_aside(tmp_path / "features", tmp_path / "earlier")
        told, part = worker.apply(staged)
        assert told["reused"].to_pylist() == reused
        assert told["has_image"].to_pylist() == [True, False]
        shutil.rmtree(tmp_path / "earlier")


def test_a_changed_picture_in_a_folder_is_seen(tmp_path: Path) -> None:
    root = write_shop(tmp_path / "shop")
    with zipfile.ZipFile(root / "images.zip") as archive:
        archive.extractall(root / "pictures", [f"{number}.png" for number in range(PRODUCTS)])
    chosen = experiment(
        tmp_path, records__images={"source": "pictures"}, records__queries=None, records__judgments=None
    )
    processed(chosen)
    first = preprocess.run(chosen)
    assert preprocess.run(chosen) == first
    (root / "pictures" / "8.png").write_bytes(picture((9, 9, 9)))
    assert processed(chosen) == {"anew": 1, "as before": PRODUCTS - 1}


def test_duplicates_are_merged_on_request(tmp_path: Path) -> None:
    """Same text and same picture: one product; what was said of the other is said of it."""
    root = write_shop(tmp_path / "shop")
    path = root / "products.csv"
    rows = path.read_text().splitlines()
    twin = next(row for row in rows if row.startswith("p10,")).replace("p10,", "p98,").replace("11.50", "12.00")
    path.write_text("\n".join([*rows, twin, twin.replace("p98,", "p97,").replace("10.png", "11.png")]) + "\n")
    judged = (root / "judgments.csv").read_text()
    (root / "judgments.csv").write_text(judged + "q10,p98,3\nq11,p98,1\nq12,p97,1\n")
    click = {"type": "click", "user_id": "u", "session_id": "s", "event_id": "late", "product_id": "p98"}
    with (root / "events.jsonl").open("a") as file:
        file.write("\n" + json.dumps(click | {"timestamp": 1714557700000}))
    plain = experiment(tmp_path)
    preprocess.run(plain)
    assert pq.read_table(plain.run / "preprocess" / "products.parquet").num_rows == PRODUCTS + 2
    merging = experiment(tmp_path, preprocess__merge_duplicates=["same text", "same picture"])
    summary = preprocess.run(merging)["summary"]
    folder = merging.run / "preprocess"
    products = pq.read_table(folder / "products.parquet").to_pylist()
    assert [row["product_id"] for row in products] == [f"p{n:02}" for n in range(PRODUCTS)] + ["p97"]
    assert [row["variant_ids"] for row in products if row["variant_ids"]] == [["p98"]]
    assert products[10]["variant_ids"] == ["p98"]
    assert FeatureTable.open(folder / "features").ids == [row["product_id"] for row in products]
    grades = {
        (row["query_id"], row["product_id"]): row["grade"]
        for row in pq.read_table(folder / "judgments.parquet").to_pylist()
    }
    assert (grades[("q10", "p10")], grades[("q11", "p10")], grades[("q12", "p97")]) == (3.0, 1.0, 1.0)
    assert len(grades) == 32
    assert pq.read_table(folder / "events.parquet")["product_id"].to_pylist()[-1] == "p10"
    rows_of = summary["rows"]
    assert rows_of["products"]["out"] == summary["missing"]["products"] == PRODUCTS + 1
    assert (rows_of["products"]["merged"], rows_of["judgments"]["merged"]) == (1, 1)


@pytest.mark.parametrize(("rows", "size", "workers"), [(1, 512, 2), (60, 512, 2), (1200, 512, 2), (100_000, 1024, 16)])
def test_blocks_are_for_every_worker_and_cover_the_rows(rows: int, size: int, workers: int) -> None:
    begins = block_begins(rows, size, workers)
    lengths = [end - begin for begin, end in zip(begins, [*begins[1:], rows], strict=True)]
    assert begins[0] == 0
    assert sum(lengths) == rows
    assert min(lengths) > 0
    assert max(lengths) <= size
    assert lengths[0] <= 64
    assert len(begins) >= min(rows, workers)
