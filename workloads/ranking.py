"""The search half of `fuserank evaluate`: held-out queries, the catalogue they search, and every system's ranking.

Reads preprocess/ (queries, their features, judgments) and an opened generation; writes only a scratch word index.
Q queries · N products of the evaluation catalogue · M modalities · D, E widths of modality and fused vectors.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from fuserank.errors import InputError
from fuserank.evaluation.metrics import rank_rows
from fuserank.evaluation.slices import without_words
from fuserank.evaluation.systems import late_order, modality_orders
from fuserank.features.table import FeatureTable
from fuserank.feedback.behaviour import Behaviour
from fuserank.models.fused import FusedModel
from fuserank.models.reranker import Reranker
from fuserank.records.schema import MODALITIES
from fuserank.retrieval.catalogue import Catalogue
from fuserank.retrieval.hybrid import Hybrid
from fuserank.retrieval.lexical import LexicalIndex
from fuserank.retrieval.pipeline import Retriever, SearchRequest
from fuserank.retrieval.rerank_inputs import placed, rerank, rerank_inputs
from fuserank.retrieval.vectors import Kind, VectorIndex
from fuserank.training.encode import encode_table

SPLIT = "evaluation"


@dataclass(frozen=True)
class Questions:
    """The evaluation queries, encoded once."""

    table: pa.Table  # QUERY
    text: list[str]  # "" where a query has none
    vectors: np.ndarray  # float32 [Q, E]
    heads: np.ndarray  # float32 [Q, M, D]: the query as each modality of a product is asked
    grades: np.ndarray  # float32 [Q, N], 0 where not judged


def evaluation_rows(products: pa.Table, by_product: bool) -> np.ndarray:
    """Rows of the catalogue that held-out queries search: held-out products where products are split, else all.

    Raises:
        InputError: no product is held out.
    """
    if not by_product:
        return np.arange(products.num_rows)
    rows = np.flatnonzero(np.array(products["split"].to_pylist(), dtype=object) == SPLIT)
    if not len(rows):
        raise InputError("no product is in the evaluation split.", "Check records.split and the products' keys.")
    return rows


def no_questions(preprocess: Path, product_ids: list[str]) -> Questions:
    """Of a shop that was never searched, and knows behaviour alone."""
    table = pq.read_table(preprocess / "queries.parquet").slice(0, 0)
    nothing = np.zeros((0, 0), np.float32)
    return Questions(table, [], nothing, nothing, np.zeros((0, len(product_ids)), np.float32))


def open_questions(preprocess: Path, model: FusedModel, product_ids: list[str]) -> Questions:
    """Queries of the evaluation split with their grades for the given products (N).

    Raises:
        InputError: no query is in the evaluation split.
    """
    table = pq.read_table(preprocess / "queries.parquet")
    held_out = np.array(table["split"].to_pylist(), dtype=object) == SPLIT
    if not held_out.any():
        raise InputError("no query is in the evaluation split.", "Give more queries, or change records.split.")
    table = table.filter(pa.array(held_out))
    ids: list[str] = table["query_id"].to_pylist()
    features = FeatureTable.open(preprocess / "query_features.parquet")
    columns = [MODALITIES.index(modality) for modality in model.modalities]
    vectors, mask = encode_table(model, features, features.rows(ids), columns, "query", torch.device("cpu"))
    with torch.inference_mode():
        fused, heads = model.search_vectors(vectors, mask)
    row = {query: place for place, query in enumerate(ids)}
    column = {product: place for place, product in enumerate(product_ids)}
    grades = np.zeros((len(ids), len(product_ids)), np.float32)
    judged = pq.read_table(preprocess / "judgments.parquet").to_pydict()
    for query, product, grade in zip(judged["query_id"], judged["product_id"], judged["grade"], strict=True):
        if query in row and product in column:
            grades[row[query], column[product]] = grade
    words = [text or "" for text in table["text"].to_pylist()]
    return Questions(table, words, fused.float().numpy(), heads.float().numpy(), grades)


def evaluation_catalogue(
    whole: Catalogue,
    model: FusedModel,
    rows: np.ndarray,
    hidden: np.ndarray,
    texts: list[str],
    scratch: Path,
    kind: Kind,
) -> Catalogue:
    """The evaluation products, searched as serving would search them.

    Args:
        rows: int64 [N] rows of `whole`.
        hidden: bool [N] whose words nobody sees: masked for the model, empty for word search.
        texts: what word search reads of each product of `whole`.
        scratch: an empty folder for the word index, which must outlive the catalogue.
    """
    modality_vectors, mask = whole.modality_vectors[rows], without_words(whole.mask[rows], hidden, model.modalities)
    vectors = np.asarray(whole.vectors[rows], np.float32)
    if hidden.any():
        with torch.inference_mode():
            known = torch.from_numpy(modality_vectors.astype(np.float32))
            vectors = model.product_vectors(known, torch.from_numpy(mask)).float().numpy()
    shown = ["" if hide else texts[row] for row, hide in zip(rows, hidden, strict=True)]
    lexical = LexicalIndex.build(shown, scratch, whole.lexical_index.typos)
    products = whole.products.take(pa.array(rows))
    return Catalogue(products, vectors, modality_vectors, mask, VectorIndex.build(vectors, kind), lexical)


def system_orders(
    model: FusedModel,
    reranker: Reranker,
    behaviour: Behaviour,
    catalogue: Catalogue,
    questions: Questions,
    candidates: int,
    hybrid: Hybrid,
    depth: int,
) -> dict[str, np.ndarray]:
    """System → int64 [Q, R] rows, best first, −1 where nothing more was found.

    `bm25`, each modality alone, `late` (their plain sum) and `fused` rank the whole catalogue; `hybrid` is the
    candidates of word and vector search by both scores; `served` is what users get: their first `depth` in the
    reranker's order, and nothing beyond the candidates.
    """
    size = catalogue.size
    orders = {"bm25": catalogue.lexical_index.search(questions.text, size)[0]}
    orders |= modality_orders(questions.heads, catalogue.modality_vectors, catalogue.mask, model.modalities)
    orders["late"] = late_order(questions.heads, catalogue.modality_vectors, catalogue.mask)
    orders["fused"] = rank_rows(questions.vectors @ catalogue.vectors.T)
    requests = [
        SearchRequest(text or None, vector, heads, candidates=candidates)
        for text, vector, heads in zip(questions.text, questions.vectors, questions.heads, strict=True)
    ]
    both, served = (np.full((len(requests), min(2 * candidates, size)), -1, np.int64) for _ in range(2))
    for row, found in enumerate(Retriever(catalogue, hybrid).search(requests)):
        seen = rerank_inputs(found.first(depth), questions.heads[row], catalogue, behaviour, [])
        scores = placed(found.score, rerank(reranker, seen))
        both[row, : len(found)] = found.rows
        served[row, : len(found)] = found.rows[np.argsort(-scores, kind="stable")]
    return orders | {"hybrid": both, "served": served}
