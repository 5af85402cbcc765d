"""From a shop's files to staged records, without Ray: pictures that stand in a Parquet column among them."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from fuserank import config
from fuserank.errors import ConfigError
from fuserank.features.featurizer import FeatureSettings, Featurizer
from fuserank.features.rows import RowFeaturizer
from fuserank.records.quarantine import Quarantine
from fuserank.records.schema import LINK
from workloads import reading


def png(red: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (6, 6), (red, 0, 0)).save(out, "PNG")
    return out.getvalue()


def shop(root: Path, **records: object) -> config.Experiment:
    return config.validate({"records": {"root": str(root), "products": {"files": ["*.parquet"]}, **records}})


def test_pictures_in_a_column(tmp_path: Path) -> None:
    """One picture, several, none, and bytes that are no picture: each product keeps what can be used."""
    cells = [[png(10)], [png(20), png(30)], [], [b"no picture"]]
    table = pa.table({"product_id": ["a", "b", "c", "d"], "images": pa.array(cells, pa.list_(pa.binary()))})
    pq.write_table(table, tmp_path / "p.parquet")
    experiment = shop(tmp_path, images={"source": None})
    records, root, inline = experiment.records, reading.shop_folder(experiment), tmp_path / "inline"
    aside = Quarantine("products")
    staged = reading.read_products(records, root, aside, str, inline)
    assert [len(paths) for paths in staged["image_paths"].to_pylist()] == [1, 2, 0, 1]
    source = reading.media(root, inline, records.images, "images", reading.uses(staged["image_paths"]))
    assert source is not None
    featurizer = Featurizer.fit(["words"], [], FeatureSettings(image_size=(4, 4)))
    told, part = RowFeaturizer(featurizer, tmp_path / "media", source, None).apply(staged)
    pixels = [None if p is None else int(np.frombuffer(p, np.uint8)[0]) for p in part["image"].to_pylist()]
    assert pixels == [10, 20, None, None]
    assert [len(names) for names in told["images"].to_pylist()] == [1, 2, 0, 0]
    assert [p["reason"] for p in told["problems"].to_pylist()[3]] == ["unreadable picture"]


def test_a_query_picture_in_a_column(tmp_path: Path) -> None:
    pq.write_table(pa.table({"product_id": ["a"], "images": [png(1)]}), tmp_path / "p.parquet")
    asked = pa.table({"query_id": ["q1", "q2"], "image": [png(7), None], "text": [None, "red"]})
    pq.write_table(asked, tmp_path / "q.parquet")
    pq.write_table(pa.table({"query_id": ["q1"], "product_id": ["a"], "grade": [1.0]}), tmp_path / "j.parquet")
    tables = {"queries": {"files": ["q.parquet"]}, "judgments": {"files": ["j.parquet"]}}
    experiment = shop(tmp_path, images={"source": None}, products={"files": ["p.parquet"]}, **tables)
    records, root, inline = experiment.records, reading.shop_folder(experiment), tmp_path / "inline"
    aside = {name: Quarantine(name) for name in ("products", "queries", "judgments", "links")}
    staged = reading.read_products(records, root, aside["products"], str, inline)
    queries, judged = reading.read_queries(records, root, staged, {"a": "a"}, LINK.empty_table(), aside, str, inline)
    paths = queries["image"].to_pylist()
    assert ((inline / paths[0]).read_bytes(), paths[1], judged.num_rows) == (png(7), None, 1)


def test_says_which_setting_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"records\.root is not set"):
        reading.shop_folder(config.validate({}))
    assert str(reading.shop_folder(shop(tmp_path))) == str(tmp_path)
    away = config.validate({"records": {"root": "s3://bucket/shop"}})
    assert str(reading.shop_folder(away)) == "s3://bucket/shop"


def test_links_need_grades_that_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"link_grades names 'related'"):
        shop(tmp_path, link_grades={"related": 2})
