"""Ray job: a shop's files → clean records and model inputs.

Reads the files that the config's `records` section names (or `generate`'s). Writes products, queries, judgments and
events as Parquet, features/, media/, tokenizer/, features.json, quarantine.parquet, summary.json and data_card.html.
Products that have not changed since the last run are taken from it; so are those that a broken-off run finished.
Run: `fuserank preprocess -c FILE`.
"""

import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fuserank.artifacts import code_digest, run_stage, write_json
from fuserank.config import Experiment
from fuserank.features import attributes
from fuserank.features.attributes import AttributeVocabulary
from fuserank.features.extractor import Extractor
from fuserank.features.featurizer import FeatureSettings, Featurizer
from fuserank.features.price import log_price
from fuserank.features.rows import RowFeaturizer
from fuserank.features.text import product_text, text_columns
from fuserank.records.duplicates import merged_into
from fuserank.records.flags import bot_like, price_outliers
from fuserank.records.quarantine import Quarantine, write_quarantine
from fuserank.records.splits import TRAINING, split_events, split_of
from fuserank.records.variants import known_ids
from workloads import reading
from workloads.data_card import write_data_card
from workloads.erasing import without_erased
from workloads.featurizing import KEPT, featurize, featurize_queries, prune_media
from workloads.merging import followed, followed_judgments, followed_links, take_out, without
from workloads.progress import say
from workloads.served import read_served, with_events, with_queries
from workloads.summary import missing_table, row_counts, show, value_counts

FITTED = 200_000  # of more products, every n-th trains the tokenizer and tells its attribute values
READ_AT_ONCE = 16_384  # rows held as Python objects


def run(experiment: Experiment) -> dict:
    """Run the stage unless it is fresh; returns its manifest.

    Raises:
        InputError, EmptyCatalogueError, ConfigError: the shop's files or their mapping cannot be used.
        ModelError: the tokenizer or the audio model's feature extractor cannot be loaded.
        StageError: too much in quarantine, or a worker failed.
    """
    return run_stage(experiment, "preprocess", lambda folder: _preprocess(experiment, folder), survive=KEPT, say=say)


def _preprocess(experiment: Experiment, folder: Path) -> dict[str, Any]:
    records, settings = experiment.records, experiment.preprocess
    root, media = reading.shop_folder(experiment), folder / "media"
    aside = {name: Quarantine(name) for name in ("products", "queries", "judgments", "events", "links", "reviews")}
    split = partial(
        split_of,
        modulus=records.split.modulus,
        validation=frozenset(records.split.validation),
        evaluation=frozenset(records.split.evaluation),
    )
    staged = reading.read_products(records, root, aside["products"], split, media)
    known = known_ids(staged)
    staged, linked, reviews = reading.read_relations(records, root, staged, known, aside)
    asked, judged = reading.read_queries(records, root, staged, known, linked, aside, split, media)
    served = read_served(records.served)
    asked, judged, same = with_queries(served, asked, judged, known)
    featurizer = _fit(experiment, staged, asked)
    featurizer.save(folder)
    pictures = reading.uses(staged["image_paths"]) or reading.uses(asked["image"])
    sounds = reading.uses(staged["audio_path"]) or reading.uses(asked["audio"])
    worker = RowFeaturizer(
        featurizer,
        media,
        reading.media(root, media, records.images, "images", pictures),
        reading.media(root, media, records.audio, "audio", sounds),
        code=code_digest(("features", "records/media.py", "records/duplicates.py", "records/schema.py")),
    )
    done = featurize(worker, staged, folder, settings.rows_per_block, aside["products"])
    asked = featurize_queries(worker, asked, folder, settings.rows_per_block, aside["queries"])
    behaviour = with_events(served, reading.read_events(records, root, known, reviews, aside["events"]), known, same)
    present, gone = done.present, merged_into(done.duplicates, settings.merge_duplicates)
    if gone:
        take_out(folder, gone)
        present = present.filter(pa.array([name not in gone for name in staged["product_id"].to_pylist()]))
        staged, judgments = without(staged, gone), judged.num_rows
        judged, linked = followed_judgments(judged, gone), followed_links(linked, gone)
        behaviour, reviews = followed(behaviour, gone), followed(reviews, gone)
        for name, fewer in (("products", len(gone)), ("judgments", judgments - judged.num_rows)):
            aside[name].merged += fewer
            aside[name].kept -= fewer
    prune_media(folder)
    flagged = pa.concat_tables([price_outliers(staged), bot_like(behaviour, records.bot_events_per_hour)])
    pq.write_table(flagged, folder / "flags.parquet")
    pq.write_table(done.duplicates, folder / "duplicates.parquet")
    pq.write_table(linked, folder / "links.parquet")
    pq.write_table(reviews, folder / "reviews.parquet")
    pq.write_table(judged, folder / "judgments.parquet")
    chosen = records.event_split
    behaviour = split_events(behaviour, chosen.by, chosen.validation, chosen.evaluation)
    pq.write_table(behaviour, folder / "events.parquet")
    write_quarantine(aside.values(), folder / "quarantine.parquet")
    without_erased(experiment, folder)
    tables = (staged, asked, judged, behaviour, linked, reviews)
    out = {name: table.num_rows for name, table in zip(aside, tables, strict=True)}
    summary = {
        "rows": row_counts(aside, out),
        "processed": {"anew": present.num_rows + len(gone) - done.reused, "as before": done.reused},
        "missing": missing_table(present),
        "splits": {
            "products": value_counts(staged["split"]),
            "queries": value_counts(asked["split"]),
            "events": value_counts(behaviour["split"]),
        },
        "flags": value_counts(flagged["flag"]),
        "duplicates": value_counts(done.duplicates["reason"]),
        "vocabulary": featurizer.settings.vocabulary,
        "attribute values": len(featurizer.settings.attributes.values),
    }
    write_json(folder / "summary.json", summary)
    card = write_data_card(
        folder, experiment.name, tuple(settings.text_fields), featurizer.settings.attributes, summary
    )
    show(summary)
    say(f"data card: {card}")
    for part in aside.values():
        part.check(part.kept, settings.max_quarantined)
    return summary


def _fit(experiment: Experiment, staged: pa.Table, asked: pa.Table) -> Featurizer:
    """Tokenizer, price edges and attribute values from training products and training queries only (all products where
    the split is not by product)."""
    settings, listener = experiment.preprocess, experiment.encoders.audio
    borrowed = None if listener is None else listener.model
    shapes = FeatureSettings(
        text_fields=tuple(settings.text_fields),
        word_fields=None if settings.word_fields is None else tuple(settings.word_fields),
        text_tokens=settings.text_tokens,
        image_size=settings.image_size,
        max_pixels=settings.max_pixels,
        rate=settings.audio.rate,
        seconds=settings.audio.seconds,
        mels=settings.audio.mels,
        extractor=None if borrowed is None else Extractor.fetch(borrowed, settings.audio.seconds),
    )
    columns = [*text_columns(shapes.text_fields), *attributes.COLUMNS, "price"]
    training = staged.select(list(dict.fromkeys(columns))).filter(
        pc.call_function("coalesce", [pc.call_function("equal", [staged["split"], TRAINING]), pa.scalar(True)])
    )
    every = max(1, math.ceil(training.num_rows / FITTED))
    texts: list[str] = []
    prices: list[float] = []
    for batch in training.to_batches(max_chunksize=READ_AT_ONCE):
        rows = batch.to_pylist()
        texts += [product_text(row, shapes.text_fields) for row in rows[::every]]
        prices += [value for row in rows if (value := log_price(row["price"])) is not None]
    texts += [row["text"] for row in asked.to_pylist() if row["split"] == TRAINING and row["text"]]
    told = training.select(attributes.COLUMNS)
    known = AttributeVocabulary.fit(
        (row for batch in told.to_batches(READ_AT_ONCE) for row in batch.to_pylist()[::every]),
        settings.attributes.values,
        settings.attributes.vocabulary,
        settings.attributes.bins,
    )
    return Featurizer.fit(
        texts,
        prices,
        replace(shapes, attributes=known),
        tokenizer=settings.tokenizer,
        vocabulary=settings.vocabulary,
        price_quantiles=settings.price_quantiles,
    )
