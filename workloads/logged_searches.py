"""Searches that a policy answered, as the reranker of a generation reads them now: what `policy.gradient` learns from.

Tables in, arrays out. A search by a picture or a sound keeps no words that could be asked again, and is left out.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from fuserank.errors import PolicyError
from fuserank.feedback.search_sessions import Pasts
from fuserank.retrieval.rerank_inputs import RerankInputs, as_batch
from fuserank.training.policy_gradient import SlateLog
from workloads.searching import Searching


@dataclass(frozen=True)
class Logged:
    """Oldest first."""

    slates: SlateLog
    left_out: dict[str, int]  # searches by reason


@dataclass(frozen=True)
class _Answer:
    query: str
    user_id: str | None
    moment: int  # ms
    candidates: list[int]  # product rows
    shown: list[int]  # places among them
    propensities: list[float]
    rewards: list[float]


def logged_searches(
    impressions: pa.Table, joined: pa.Table, events: pa.Table, reward: str, searching: Searching, most: int
) -> Logged:
    """
    Args:
        impressions: schema IMPRESSION; joined: schema JOINED; reward: its column, `clicked` or `purchased`.
        events: schema EVENT, of which users' pasts are made, as a service would have known them at each search.
        most: searches that are read, the latest.

    Raises:
        PolicyError: no search can be used; the message counts why.
    """
    reasons: Counter[str] = Counter()
    answers = list(_answers(impressions, joined, reward, searching.catalogue.rows, reasons))
    usual = Counter(len(answer.shown) for answer in answers).most_common(1)
    kept = [answer for answer in answers if usual and len(answer.shown) == usual[0][0]]
    reasons["another number of positions"] += len(answers) - len(kept)
    reasons["older than policy.gradient.answers"] += max(0, len(kept) - most)
    kept, left_out = kept[-most:], {reason: count for reason, count in reasons.items() if count}
    if not kept:
        raise PolicyError(
            f"no search says what a policy chose from and what chance it gave: {left_out or 'nothing was served yet'}.",
            'Serve with "search" among policy.online.scenarios, then run `fuserank feedback`.',
        )
    seen = list(_seen(kept, Pasts(events, searching.catalogue.ids), searching))
    features, context, mask = as_batch(seen)
    columns = ([getattr(answer, name) for answer in kept] for name in ("shown", "propensities", "rewards"))
    rows, propensities, rewards = (np.array(column) for column in columns)
    slates = SlateLog(
        torch.from_numpy(features),
        torch.from_numpy(mask),
        torch.from_numpy(rows),
        torch.from_numpy(propensities.astype(np.float32)),
        torch.from_numpy(rewards.astype(np.float32)),
        context if searching.reranker.attends else None,
    )
    return Logged(slates, left_out)


def _answers(
    impressions: pa.Table, joined: pa.Table, reward: str, row_of: dict[str, int], reasons: Counter[str]
) -> Iterator[_Answer]:
    columns = (joined.column(name).to_pylist() for name in ("request_id", "product_id", reward))
    rewarded = {(request, product): float(value) for request, product, value in zip(*columns, strict=True)}
    times = impressions["timestamp"].cast(pa.int64()).to_pylist()
    timed = sorted(zip(times, impressions.to_pylist(), strict=True), key=lambda one: (one[0], one[1]["request_id"]))
    for moment, row in timed:
        if row["kind"] != "search":
            continue
        reason = _unusable(row, row_of)
        if reason is not None:
            reasons[reason] += 1
            continue
        place = {product: i for i, product in enumerate(row["candidate_ids"])}
        yield _Answer(
            row["query"],
            row["user_id"],
            moment,
            [row_of[product] for product in row["candidate_ids"]],
            [place[product] for product in row["product_ids"]],
            row["propensities"],
            [rewarded.get((row["request_id"], product), 0.0) for product in row["product_ids"]],
        )


def _unusable(row: dict[str, Any], row_of: dict[str, int]) -> str | None:
    """Why a search cannot be used; None if it can."""
    candidates, shown, chances = (row[name] or [] for name in ("candidate_ids", "product_ids", "propensities"))
    if not row["query"]:
        return "no words"
    if not candidates or not set(shown) <= set(candidates) or len({*candidates}) < len(candidates):
        return "no candidates"
    if not shown or len(chances) != len(shown) or not all(0 < chance <= 1 for chance in chances):
        return "no propensities"
    return None if all(product in row_of for product in candidates) else "a product that this generation lacks"


def _seen(answers: list[_Answer], pasts: Pasts, searching: Searching) -> Iterator[RerankInputs]:
    requests = {query: searching.request(query) for query in dict.fromkeys(answer.query for answer in answers)}
    for answer in answers:
        recent = pasts.before(answer.user_id, answer.moment)
        yield searching.seen(requests[answer.query], np.array(answer.candidates, np.int64), recent)
