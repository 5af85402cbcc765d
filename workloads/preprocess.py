"""Ray job: a shop's files → clean records and model inputs.

Reads the files that the config's `records` section names (or `generate`'s). Writes products, queries, judgments,
events and features as Parquet, media/, tokenizer/, features.json, quarantine.parquet and summary.json.
Run: `fuserank preprocess -c FILE`.
"""

import logging
import math
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray
import ray.data
from ray.exceptions import RayError

from fuserank.artifacts import run_stage, write_json
from fuserank.config import Experiment
from fuserank.errors import StageError
from fuserank.features.featurizer import FeatureSettings, Featurizer
from fuserank.features.layout import feature_schema, feature_writer
from fuserank.features.price import log_price
from fuserank.features.rows import RowFeaturizer, split_block
from fuserank.features.text import product_text, text_columns
from fuserank.records.duplicates import find_duplicates
from fuserank.records.flags import bot_like, price_outliers
from fuserank.records.quarantine import Quarantine, write_quarantine
from fuserank.records.schema import MODALITIES, PRODUCT, QUERY
from fuserank.records.splits import TRAINING, split_of
from workloads import reading
from workloads.data_card import write_data_card
from workloads.progress import bar, say
from workloads.summary import missing_table, row_counts, show, value_counts

TOKENIZER_TEXTS = 200_000  # of more products, every n-th text trains the tokenizer
READ_AT_ONCE = 16_384  # rows held as Python objects


def run(experiment: Experiment) -> dict:
    """Run the stage unless it is fresh; returns its manifest.

    Raises:
        InputError, EmptyCatalogueError, ConfigError: the shop's files or their mapping cannot be used.
        ModelError: the tokenizer cannot be loaded.
        StageError: too much in quarantine, or a worker failed.
    """
    return run_stage(experiment, "preprocess", lambda folder: _preprocess(experiment, folder), say=say)


def _preprocess(experiment: Experiment, folder: Path) -> dict[str, Any]:
    records, settings = experiment.records, experiment.preprocess
    root, inline = reading.shop_folder(experiment), folder / "inline"
    aside = {name: Quarantine(name) for name in ("products", "queries", "judgments", "events", "links", "reviews")}
    split = partial(
        split_of,
        modulus=records.split.modulus,
        validation=frozenset(records.split.validation),
        evaluation=frozenset(records.split.evaluation),
    )
    staged = reading.read_products(records, root, aside["products"], split, inline)
    staged, linked, reviews = reading.read_relations(records, root, staged, aside)
    asked, judged = reading.read_queries(records, root, staged, linked, aside, split)
    featurizer = _fit(experiment, staged, asked)
    featurizer.save(folder)
    pictures = reading.uses(staged["image_paths"]) or reading.uses(asked["image"])
    sounds = reading.uses(staged["audio_path"]) or reading.uses(asked["audio"])
    worker = RowFeaturizer(
        featurizer,
        folder / "media",
        reading.media(root, inline, records.images, "images", pictures),
        reading.media(root, inline, records.audio, "audio", sounds),
    )
    present, doubles = _featurize(worker, staged, folder, settings.rows_per_block, aside["products"])
    asked = _featurize_queries(worker, asked, folder, aside["queries"])
    shutil.rmtree(inline, ignore_errors=True)  # media/ has them now
    behaviour = reading.read_events(records, root, staged, reviews, aside["events"])
    flagged = pa.concat_tables([price_outliers(staged), bot_like(behaviour, records.bot_events_per_hour)])
    pq.write_table(flagged, folder / "flags.parquet")
    pq.write_table(doubles, folder / "duplicates.parquet")
    pq.write_table(linked, folder / "links.parquet")
    pq.write_table(reviews, folder / "reviews.parquet")
    pq.write_table(judged, folder / "judgments.parquet")
    pq.write_table(behaviour, folder / "events.parquet")
    write_quarantine(aside.values(), folder / "quarantine.parquet")
    tables = (staged, asked, judged, behaviour, linked, reviews)
    out = {name: table.num_rows for name, table in zip(aside, tables, strict=True)}
    summary = {
        "rows": row_counts(aside, out),
        "missing": missing_table(present),
        "splits": {"products": value_counts(staged["split"]), "queries": value_counts(asked["split"])},
        "flags": value_counts(flagged["flag"]),
        "duplicates": value_counts(doubles["reason"]),
        "vocabulary": featurizer.settings.vocabulary,
    }
    write_json(folder / "summary.json", summary)
    card = write_data_card(folder, experiment.name, tuple(settings.text_fields), summary)
    show(summary)
    say(f"data card: {card}")
    for part in aside.values():
        part.check(part.kept, settings.max_quarantined)
    return summary


def _fit(experiment: Experiment, staged: pa.Table, asked: pa.Table) -> Featurizer:
    """Tokenizer and price edges from training products (all where products have no split) and training queries only."""
    settings = experiment.preprocess
    shapes = FeatureSettings(
        text_fields=tuple(settings.text_fields),
        text_tokens=settings.text_tokens,
        image_size=settings.image_size,
        max_pixels=settings.max_pixels,
        rate=settings.audio.rate,
        seconds=settings.audio.seconds,
        mels=settings.audio.mels,
    )
    training = staged.select([*text_columns(shapes.text_fields), "price", "split"]).filter(
        pc.call_function("coalesce", [pc.call_function("equal", [staged["split"], TRAINING]), pa.scalar(True)])
    )
    every = max(1, math.ceil(training.num_rows / TOKENIZER_TEXTS))
    texts: list[str] = []
    prices: list[float] = []
    for batch in training.to_batches(max_chunksize=READ_AT_ONCE):
        rows = batch.to_pylist()
        texts += [product_text(row, shapes.text_fields) for row in rows[::every]]
        prices += [value for row in rows if (value := log_price(row["price"])) is not None]
    texts += [row["text"] for row in asked.to_pylist() if row["split"] == TRAINING and row["text"]]
    return Featurizer.fit(
        texts,
        prices,
        shapes,
        tokenizer=settings.tokenizer,
        vocabulary=settings.vocabulary,
        price_quantiles=settings.price_quantiles,
    )


def _featurize(
    worker: RowFeaturizer, staged: pa.Table, folder: Path, block_rows: int, aside: Quarantine
) -> tuple[pa.Table, pa.Table]:
    """Write products.parquet and features.parquet, in the rows' order.

    Returns:
        Which modalities each row has, and DUPLICATE.
    """
    schema = feature_schema("product_id", worker.featurizer.settings)
    present: list[pa.Table] = []
    signed: list[pa.Table] = []
    with (
        pq.ParquetWriter(folder / "products.parquet", PRODUCT, compression="ZSTD") as product_file,
        feature_writer(folder / "features.parquet", schema) as feature_file,
        bar() as progress,
    ):
        task = progress.add_task("products", total=staged.num_rows, note="starting workers")
        for block in _map_blocks(worker, staged, block_rows):
            product_rows, features = split_block(block, worker.featurizer)
            product_file.write_table(product_rows)
            feature_file.write_table(features)
            columns = (features["tokens"], features["image"], features["audio"], features["price"])
            present.append(pa.table([column.is_valid() for column in columns], names=list(MODALITIES)))
            signed.append(block.select(["product_id", "text_signature", "picture_signature", "images"]))
            for row in block.select(["source", "position", "product_id", "problems"]).to_pylist():
                for problem in row["problems"]:
                    aside.add(row["source"], row["position"], **problem, product_id=row["product_id"])
            progress.update(task, advance=block.num_rows, note="")
    found = pa.concat_tables(present)
    if found.num_rows != staged.num_rows:
        raise StageError(
            f"products: {staged.num_rows} rows went to the workers, {found.num_rows} came back.", "Run it again."
        )
    return found, _duplicates(pa.concat_tables(signed))


def _duplicates(signed: pa.Table) -> pa.Table:
    """DUPLICATE of the products' signatures."""
    first = [images[0] if images else None for images in signed["images"].to_pylist()]
    ids, texts = signed["product_id"].to_pylist(), signed["text_signature"].to_pylist()
    return find_duplicates(ids, texts, signed["picture_signature"].to_pylist(), first)


def _map_blocks(worker: RowFeaturizer, staged: pa.Table, block_rows: int) -> Iterator[pa.Table]:
    """Ray Data over blocks of rows, in order. Their number follows from the rows: one block would mean one worker."""
    cpus = int(ray.cluster_resources().get("CPU", 1))
    size = max(1, min(block_rows, math.ceil(staged.num_rows / (2 * cpus))))
    blocks = [ray.put(staged.slice(start, size).combine_chunks()) for start in range(0, staged.num_rows, size)]
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)  # it warns that its bars are off
    dataset = ray.data.from_arrow_refs(blocks)  # type: ignore[arg-type]  # references to tables
    dataset.context.execution_options.preserve_order = True
    dataset.context.enable_progress_bars = False  # ours, below
    mapped = dataset.map_batches(
        worker.apply, batch_size=None, batch_format="pyarrow", zero_copy_batch=True, num_cpus=1
    )
    try:
        yield from mapped.iter_batches(batch_size=None, batch_format="pyarrow")
    except RayError as error:
        cause = getattr(error, "cause", None) or error
        raise StageError(
            f"preprocess: a worker failed: {str(cause).strip().splitlines()[-1]:.300}",
            "Check free disk space and memory, then run the same command again.",
        ) from error


def _featurize_queries(worker: RowFeaturizer, asked: pa.Table, folder: Path, aside: Quarantine) -> pa.Table:
    """Write queries.parquet and query_features.parquet, both sorted by id."""
    kept: list[dict[str, Any]] = []
    for row in asked.to_pylist():
        problems: list[dict[str, str]] = []
        row["image"], pixels = worker.picture(row["image"], problems)
        row["audio"], mel = worker.sound(row["audio"], problems)
        for problem in problems:
            aside.add(row["source"], row["position"], **problem)
        kept.append({**row, "pixels": pixels, "mel": mel})
    schema = feature_schema("query_id", worker.featurizer.settings)
    features = [
        [row["query_id"] for row in kept],
        worker.tokens([row["text"] for row in kept]),
        [None if row["pixels"] is None else row["pixels"].tobytes() for row in kept],
        [None if row["mel"] is None else row["mel"].tobytes() for row in kept],
        [None] * len(kept),
    ]
    arrays = [pa.array(values, field.type) for values, field in zip(features, schema, strict=True)]
    with feature_writer(folder / "query_features.parquet", schema) as file:
        file.write_table(pa.table(arrays, schema=schema))
    table = pa.Table.from_pylist(kept, schema=QUERY)
    pq.write_table(table, folder / "queries.parquet")
    return table
