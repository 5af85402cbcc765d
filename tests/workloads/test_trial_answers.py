"""A trial's score where keys of `index` are searched: every answer redone by hand, on a tiny real shop."""

import math

import numpy as np
import pytest
import torch

from fuserank import config
from fuserank.models.candidates import candidate_features
from fuserank.retrieval.hybrid import Hybrid
from fuserank.training.cached import train_on_cache
from fuserank.training.hybrid import fit_hybrid
from fuserank.training.rerank import Lists, cross_folds, fit_reranker, pad_lists
from tests.workloads import tiny
from tune.search import Watch
from workloads.query_time import milliseconds, work
from workloads.trial_answers import FOLDS, Answers
from workloads.trial_shop import WORDS, TrialShop, judged_rows
from workloads.trials import CACHE, CachedTraining, fill_cache

SEARCHED = {"tune.space.rerank_depths": [3, 8], "tune.space.hybrids": ["none", "linear", "rrf"]}
CANDIDATES = 6


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    built = tiny.build_run(tmp_path_factory.mktemp("answers"), held_out="validation")
    sets = {"tune.epochs": 2, "train.batch_size": 16, "index.candidates": CANDIDATES}
    return config.update(built, sets | SEARCHED)


@pytest.fixture(scope="module")
def folder(experiment):
    """tune/, with the cache."""
    path = experiment.run / "tune"
    path.mkdir(exist_ok=True)
    fill_cache(experiment, path)
    return path


@pytest.fixture(scope="module")
def answers(experiment, folder) -> Answers:
    """Of what a trial trained."""
    CachedTraining(folder, experiment)({}, Watch(0, {}))
    shop = TrialShop(experiment, folder)
    model = shop.model(experiment, 0)
    splits = shop.splits(model.modalities)
    requests = shop.requests(model, splits, CANDIDATES)
    return Answers(shop.catalogue(model, splits, "flat"), requests, judged_rows(splits), shop.behaviour)


@pytest.fixture(scope="module")
def served(answers) -> list[list[int]]:
    """Answers with a fixed weight of words, reranked to a depth of 3."""
    return rows_of(answers.served(Hybrid("linear", 0.05), False, 3, 5))


def by_hand(answers: Answers, query: int, hybrid: Hybrid) -> tuple[list[int], np.ndarray, np.ndarray]:
    """Candidates of a query in their order, with the score of each and its BM25: loops over all products."""
    catalogue, request = answers.catalogue, answers.requests[query]
    fused = np.array([row @ request.query_vector for row in catalogue.vectors], np.float32)
    words = np.zeros(len(fused), np.float32)
    if request.text:
        words = catalogue.lexical_index.score(request.text, np.arange(len(fused)))
    near = sorted(range(len(fused)), key=lambda row: (-fused[row], row))[:CANDIDATES]
    worded = sorted((row for row in range(len(fused)) if words[row] > 0), key=lambda row: (-words[row], row))
    found = sorted({*near, *worded[:CANDIDATES]})
    best = max(float(words[row]) for row in found) or 1e-6
    score = {}
    for row in found:
        score[row] = float(fused[row])
        if request.text and hybrid.kind == "linear":
            score[row] += hybrid.weight * float(words[row]) / best
        if request.text and hybrid.kind == "rrf":
            place = sorted(found, key=lambda other: (-fused[other], other)).index(row)
            by_words = sorted(found, key=lambda other: (-words[other], other)).index(row)
            score[row] = 1 / (61 + place) + (hybrid.weight / (61 + by_words) if words[row] > 0 else 0)
    order = sorted(found, key=lambda row: (-score[row], row))
    return order, np.array([score[row] for row in order], np.float32), words[order]


def features(answers: Answers, query: int, order: list[int], score: np.ndarray, words: np.ndarray) -> np.ndarray:
    rows, heads = np.array(order), answers.requests[query].q_heads
    assert heads is not None
    catalogue = answers.catalogue
    alone = np.array(
        [[heads[m] @ catalogue.modality_vectors[row, m].astype(np.float32) for m in range(len(heads))] for row in order]
    )
    counted = answers.behaviour.columns(rows, [])
    return candidate_features(score, words, alone, catalogue.mask[rows], counted)


def lists(answers: Answers, hybrid: Hybrid) -> Lists:
    found = [by_hand(answers, query, hybrid) for query in range(len(answers.requests))]
    seen = [features(answers, query, *one) for query, one in enumerate(found)]
    grades = [answers.grades[query, one[0]] for query, one in enumerate(found)]
    return pad_lists(seen, grades, [row[row > 0] for row in answers.grades], list(range(len(found))))


def rows_of(order: np.ndarray) -> list[list[int]]:
    return [[row for row in rows if row >= 0] for rows in order.tolist()]


@pytest.mark.parametrize("hybrid", [Hybrid(), Hybrid("linear", 0.4), Hybrid("rrf", 0.7)], ids=lambda h: h.kind)
def test_words_and_vectors_without_a_reranker(answers, hybrid):
    """Of seven queries five at most are left to fit on: too few, so the retriever's order stays."""
    few = Answers(answers.catalogue, answers.requests[:7], answers.grades[:7], answers.behaviour)
    want = [by_hand(answers, query, hybrid)[0] for query in range(7)]
    assert rows_of(few.served(hybrid, False, 8, 0)) == want
    if hybrid.kind != "none":
        assert want != [by_hand(answers, query, Hybrid())[0] for query in range(7)]  # words do change the order


@pytest.mark.parametrize(("depth", "learnt"), [(3, False), (100, True)])
def test_reranked_to_a_depth_by_what_was_fitted_on_the_others(answers, served, depth, learnt):
    count, hybrid, want, plain, used = len(answers.requests), Hybrid("linear", 0.05), {}, {}, set()
    sides = cross_folds(np.arange(count), FOLDS, 5)
    for held in range(FOLDS):
        others = np.flatnonzero(sides != held)
        if learnt:
            weight = fit_hybrid(lists(answers, Hybrid()).part(others), 5, FOLDS)[0]
            hybrid = Hybrid("linear", weight) if weight else Hybrid()
        used.add(hybrid)
        reranker, _ = fit_reranker(lists(answers, hybrid).part(others), 5, FOLDS)
        for query in np.flatnonzero(sides == held).tolist():
            order, score, words = by_hand(answers, query, hybrid)
            seen = torch.from_numpy(features(answers, query, order, score, words)[None, :depth])
            with torch.inference_mode():
                found = reranker(seen)[0].tolist()
            first = sorted(range(len(found)), key=lambda place: -found[place])
            plain[query], want[query] = order, [order[place] for place in first] + order[depth:]
    got = rows_of(answers.served(Hybrid(), True, depth, 5)) if learnt else served
    assert got == [want[query] for query in range(count)]
    if learnt:  # words help, and each third has a weight of its own; there is nothing left to rerank
        assert len({hybrid for hybrid in used if hybrid.weight > 0}) > 1
    else:
        assert any(want[query] != plain[query] for query in range(count))  # the reranker does change the order


def test_no_answer_is_fitted_on_its_own_judgments(answers, served):
    sides = cross_folds(np.arange(len(served)), FOLDS, 5)
    own = np.flatnonzero(sides == sides[0])
    grades, random = answers.grades.copy(), np.random.default_rng(0)
    grades[own] = random.permuted(grades[own], axis=1)
    other = Answers(answers.catalogue, answers.requests, grades, answers.behaviour)
    got = rows_of(other.served(Hybrid("linear", 0.05), False, 3, 5))
    assert [got[query] for query in own] == [served[query] for query in own]
    assert got != served  # the others' answers are fitted on them


def test_a_trial_scores_its_served_answers(experiment, folder, answers):
    params = {"index.hybrid": "rrf", "index.hybrid_weight": 0.7, "index.rerank_depth": 3}
    watch = Watch(1, {})
    got = CachedTraining(folder, experiment)(params, watch)
    order = rows_of(answers.served(Hybrid("rrf", 0.7), False, 3, experiment.seed))  # trial 1 trained as trial 0 did

    def dcg(grades) -> float:
        return sum((2**grade - 1) / math.log2(rank + 2) for rank, grade in enumerate(grades[:10]))

    values = [
        dcg([grades[row] for row in rows]) / dcg(sorted(grades, reverse=True))
        for rows, grades in zip(order, answers.grades.tolist(), strict=True)
        if any(grades)
    ]
    assert got == pytest.approx(sum(values) / len(values), abs=1e-6)
    assert got != pytest.approx(watch.history[-1])  # which is of the fused score


def test_without_keys_of_the_index_a_trial_is_as_cheap_as_it_was(experiment, tmp_path):
    plain = config.update(experiment, {"tune.space.rerank_depths": [], "tune.space.hybrids": []})
    fill_cache(plain, tmp_path)
    watch, scores = Watch(0, {}), []
    got = CachedTraining(tmp_path, plain)({}, watch)
    again = train_on_cache(tmp_path / CACHE, plain.model_dump(mode="json"), lambda epoch, score: scores.append(score))
    assert got == again == max(scores)
    assert not (tmp_path / WORDS).exists()


def test_the_cost_of_a_query_counts_what_the_index_keys_ask_for(experiment, folder):
    def counted(catalogue: int = 100_000, **keys) -> float:
        return work(config.update(experiment, {f"index.{k}": v for k, v in keys.items()}), folder / CACHE, catalogue)

    depths = [counted(candidates=200, rerank_depth=depth) for depth in (1, 50, 400)]
    assert depths == sorted(set(depths))
    assert counted(candidates=200, rerank_depth=900) == depths[-1]  # there are no more candidates
    assert counted(candidates=100, rerank_depth=1) < depths[0]  # each candidate is scored
    assert counted(vectors="ivf") < counted(vectors="flat")
    assert counted(10, candidates=200, rerank_depth=400) < counted(100, candidates=200, rerank_depth=400)


def test_the_index_keys_of_a_trial_are_timed(experiment, folder, answers, monkeypatch):
    shop, asked = TrialShop(experiment, folder), []
    real = TrialShop.catalogue
    monkeypatch.setattr(
        TrialShop, "catalogue", lambda self, model, splits, kind: asked.append(kind) or real(self, model, splits, kind)
    )
    chosen = config.update(experiment, {"index.vectors": "hnsw", "index.hybrid": "rrf"})
    assert 0.05 < milliseconds(shop, chosen, 0) < 500
    assert asked == ["hnsw"]
