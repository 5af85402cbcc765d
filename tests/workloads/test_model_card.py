"""The model card says what the data, the parameters and the curves are."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from fuserank import config
from workloads.model_card import write_card


def test_card(tmp_path: Path) -> None:
    data, folder = tmp_path / "preprocess", tmp_path / "train"
    data.mkdir()
    folder.mkdir()
    pq.write_table(pa.table({"split": pa.array([None] * 7, pa.string())}), data / "products.parquet")
    pq.write_table(pa.table({"split": ["training"] * 3 + ["validation"] * 2}), data / "queries.parquet")
    pq.write_table(pa.table({"query_id": ["q"] * 11}), data / "judgments.parquet")
    lines = [{"task": "train", "epoch": n, "epochs": 2, "ndcg@10": n / 4, "text_ndcg@10": n / 5} for n in (1, 2)]
    (folder / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    parts = {"encoders.text": {"trained": 0, "total": 1234}, "all": {"trained": 5, "total": 1239}}
    summary = {"parameters": parts, "best": 0.51239, "best_epoch": 2, "epoch": 2}
    write_card(config.validate({"name": "shop", "encoders": {"image": None}}), data, folder, summary)
    card = (folder / "model_card.md").read_text()
    for expected in (
        "# Model card: shop",
        "| products | 7 | – | – | – |",
        "| queries | 5 | 3 | 2 | 0 |",
        "| judgments | 11 | | | |",
        "| encoders.text | 0 | 1,234 |",
        "**0.5124** (epoch 2 of\n2, then 100 refining steps)",
        "text (built small from the config, full)",
    ):
        assert expected in card
    assert Image.open(folder / "curves.png").size[0] > 500
