"""The reranker's half of `fuserank index`: lists to fit it on, from validation queries and from search sessions."""

import dataclasses
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from fuserank.artifacts import stage_folder
from fuserank.config import Experiment
from fuserank.evaluation.slices import hidden_half, without_words
from fuserank.feedback.behaviour import Behaviour
from fuserank.feedback.positions import position_propensities
from fuserank.feedback.search_sessions import Pasts
from fuserank.losses.listwise import click_gains
from fuserank.models.candidates import feature_names, personal_features
from fuserank.models.fused import FusedModel
from fuserank.models.reranker import Reranker
from fuserank.retrieval.catalogue import Catalogue
from fuserank.retrieval.hybrid import Hybrid
from fuserank.retrieval.lexical import LexicalIndex
from fuserank.retrieval.pipeline import Retriever, SearchRequest
from fuserank.retrieval.rerank_inputs import RerankInputs, as_batch, rerank_inputs, take
from fuserank.retrieval.vectors import VectorIndex
from fuserank.training.encode import encode_table
from fuserank.training.hybrid import fit_hybrid
from fuserank.training.rerank import Lists, fit_reranker, pad_lists
from fuserank.training.splits import Splits
from fuserank.training.supervised import fused_table
from workloads.search_sessions import Log, held_out_queries, open_log, session_inputs


@dataclasses.dataclass(frozen=True)
class Shop:
    """The encoded catalogue."""

    products: pa.Table
    texts: list[str]
    vectors: torch.Tensor  # [N, M, D]
    mask: torch.Tensor  # bool [N, M]


def fit(
    experiment: Experiment, model: FusedModel, splits: Splits, shop: Shop, words: list[str | None], device: torch.device
) -> tuple[Reranker, Hybrid, Behaviour, dict[str, float]]:
    """The reranker, how words count beside vectors, the behaviour it is served with, and figures: those of fit_hybrid
    and fit_reranker, and `cut` (ms), the time from which sessions are held out."""
    preprocess, ids = stage_folder(experiment, "preprocess"), shop.products["product_id"].to_pylist()
    log = open_log(preprocess, ids, experiment.index.later_sessions)
    if log is None:
        counted = served = Behaviour.nothing(len(ids))
    else:
        counted, served = log.behaviour(log.half), log.behaviour(log.cut)
    cut = {"cut": float(log.cut)} if log is not None and log.cut is not None else {}
    if not len(splits.validation.query_rows):
        hybrid = Hybrid() if experiment.index.hybrid == "learnt" else configured(experiment)
        return Reranker(len(feature_names(model.modalities))), hybrid, served, dict(cut)
    hybrid, weighed = configured(experiment), dict[str, float]()
    judged = _judged(experiment, model, splits, shop, words, counted, hybrid, device)
    if experiment.index.hybrid == "learnt":
        weight, weighed = fit_hybrid(judged, experiment.seed)
        if weight > 0:
            hybrid = Hybrid("linear", weight)
            judged = _judged(experiment, model, splits, shop, words, counted, hybrid, device)
    clicks = None if log is None else _clicked(experiment, preprocess, model, shop, log, counted, hybrid, device)
    personal = personal_features(model.modalities)
    reranker, lift = fit_reranker(judged, experiment.seed, clicks=clicks, personal=personal)
    return reranker, hybrid, served, weighed | lift | cut


def configured(experiment: Experiment) -> Hybrid:
    """What the config says; none where it is to be learnt."""
    kind = experiment.index.hybrid
    return Hybrid() if kind == "learnt" else Hybrid(kind, experiment.index.hybrid_weight if kind != "none" else 0.0)


def _judged(
    experiment: Experiment,
    model: FusedModel,
    splits: Splits,
    shop: Shop,
    words: list[str | None],
    behaviour: Behaviour,
    hybrid: Hybrid,
    device: torch.device,
) -> Lists:
    """Validation queries over the validation catalogue, as it is and with the text of a seeded half hidden."""
    validation = splits.validation
    rows = validation.product_rows
    part, typos = shop.products.take(pa.array(rows)), experiment.index.typos
    counted = behaviour.take(rows)
    asked, asked_mask = encode_table(model, validation.queries, validation.query_rows, splits.columns, "query", device)
    with torch.inference_mode():
        fused, heads = (t.cpu().numpy() for t in model.search_vectors(asked.to(device), asked_mask.to(device)))
    grades = validation.judgments.matrix(validation.query_rows, rows)
    hidden = hidden_half(part["product_id"].to_pylist(), experiment.evaluate.hidden_text, experiment.seed + 1)
    seen: list[RerankInputs] = []
    graded, judged, owner = [], [], []
    for hide in (np.zeros(len(rows), bool), hidden):
        shown = torch.from_numpy(without_words(shop.mask.numpy()[rows], hide, model.modalities))
        mine = shop.vectors[torch.from_numpy(rows)]
        texts = ["" if h else shop.texts[r] for r, h in zip(rows, hide, strict=True)]
        with tempfile.TemporaryDirectory() as scratch:
            catalogue = catalogue_of(model, part, mine, shown, texts, Path(scratch), typos, device)
            requests = [
                SearchRequest(words[q], fused[i], heads[i], candidates=experiment.index.candidates)
                for i, q in enumerate(validation.query_rows)
            ]
            for i, found in enumerate(Retriever(catalogue, hybrid).search(requests)):
                seen.append(rerank_inputs(found, heads[i], catalogue, counted, []))
                graded.append(grades[i, found.rows])
                judged.append(grades[i][grades[i] > 0])
                owner.append(i)
    return pad_lists([s.features for s in seen], graded, judged, owner, as_batch(seen)[1])


def _clicked(
    experiment: Experiment,
    preprocess: Path,
    model: FusedModel,
    shop: Shop,
    log: Log,
    behaviour: Behaviour,
    hybrid: Hybrid,
    device: torch.device,
) -> Lists | None:
    """The pages that sessions showed; clicks count by how rarely their place is looked at. What was not shown could not
    be clicked, and says nothing."""
    sessions = log.fitting(held_out_queries(preprocess))
    if not sessions:
        return None
    typos = experiment.index.typos
    propensity = position_propensities(_before(log.events, log.cut))
    pasts = Pasts(log.events, log.ids)
    seen: list[RerankInputs] = []
    grades, gains, judged, owners = [], [], [], []
    with tempfile.TemporaryDirectory() as scratch:
        catalogue = catalogue_of(
            model, shop.products, shop.vectors, shop.mask, shop.texts, Path(scratch), typos, device
        )
        for session, rows, inputs in session_inputs(
            preprocess,
            model,
            Retriever(catalogue, hybrid),
            sessions,
            pasts,
            behaviour,
            experiment.index.candidates,
            device,
        ):
            kept = np.flatnonzero(np.isin(rows, list(session.shown)))
            seen.append(take(inputs, kept))
            clicked = np.isin(rows[kept], list(session.clicked)).astype(np.float32)
            places = np.array([session.shown.get(row, 0) for row in rows[kept].tolist()])
            chance = propensity[np.minimum(places, len(propensity) - 1)]
            gains.append(click_gains(torch.from_numpy(clicked), torch.from_numpy(chance)).numpy())
            grades.append(clicked)
            judged.append(clicked[clicked > 0])
            owners.append(session.user_id or session.request_id)
    if not seen:
        return None
    owner = np.unique(owners, return_inverse=True)[1].tolist()
    return pad_lists([s.features for s in seen], grades, judged, owner, as_batch(seen)[1], gains)


def catalogue_of(
    model: FusedModel,
    products: pa.Table,
    vectors: torch.Tensor,
    mask: torch.Tensor,
    texts: list[str],
    scratch: Path,
    typos: bool,
    device: torch.device,
) -> Catalogue:
    """The products as an index of their own, its words below `scratch`."""
    matrix = fused_table(model, (vectors, mask), device).cpu().numpy()
    lexical = LexicalIndex.build(texts, scratch, typos)
    index = VectorIndex.build(matrix, "flat")
    return Catalogue(products, matrix, vectors.numpy().astype(np.float16), mask.numpy(), index, lexical)


def _before(events: pa.Table, cut: int | None) -> pa.Table:
    times = events["timestamp"].cast(pa.int64()).to_numpy()
    return events if cut is None else events.filter(pa.array(times < cut))
