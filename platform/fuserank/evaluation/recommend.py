"""Leave-last-out evaluation of recommendation: ranks over the whole catalogue and two baselines. Arrays in, arrays out.

U users · N products. A history is a list of product rows, oldest first; products already in it are not ranked again.
Protocol: Kang and McAuley, Self-Attentive Sequential Recommendation, 2018, but ranking the full catalogue, not samples
(Krichene and Rendle, On Sampled Metrics for Item Recommendation, 2020).
"""

from collections.abc import Sequence

import numpy as np

from fuserank.errors import EvaluationError
from fuserank.evaluation.metrics import rank_rows

History = Sequence[int]


def popularity(histories: Sequence[History], products: int) -> np.ndarray:
    """How many histories hold each product: float64 [N]."""
    counts = np.zeros(products)
    for history in histories:
        counts[np.unique(np.asarray(history, dtype=np.int64))] += 1
    return counts


class ItemNeighbours:
    """Co-occurrence of products in histories, cosine-normalised; a user's score sums over their latest products.

    Source: Sarwar et al., Item-Based Collaborative Filtering Recommendation Algorithms, 2001.
    """

    def __init__(self, histories: Sequence[History], products: int, window: int = 5):
        self.products, self.window = products, window
        pairs = []
        for history in histories:
            rows = np.unique(np.asarray(history, dtype=np.int64))
            left, right = np.repeat(rows, len(rows)), np.tile(rows, len(rows))
            pairs.append(left[left != right] * products + right[left != right])
        codes, together = np.unique(np.concatenate(pairs or [np.empty(0, np.int64)]), return_counts=True)
        self.left, self.right = codes // products, codes % products
        counts = np.maximum(popularity(histories, products), 1)
        self.weight = together / np.sqrt(counts[self.left] * counts[self.right])
        self.start = np.searchsorted(self.left, np.arange(products + 1))

    def scores(self, history: History) -> np.ndarray:
        """float64 [N]."""
        found = np.zeros(self.products)
        for row in list(dict.fromkeys(reversed(list(history))))[: self.window]:
            part = slice(self.start[row], self.start[row + 1])
            found[self.right[part]] += self.weight[part]
        return found


def target_rank(scores: np.ndarray, target: int, seen: History = ()) -> int:
    """1-based rank of the held-out product among all unseen ones; equal scores rank by row order. scores [N].

    Raises:
        EvaluationError: NaN scores, or the target is among the seen products.
    """
    if np.isnan(scores).any():
        raise EvaluationError("recommendation scores hold NaN.", "The recommender has diverged: train it again.")
    if target in seen:
        raise EvaluationError(f"product row {target} is held out and yet in the history.")
    scores = np.array(scores, dtype=np.float64)
    scores[np.asarray(seen, dtype=np.int64)] = -np.inf
    mine = scores[target]
    return 1 + int((scores > mine).sum()) + int((scores[:target] == mine).sum() if mine > -np.inf else 0)


def top_rows(scores: np.ndarray, k: int, seen: History = ()) -> np.ndarray:
    """The k best unseen products: int64 [k], −1 where there are fewer; equal scores rank by row order. scores [N]."""
    scores = np.array(scores, dtype=np.float64)
    scores[np.asarray(seen, dtype=np.int64)] = -np.inf
    best = rank_rows(scores[None])[0, :k]
    return np.concatenate([best, np.full(k - len(best), -1, np.int64)])


def rank_values(ranks: np.ndarray, k: int = 10) -> dict[str, np.ndarray]:
    """HR@k and NDCG@k of one relevant product at each 1-based rank: int [U] → name → float64 [U]."""
    ranks = np.asarray(ranks, dtype=np.float64)
    inside = ranks <= k
    return {f"hr@{k}": inside.astype(np.float64), f"ndcg@{k}": np.where(inside, 1 / np.log2(ranks + 1), 0.0)}


def hold_out(rows: History, kept_back: int = 2) -> int | None:
    """Where a user's history is cut: the place of the first event on their last product, None if there is no fair one.

    Training never saw a user's last `kept_back` positive events. So the last product is a fair target only if its first
    event is one of them, and there must be an event before it.
    """
    first = list(rows).index(rows[-1]) if len(rows) else 0
    return first if first >= max(1, len(rows) - kept_back) else None
