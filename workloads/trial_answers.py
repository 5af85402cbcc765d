"""How good the answers of one trial's model are, searched, merged with words and reranked by the trial's `index` keys.

The same retrieval, hybrid and reranking functions answer here as in serving. What `index` would fit on validation
queries – the weight of words where it is learnt, the reranker – is fitted on two thirds of them and asked the third
that it has not seen, in turn: a trial gains nothing by learning the queries that judge it by heart. The reranker
reads features alone: whether attention and clicks help, `index` finds out for the winner. Writes nothing.
"""

import numpy as np

from fuserank.config import Experiment
from fuserank.evaluation.metrics import ranking_metrics
from fuserank.feedback.behaviour import Behaviour
from fuserank.models.fused import FusedModel
from fuserank.retrieval.catalogue import Catalogue
from fuserank.retrieval.hybrid import Hybrid
from fuserank.retrieval.pipeline import Candidates, Retriever, SearchRequest
from fuserank.retrieval.rerank_inputs import RerankInputs, placed, rerank, rerank_inputs
from fuserank.training.hybrid import fit_hybrid
from fuserank.training.rerank import Lists, cross_folds, fit_reranker, pad_lists
from workloads.reranking import configured
from workloads.trial_shop import TrialShop, judged_rows

FOLDS = 3


def served_ndcg(shop: TrialShop, chosen: Experiment, model: FusedModel) -> float:
    """Mean validation nDCG@10 of the served order under the `index` keys of `chosen`."""
    splits = shop.splits(model.modalities)
    catalogue = shop.catalogue(model, splits, chosen.index.vectors)
    requests = shop.requests(model, splits, chosen.index.candidates)
    answers = Answers(catalogue, requests, judged_rows(splits), shop.behaviour)
    order = answers.served(configured(chosen), chosen.index.hybrid == "learnt", chosen.index.rerank_depth, chosen.seed)
    return float(np.nanmean(ranking_metrics(order, answers.grades)["ndcg@10"]))


class Answers:
    """Judged requests over one catalogue."""

    def __init__(self, catalogue: Catalogue, requests: list[SearchRequest], grades: np.ndarray, behaviour: Behaviour):
        """grades: float32 [Q, N]."""
        self.catalogue, self.requests, self.grades, self.behaviour = catalogue, requests, grades, behaviour
        self._seen: dict[Hybrid, tuple[list[Candidates], Lists]] = {}

    def served(self, hybrid: Hybrid, learnt: bool, depth: int, seed: int) -> np.ndarray:
        """Rows in the order users would get them, int64 [Q, R], −1 where nothing more was found.

        Args:
            hybrid: how words count, unless that is `learnt`.
            depth: how many candidates the reranker looks at.
        """
        count = len(self.requests)
        width = max((min(2 * request.candidates, self.catalogue.size) for request in self.requests), default=0)
        order = np.full((count, width), -1, np.int64)
        sides = cross_folds(np.arange(count), FOLDS, seed)
        for held in np.unique(sides):
            others = np.flatnonzero(sides != held)
            if learnt:
                weight, _ = fit_hybrid(self._searched(Hybrid())[1].part(others), seed, FOLDS)
                hybrid = Hybrid("linear", weight) if weight > 0 else Hybrid()
            answers, lists = self._searched(hybrid)
            reranker, _ = fit_reranker(lists.part(others), seed, FOLDS)
            for row in np.flatnonzero(sides == held).tolist():
                found = answers[row]
                scores = placed(found.score, rerank(reranker, self._inputs(row, found.first(depth))))
                order[row, : len(found)] = found.rows[np.argsort(-scores, kind="stable")]
        return order

    def _searched(self, hybrid: Hybrid) -> tuple[list[Candidates], Lists]:
        """Candidates of every request, and the lists that a reranker of them is fitted on."""
        if hybrid not in self._seen:
            found = Retriever(self.catalogue, hybrid).search(self.requests)
            features = [self._inputs(row, one).features for row, one in enumerate(found)]
            grades = [self.grades[row, one.rows] for row, one in enumerate(found)]
            judged = [row[row > 0] for row in self.grades]
            self._seen[hybrid] = found, pad_lists(features, grades, judged, list(range(len(found))))
        return self._seen[hybrid]

    def _inputs(self, row: int, found: Candidates) -> RerankInputs:
        heads = self.requests[row].q_heads
        assert heads is not None
        return rerank_inputs(found, heads, self.catalogue, self.behaviour, [])
