"""Payloads of the chain: small, ids and vectors only. `Ask` → `RetrieverQuery` → `Found` → `Choice` → `Ranked`.

Legend: K candidates, M modalities, D width of a modality vector, F reranker features.
"""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from fuserank.retrieval.guests import Guest
from fuserank.retrieval.rerank_inputs import RerankInputs

Kind = Literal["search", "recommend", "similar", "rank", "embed"]
QUERIES = ("search", "rank", "embed")  # kinds that ask by words, picture or sound
PATIENCE_SECONDS = 2.0  # that history and reranker are waited for by those who name no deadline
Source = Literal["search", "rank", "embed", "similar", "recommender", "content", "popularity"]


@dataclass(frozen=True, slots=True)
class Ask:
    """What the gateway puts into the chain for one request."""

    kind: Kind
    depth: int  # hits wanted: offset + limit
    media: dict[str, Any] = field(default_factory=dict)  # modality → text or encoded bytes
    weights: dict[str, float] = field(default_factory=dict)  # modality → the caller's weight
    filter: dict[str, Any] | None = None
    exclude: tuple[str, ...] = ()  # product ids
    user_id: str | None = None
    session_id: str | None = None
    product_ids: tuple[str, ...] = ()  # recommend: looked at just now; similar: the one product
    exclude_seen: bool = False
    explain: bool = False
    facets: tuple[str, ...] = ()  # fields
    sort: tuple[tuple[str, bool], ...] = ()  # fields and whether they descend; none: by relevance
    group_by: str | None = None  # a field
    pool: int = 0  # candidates that a policy draws the slate from; 0: the model's own order is the answer
    first: int = 0  # the place in that order where they begin
    rerank: bool = True  # whether the candidates of a search go to the reranker
    patience: float = math.inf  # seconds that history and reranker are waited for, where the deadline allows more
    given: tuple[str | Guest, ...] = ()  # rank: products to score, ids of the catalogue's and whole ones beside it

    def by(self, deadline_ms: int | None) -> "Ask":
        """The same of somebody who names a deadline, or none."""
        return self if deadline_ms is not None else dataclasses.replace(self, patience=PATIENCE_SECONDS)


@dataclass(frozen=True, slots=True)
class Given:
    """One product that is not in the catalogue, as it was sent: whole, or its parts by themselves."""

    product: Any = None  # as for POST /v1/products
    parts: dict[str, Any] | None = None  # modality → text or encoded bytes; None: the product is whole


@dataclass(frozen=True, slots=True)
class HistoryEvent:
    """One past event of a user."""

    product_id: str
    type: str  # one of EVENT_TYPES
    time: float  # seconds since the epoch


@dataclass(frozen=True, slots=True)
class Display:
    """A product that a user was shown."""

    product_id: str
    place: int  # on its page, from 0
    turned: bool  # to it


@dataclass(frozen=True, slots=True)
class Past:
    """What is known of a user; both oldest first."""

    events: tuple[HistoryEvent, ...] = ()
    shown: tuple[Display, ...] = ()


@dataclass(frozen=True, slots=True)
class RetrieverQuery:
    """One request at the retriever."""

    ask: Ask  # without media: `text` below is all of it that retrieval reads
    text: str | None
    vectors: dict[str, np.ndarray]  # modality → float32 [D], of the query
    past: Past = Past()  # of the user


@dataclass(frozen=True, slots=True)
class Details:
    """What `explain` shows of each candidate."""

    fused: np.ndarray  # float32 [K]
    lexical: np.ndarray  # float32 [K] BM25
    modality_scores: np.ndarray  # float32 [K, M], NaN where missing
    contributions: np.ndarray  # float32 [K, M], sums to the fused score


@dataclass(frozen=True, slots=True)
class Overview:
    """The result set as a whole; for requests that ask to count, sort or group it."""

    total: int
    cut: bool  # there are more products under the filter
    facets: dict[str, dict[str, Any]]  # field → its counts, as they are shown


@dataclass(frozen=True, slots=True)
class Found:
    """One request's candidates, best first, or in the order asked for."""

    rows: np.ndarray  # int64 [K]; rank: places among what was given
    score: np.ndarray  # float32 [K], best first
    features: (
        RerankInputs | np.ndarray | None
    )  # of the first: float32 [≤ K, F] alone if it does not attend; None: no reranking
    source: Source
    modalities: tuple[str, ...]
    details: Details | None = None
    seq: int = 0  # the last change of the catalogue that the rows know of
    corrected: str | None = None  # the text as its words were searched, if that is not as it was typed
    overview: Overview | None = None
    ordered: bool = False  # the rows stand in the order asked for
    groups: np.ndarray | None = None  # int64 [K], equal for candidates of one group
    told: np.ndarray | None = None  # float32 [K, F]: what a policy is told of each (retrieval/policy_inputs.py)
    vector: np.ndarray | None = None  # embed: float32 [E], the query as products are searched by it


@dataclass(frozen=True, slots=True)
class Choice:
    """What a policy chooses from for one request."""

    scenario: Kind
    names: tuple[str, ...]  # of the F features
    features: np.ndarray  # float64 [K, F], in the model's own order
    size: int  # positions of the slate
    visitor: str | None = None  # who stays with one policy while two answer: the user, else the session
    explain: bool = False  # tell how likely each is clicked


@dataclass(frozen=True, slots=True)
class Chosen:
    """A slate and the chance that the policy had of showing it. S ≤ size."""

    rows: np.ndarray  # int64 [S], places among the candidates
    propensities: np.ndarray  # [S]
    slate_propensity: float
    errors: np.ndarray  # [S], standard errors of the propensities; 0: exact
    slate_error: float
    policy: str  # name@version
    explored: bool  # drawn at random
    chances: np.ndarray | None = None  # [S, 2], that it is clicked and bought there; with `explain`


@dataclass(frozen=True, slots=True)
class Slate:
    """What was chosen, from what."""

    choice: Choice
    chosen: Chosen
    pool: np.ndarray  # int64 [K], indices into the candidates that were found


@dataclass(frozen=True, slots=True)
class Ranked:
    """One request's final order."""

    found: Found
    order: np.ndarray  # int64 [≤ depth], indices into the candidates
    scores: np.ndarray  # float32 [≤ depth]
    stages: dict[str, float]  # milliseconds
    groups: list[np.ndarray] | None = None  # of each of `order`: indices of its group's candidates, itself first
    group_count: int | None = None  # groups there are
    slate: Slate | None = None  # where a policy chose
    left_out: tuple[str, ...] = ()  # what there was no time for
