"""Staged products and queries → products.parquet, features/, queries.parquet and query_features.parquet, by Ray Data.

The second half of `preprocess`. Workers read blocks of rows and write their features themselves; what comes back to the
driver is small.
"""

import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray
import ray.data
from ray.exceptions import RayError

from fuserank.errors import StageError
from fuserank.features.layout import feature_schema, feature_writer
from fuserank.features.parts import PartWriter, block_begins, set_aside, stage
from fuserank.features.rows import RowFeaturizer
from fuserank.records.duplicates import find_duplicates
from fuserank.records.quarantine import Quarantine
from fuserank.records.schema import MODALITIES, PRODUCT, QUERY
from workloads.progress import bar

KEPT = ("features", "earlier", "media")
"""Folders of the stage that a new run finds again."""
FEW = 16  # blocks a worker below which no actors are started
MEDIA = {"products": ["images", "audio"], "queries": ["image", "audio"]}


@dataclass
class Featurized:
    """What is known of the products once their features are written.

    Args:
        present: a bool column for each of MODALITIES. duplicates: DUPLICATE. reused: rows taken from an earlier run.
    """

    present: pa.Table
    duplicates: pa.Table
    reused: int


def featurize(rows: RowFeaturizer, staged: pa.Table, folder: Path, block_rows: int, aside: Quarantine) -> Featurized:
    """Write products.parquet and features/, in the rows' order.

    Raises:
        StageError: a worker failed.
    """
    rows.earlier = set_aside(folder / "features", folder / "earlier")
    workers = max(1, int(ray.cluster_resources().get("CPU", 1)))
    begins = block_begins(staged.num_rows, block_rows, workers)
    stage(staged, folder / "staged", begins)
    writer = PartWriter(rows, folder / "staged", folder / "features")
    present: list[pa.Table] = []
    signed: list[pa.Table] = []
    reused = 0
    with pq.ParquetWriter(folder / "products.parquet", PRODUCT, compression="ZSTD") as products, bar() as progress:
        task = progress.add_task("products", total=staged.num_rows, note="starting workers")
        for told in _map_blocks(writer, begins, workers):
            products.write_table(told.select(PRODUCT.names))
            present.append(told.select([f"has_{name}" for name in MODALITIES]).rename_columns(list(MODALITIES)))
            main = [images[0] if images else None for images in told["images"].to_pylist()]
            signatures = told.select(["product_id", "text_signature", "picture_signature"])
            signed.append(signatures.append_column("main", pa.array(main, pa.string())))
            reused += sum(told["reused"].to_pylist())
            for row in told.select(["source", "position", "product_id", "problems"]).to_pylist():
                for problem in row["problems"]:
                    aside.add(row["source"], row["position"], **problem, product_id=row["product_id"])
            progress.update(task, advance=told.num_rows, note="")
    for name in ("staged", "earlier"):
        shutil.rmtree(folder / name, ignore_errors=True)
    found = pa.concat_tables(present)
    if found.num_rows != staged.num_rows:
        raise StageError(
            f"products: {staged.num_rows} rows went to the workers, {found.num_rows} came back.", "Run it again."
        )
    columns = pa.concat_tables(signed)
    doubles = find_duplicates(
        columns["product_id"], columns["text_signature"], columns["picture_signature"], columns["main"]
    )
    return Featurized(found, doubles, reused)


class BlockWorker:
    """One data worker: it opens tokenizer, zips and earlier parts once, and its next block waits beside it.

    As tasks the same blocks took half as long again (docs/EXPERIMENTS.md): each unpacked its function and was sent
    only once another had ended. Few blocks are done before actors have started.
    """

    def __init__(self, writer: PartWriter, begins: list[int]):
        self.writer, self.begins = writer, begins

    def __call__(self, block: pa.Table) -> pa.Table:
        return self.writer.write(self.begins[block["id"][0].as_py()])


def _map_blocks(writer: PartWriter, begins: list[int], workers: int) -> Iterator[pa.Table]:
    """rows.TOLD of each block, in order."""
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)  # it warns that its bars are off
    dataset = ray.data.range(len(begins), override_num_blocks=len(begins))
    dataset.context.execution_options.preserve_order = True
    dataset.context.enable_progress_bars = False  # ours
    options = {"batch_size": None, "batch_format": "pyarrow", "zero_copy_batch": True, "num_cpus": 1}
    if len(begins) < FEW * workers:
        mapped = dataset.map_batches(BlockWorker(writer, begins).__call__, **options)
    else:
        pool = ray.data.ActorPoolStrategy(
            min_size=1, max_size=workers, initial_size=workers, max_tasks_in_flight_per_actor=2
        )
        mapped = dataset.map_batches(BlockWorker, fn_constructor_args=(writer, begins), compute=pool, **options)
    try:
        yield from mapped.iter_batches(batch_size=None, batch_format="pyarrow")
    except RayError as error:
        cause = getattr(error, "cause", None) or error
        raise StageError(
            f"preprocess: a worker failed: {str(cause).strip().splitlines()[-1]:.300}",
            "Check free disk space and memory, then run the same command again.",
        ) from error


def featurize_queries(
    rows: RowFeaturizer, asked: pa.Table, folder: Path, block_rows: int, aside: Quarantine
) -> pa.Table:
    """Write queries.parquet and query_features.parquet, both sorted by id, a block at a time; returns QUERY."""
    schema = feature_schema("query_id", rows.featurizer.settings)
    tables = [QUERY.empty_table()]
    with feature_writer(folder / "query_features.parquet", schema) as file:
        for begin in range(0, asked.num_rows, block_rows):
            kept = asked.slice(begin, block_rows).to_pylist()
            values: dict[str, list[Any]] = {name: [] for name in ("image", "audio")}
            for row in kept:
                problems: list[dict[str, str]] = []
                row["image"], pixels = rows.picture(row["image"], problems)
                row["audio"], mel = rows.sound(row["audio"], problems)
                for problem in problems:
                    aside.add(row["source"], row["position"], **problem)
                values["image"].append(None if pixels is None else pixels.tobytes())
                values["audio"].append(None if mel is None else mel.tobytes())
            values["query_id"] = [row["query_id"] for row in kept]
            values["tokens"] = rows.tokens([row["text"] for row in kept])
            values["price"] = values["attributes"] = [None] * len(kept)
            file.write_table(pa.table([pa.array(values[f.name], f.type) for f in schema], schema=schema))
            tables.append(pa.Table.from_pylist(kept, schema=QUERY))
    table = pa.concat_tables(tables)
    pq.write_table(table, folder / "queries.parquet")
    return table


def prune_media(folder: Path) -> None:
    """Remove media that no product and no query of the stage names: those of earlier runs, and unreadable ones."""
    used: set[str] = set()
    for name in ("products", "queries"):
        for batch in pq.ParquetFile(folder / f"{name}.parquet").iter_batches(columns=MEDIA[name]):
            for column in batch.columns:
                flat = column.flatten() if pa.types.is_list(column.type) else column
                used.update(value for value in flat.to_pylist() if value)
    for path in (folder / "media").glob("*/*"):
        if path.name not in used:
            path.unlink()
