"""`fuserank index`: what serving searches – vectors, words, products, model and reranker in one generation folder.

Reads preprocess/ and train/; writes index/generations/<id>/ and index/current. The reranker is fitted here, on the
validation queries, because it learns from what the finished retrieval finds.
"""

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fuserank.artifacts import run_stage, stage_folder
from fuserank.config import Experiment
from workloads.progress import say


def run(experiment: Experiment) -> dict:
    """Run the stage unless it is fresh; returns its manifest."""
    live = ("generations", "current")  # a running service answers from them until it is given the new one
    return run_stage(experiment, "index", lambda folder: _index(experiment, folder), survive=live, say=say)


def _index(experiment: Experiment, folder: Path) -> dict:
    import torch

    from fuserank.features.featurizer import Featurizer
    from fuserank.models.checkpoint import load_model, save_weights
    from fuserank.retrieval.generation import write_generation
    from fuserank.training.encode import encode_table
    from fuserank.training.splits import open_splits
    from fuserank.training.supervised import fused_table

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
    texts = [featurizer.product_text(row) for row in products.to_pylist()]
    with tempfile.TemporaryDirectory() as scratch:
        staged = Path(scratch) / "model"
        shutil.copytree(trained, staged)
        reranker, lift = _reranker(experiment, model, splits, products, texts, vectors, mask, device)
        save_weights(reranker, staged / "reranker.safetensors")
        tools = Path(scratch) / "featurizer"
        featurizer.save(tools)
        identity = write_generation(
            folder,
            products=products,
            modality_vectors=vectors.numpy(),
            mask=mask.numpy(),
            vectors=fused_table(model, (vectors, mask), device).cpu().numpy(),
            texts=texts,
            model_folder=staged,
            featurizer_folder=tools,
            modalities=model.modalities,
            kind=experiment.index.vectors,
            keep=experiment.index.keep,
            details={"media": str(preprocess / "media"), "candidates": experiment.index.candidates, "reranker": lift},
        )
    return {"generation": identity, "products": products.num_rows, "reranker": lift}


def _reranker(experiment, model, splits, products: pa.Table, texts, vectors, mask, device):
    """Fit on validation queries over the validation catalogue, as it is and with the text of a seeded half hidden."""
    import torch

    from fuserank.evaluation.slices import hidden_half, without_words
    from fuserank.models.reranker import Reranker, candidate_features, feature_names
    from fuserank.retrieval.catalogue import Catalogue
    from fuserank.retrieval.lexical import LexicalIndex
    from fuserank.retrieval.pipeline import Retriever, SearchRequest
    from fuserank.retrieval.vectors import VectorIndex
    from fuserank.training.encode import encode_table
    from fuserank.training.rerank import fit_reranker, pad_lists
    from fuserank.training.supervised import fused_table

    validation, n_features = splits.validation, len(feature_names(model.modalities))
    if not len(validation.query_rows):
        return Reranker(n_features), {}
    rows = validation.product_rows
    part = products.take(pa.array(rows))
    asked, asked_mask = encode_table(model, validation.queries, validation.query_rows, splits.columns, "query", device)
    with torch.inference_mode():
        fused, heads = (t.cpu().numpy() for t in model.search_vectors(asked.to(device), asked_mask.to(device)))
    words = query_texts(experiment)
    grades = validation.judgments.matrix(validation.query_rows, rows)
    ids = [products["product_id"][int(row)].as_py() for row in rows]
    hidden = hidden_half(ids, experiment.evaluate.hidden_text, experiment.seed + 1)
    found: tuple[list, list, list, list] = ([], [], [], [])
    for hide in (np.zeros(len(rows), bool), hidden):
        shown = torch.from_numpy(without_words(mask.numpy()[rows], hide, model.modalities))
        mine = vectors[torch.from_numpy(rows)]
        matrix = fused_table(model, (mine, shown), device).cpu().numpy()
        with tempfile.TemporaryDirectory() as scratch:
            lexical = LexicalIndex.build(
                ["" if h else texts[r] for r, h in zip(rows, hide, strict=True)], Path(scratch)
            )
            catalogue = Catalogue(part, matrix, mine.numpy(), shown.numpy(), VectorIndex.build(matrix, "flat"), lexical)
            requests = [
                SearchRequest(words[q], fused[i], heads[i], candidates=experiment.index.candidates)
                for i, q in enumerate(validation.query_rows)
            ]
            for i, c in enumerate(Retriever(catalogue).search(requests)):
                found[0].append(candidate_features(c.fused, c.lexical, c.modalities, c.mask))
                found[1].append(grades[i, c.rows])
                found[2].append(grades[i][grades[i] > 0])
                found[3].append(i)
    return fit_reranker(pad_lists(*found), experiment.seed)


def query_texts(experiment: Experiment) -> list[str | None]:
    """The text of every query, in the order of query_features.parquet."""
    table = pq.read_table(stage_folder(experiment, "preprocess") / "queries.parquet", columns=["text"])
    return table["text"].to_pylist()
