"""A run to serve: the products and the models of a finished demo, as often as it takes to make 20,000 products of them.

Each copy has vectors a little beside its original's, and a number in its title, so that no two are alike.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from fuserank import config
from fuserank.features.featurizer import Featurizer
from fuserank.feedback.behaviour import Behaviour
from fuserank.retrieval.generation import current_generation, write_generation

NOISE = 0.1  # of a vector's length


def write_run(demo: Path, root: Path, products: int) -> config.Experiment:
    """Below `root`, from the demo's run folder. Raises MissingStageError: it has no index."""
    import shutil

    import torch

    from fuserank.models.checkpoint import load_model

    opened = current_generation(demo / "index")
    catalogue, random = opened.catalogue, np.random.default_rng(0)
    rows = np.arange(products) % catalogue.size
    model = load_model(opened.model_folder)
    vectors = catalogue.modality_vectors[rows].astype(np.float32)
    noise = random.standard_normal(vectors.shape, np.float32) * NOISE / vectors.shape[2] ** 0.5
    vectors = vectors + np.where(np.arange(products)[:, None, None] < catalogue.size, 0, noise)
    vectors = (vectors / np.linalg.norm(vectors, axis=2, keepdims=True).clip(1e-6)).astype(np.float16)
    mask = catalogue.mask[rows]
    with torch.inference_mode():
        known = torch.from_numpy(vectors.astype(np.float32))
        fused = model.product_vectors(known, torch.from_numpy(mask)).float().numpy()
    table = catalogue.products.take(pa.array(rows))
    copies = (np.arange(products) // catalogue.size).tolist()
    names = [f"{name}-{copy}" for copy, name in zip(copies, _column(table, "product_id"), strict=True)]
    titles = [f"{title or ''} {copy}" for copy, title in zip(copies, _column(table, "title"), strict=True)]
    for column, values in (("product_id", names), ("title", titles)):
        table = table.set_column(table.schema.get_field_index(column), column, pa.array(values, pa.string()))
    featurizer = Featurizer.load(opened.featurizer_folder)
    staged = root / "model"
    shutil.copytree(opened.model_folder, staged)
    Behaviour.load(opened.model_folder).take(rows).save(staged)
    experiment = config.validate({"name": "serving", "storage": {"root": str(root)}, "serve": {"cache": 0}})
    write_generation(
        experiment.run / "index",
        products=table,
        modality_vectors=vectors,
        mask=mask,
        vectors=fused,
        texts=[featurizer.product_words(product) for product in table.to_pylist()],
        model_folder=staged,
        featurizer_folder=opened.featurizer_folder,
        modalities=model.modalities,
        details={
            name: opened.manifest[name] for name in ("candidates", "hybrid", "reranker") if name in opened.manifest
        },
    )
    (experiment.run / "index" / "manifest.json").write_text('{"digest": "made by a benchmark"}')
    return experiment


def questions(experiment: config.Experiment, seed: int) -> Iterator[str]:
    """Three words of titles and a number: never the same twice."""
    opened = current_generation(experiment.run / "index")
    words = sorted({word for title in _column(opened.catalogue.products, "title")[:1200] for word in title.split()})
    random = np.random.default_rng(seed)
    for number in itertools.count():
        yield f"{' '.join(random.choice(words, 3))} {seed}{number}"


def _column(table: pa.Table, name: str) -> list[str]:
    return table[name].to_pylist()
