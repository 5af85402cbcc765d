"""`fuserank index`: what serving searches – vectors, words, products, model and reranker in one generation folder.

Reads preprocess/ and train/; writes index/generations/<id>/ and index/current. The reranker is fitted here
(reranking.py), because it learns from what the finished retrieval finds.
"""

import dataclasses
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from fuserank.artifacts import run_stage, stage_folder
from fuserank.config import Experiment
from workloads.progress import say

CODE = [Path(__file__).with_name(f"{name}.py") for name in ("index", "reranking", "blending")]


def run(experiment: Experiment) -> dict:
    """Run the stage unless it is fresh; returns its manifest."""
    live = ("generations", "current")  # a running service answers from them until it is given the new one
    return run_stage(experiment, "index", lambda folder: _index(experiment, folder), survive=live, code=CODE, say=say)


def _index(experiment: Experiment, folder: Path) -> dict:
    import torch

    from fuserank.features.featurizer import Featurizer
    from fuserank.models.checkpoint import load_model, save_weights
    from fuserank.retrieval.generation import write_generation
    from fuserank.training.encode import encode_table
    from fuserank.training.splits import open_splits
    from fuserank.training.supervised import fused_table
    from workloads import blending, reranking

    preprocess = stage_folder(experiment, "preprocess")
    trained = stage_folder(experiment, "train") / "model"
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = load_model(trained).to(device)
    splits = open_splits(preprocess, model.modalities, 0)
    table = splits.train.products
    products = pq.read_table(preprocess / "products.parquet")
    say(f"index: encoding {products.num_rows} products")
    rows = np.arange(products.num_rows)
    vectors, mask = encode_table(model, table, rows, splits.columns, "product", device)
    vectors = vectors.half().float()  # as they are kept, so that live changes can fuse what is kept with what is new
    featurizer = Featurizer.load(preprocess)
    texts = [featurizer.product_words(row) for row in products.to_pylist()]
    with tempfile.TemporaryDirectory() as scratch:
        staged = Path(scratch) / "model"
        shutil.copytree(trained, staged)
        shop = reranking.Shop(products, texts, vectors, mask)
        reranker, hybrid, behaviour, lift = reranking.fit(
            experiment, model, splits, shop, query_texts(experiment), device
        )
        save_weights(reranker, staged / "reranker.safetensors")
        behaviour.save(staged)
        matrix = fused_table(model, (vectors, mask), device).cpu().numpy()
        blend, blended, neighbours = blending.fit(experiment, model, shop, device)
        neighbours.save(staged)
        tools = Path(scratch) / "featurizer"
        featurizer.save(tools)
        identity = write_generation(
            folder,
            products=products,
            modality_vectors=vectors.numpy(),
            mask=mask.numpy(),
            vectors=matrix,
            texts=texts,
            model_folder=staged,
            featurizer_folder=tools,
            modalities=model.modalities,
            kind=experiment.index.vectors,
            typos=experiment.index.typos,
            keep=experiment.index.keep,
            spare=answering(experiment),
            details={
                "media": str(preprocess / "media"),
                "candidates": experiment.index.candidates,
                "hybrid": dataclasses.asdict(hybrid),
                "reranker": lift,
                "blend": dict(blend.weights),
                "blended": blended,
            },
        )
    return {"generation": identity, "products": products.num_rows, "reranker": lift, "blended": blended}


def answering(experiment: Experiment) -> list[str]:
    """The generations that a service of this run answers from, or is about to: they stay on disk."""
    from fuserank.store.database import kept_database

    if (database := kept_database(experiment)) is None:
        return []
    with database:
        return [row.id for row in database.generations() if row.state in ("active", "warming")]


def query_texts(experiment: Experiment) -> list[str | None]:
    """The text of every query, in the order of query_features.parquet."""
    table = pq.read_table(stage_folder(experiment, "preprocess") / "queries.parquet", columns=["text"])
    return table["text"].to_pylist()
