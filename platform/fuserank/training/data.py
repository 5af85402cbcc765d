"""What supervised training draws its batches from: products, queries and the judgments that join them.

Q queries · P products of a batch, all workers' together. Every draw follows from (seed, epoch, step), so a resumed run
sees the same batches from any step on.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from fuserank.training.group import ALONE, Group
from fuserank.training.noise import keys


class Inputs(Protocol):
    """Rows of model inputs: features (features/table.py) or cached encoder outputs (training/cached.py)."""

    @property
    def ids(self) -> list[str]: ...

    @property
    def mask(self) -> np.ndarray: ...  # bool [N, M] in MODALITIES order

    def batch(self, rows: np.ndarray, modality: str) -> Mapping[str, Tensor]: ...


@dataclass
class Side:
    """One side of a batch: which modalities each row has, and the inputs of the rows that this worker encodes."""

    mask: Tensor  # bool [B, M], M = the model's modalities
    inputs: dict[str, tuple[Tensor, dict[str, Tensor]]]  # modality → (places in the batch, own collated inputs)
    keys: Tensor | None = None  # int32 [B], of the noise that meets each row in training (training/noise.py)
    group: Group = ALONE

    def own_keys(self, modality: str) -> Tensor | None:
        """Of this worker's rows of that modality."""
        places = self.inputs[modality][0]
        return None if self.keys is None else self.keys[places[torch.from_numpy(self.group.share(len(places)))]]

    def to(self, device: torch.device) -> "Side":
        moved = {
            m: (places.to(device), {k: v.to(device, non_blocking=True) for k, v in inputs.items()})
            for m, (places, inputs) in self.inputs.items()
        }
        return Side(self.mask.to(device), moved, None if self.keys is None else self.keys.to(device), self.group)


def gather(
    table: Inputs,
    rows: np.ndarray,
    modalities: tuple[str, ...],
    columns: list[int],
    group: Group = ALONE,
    noise: Tensor | None = None,
) -> Side:
    """Collate this worker's share of rows of a table; `columns` are the modalities' places in the table's mask."""
    mask = table.mask[rows][:, columns]
    inputs = {}
    for place, modality in enumerate(modalities):
        present = np.flatnonzero(mask[:, place])
        if len(present):
            own = group.share(len(present))
            if modality == "text":  # padded alike on every worker, or dropout in attention would not be
                held = {name: values[own] for name, values in table.batch(rows[present], modality).items()}
            else:
                held = dict(table.batch(rows[present[own]], modality))
            inputs[modality] = (torch.from_numpy(present), held)
    return Side(torch.from_numpy(mask.copy()), inputs, noise, group)


class Judgments:
    """Graded pairs, by query and by product (compressed sparse rows)."""

    def __init__(self, queries: np.ndarray, products: np.ndarray, grades: np.ndarray, n_queries: int, n_products: int):
        """Arrays [J] of query rows, product rows and grades."""
        self.by_query = _compress(queries, products, grades, n_queries)
        self.by_product = _compress(products, queries, grades, n_products)
        self.place = np.full(n_products, -1, np.int64)  # scratch: product row → place in the batch

    def matrix(self, queries: np.ndarray, products: np.ndarray) -> np.ndarray:
        """float32 [Q, P] grades, 0 where not judged."""
        start, other, grade = self.by_query
        self.place[products] = np.arange(len(products))
        lengths = start[queries + 1] - start[queries]
        flat = np.repeat(start[queries] - np.concatenate([[0], np.cumsum(lengths)[:-1]]), lengths) + np.arange(
            lengths.sum()
        )
        row, column = np.repeat(np.arange(len(queries)), lengths), self.place[other[flat]]
        out = np.zeros((len(queries), len(products)), np.float32)
        inside = column >= 0
        out[row[inside], column[inside]] = grade[flat][inside]
        self.place[products] = -1
        return out

    def draw(self, side: str, row: int, random: np.random.Generator) -> int | None:
        """A counterpart of that row, drawn in proportion to its gain; None if it has none."""
        start, other, grade = self.by_query if side == "query" else self.by_product
        part = slice(start[row], start[row + 1])
        if part.start == part.stop:
            return None
        gain = np.cumsum(2.0 ** grade[part] - 1, dtype=np.float64)  # float32 could round a draw up to the total
        return int(other[part][np.searchsorted(gain, random.random() * gain[-1], side="right")])


def _compress(rows: np.ndarray, others: np.ndarray, grades: np.ndarray, count: int) -> tuple[np.ndarray, ...]:
    order = np.lexsort((others, rows))
    start = np.zeros(count + 1, np.int64)
    np.cumsum(np.bincount(rows, minlength=count), out=start[1:])
    return start, others[order].astype(np.int64), grades[order].astype(np.float32)


@dataclass
class Batch:
    """One training step."""

    products: Side
    queries: Side
    grades: Tensor  # [Q, P], with a bank [Q, P + K]
    rows: Tensor  # [P] product rows
    query_rows: np.ndarray  # [Q]
    bank: Side | None = None  # K further products, by their encoder outputs (training/bank.py)
    history: dict[str, Tensor] = field(default_factory=dict)  # rows, types, gaps, mask [B, T+1]; keys [B]

    def to(self, device: torch.device) -> "Batch":
        """Itself, its tensors on the device."""
        self.products, self.queries = self.products.to(device), self.queries.to(device)
        self.bank = None if self.bank is None else self.bank.to(device)
        self.grades, self.rows = self.grades.to(device), self.rows.to(device)
        self.history = {name: values.to(device) for name, values in self.history.items()}
        return self


class RankingData:
    """Products, queries, judgments and histories of one split."""

    def __init__(
        self,
        products: Inputs,
        queries: Inputs,
        judgments: Judgments,
        product_rows: np.ndarray,
        query_rows: np.ndarray,
        modalities: tuple[str, ...],
        columns: list[int],
        histories: dict[str, np.ndarray] | None = None,
    ):
        """
        Args:
            product_rows, query_rows: the rows this split may use.
            columns: place of each of `modalities` in the tables' masks.
            histories: arrays [U, T] of product rows, types, gaps and mask (feedback/sequences.py), or None.
        """
        self.products, self.queries, self.judgments = products, queries, judgments
        self.product_rows = product_rows[products.mask[product_rows][:, columns].any(1)]
        self.query_rows = query_rows[queries.mask[query_rows][:, columns].any(1)]
        self.modalities, self.columns, self.histories = modalities, columns, histories
        self._usable = {"query": np.zeros(len(queries.ids), bool), "product": np.zeros(len(products.ids), bool)}
        self._usable["query"][self.query_rows] = self._usable["product"][self.product_rows] = True

    def steps(self, batch_size: int) -> int:
        """Steps an epoch: every product once, never more than `batch_size` at a time."""
        return max(1, -(-len(self.product_rows) // batch_size))

    def epoch(
        self,
        epoch: int,
        seed: int,
        batch_size: int,
        positives: float,
        query_count: int,
        sequences: int,
        group: Group = ALONE,
        start: int = 0,
    ) -> Iterator[Batch]:
        """The batches of one epoch: each product once, a query for each, and further positives of these queries.

        Args:
            positives: share of `batch_size` that is filled up with positives drawn from the queries.
            query_count: queries a step: one for each product, filled up with others at random.
            sequences: user histories a step.
            group: the workers that share each batch.
            start: steps to leave out, because an interrupted run has made them.
        """
        whole = np.random.default_rng((seed, epoch))
        parts = np.array_split(whole.permutation(self.product_rows), self.steps(batch_size))
        users = np.arange(0) if self.histories is None else whole.permutation(len(self.histories["rows"]))
        for step, rows in enumerate(parts[start:], start):
            random = np.random.default_rng((seed, epoch, step))
            draws = [self.judgments.draw("product", row, random) for row in rows]
            queries = np.unique([q for q in draws if q is not None and self._usable["query"][q]]).astype(np.int64)
            more = random.permutation(self.query_rows)[: max(0, query_count - len(queries))]
            queries = np.union1d(queries, more)
            extra = [self.judgments.draw("query", q, random) for q in random.permutation(queries)]
            room = int(positives * batch_size)
            answers = [p for p in extra if p is not None and self._usable["product"][p]]
            rows = np.unique(np.concatenate([rows, np.array(answers[:room], np.int64)]))
            chosen = (
                np.take(users, np.arange(step * sequences, (step + 1) * sequences), mode="wrap")
                if len(users)
                else users
            )
            yield self._batch(rows, queries, chosen, group, (seed, epoch, step))

    def _batch(
        self, rows: np.ndarray, queries: np.ndarray, users: np.ndarray, group: Group, at: tuple[int, ...]
    ) -> Batch:
        grades = self.judgments.matrix(queries, rows)
        history = {}
        if self.histories is not None and len(users):
            history = {name: torch.from_numpy(values[users]) for name, values in self.histories.items()}
            history["keys"] = keys(torch.from_numpy(users), *at, 2)
        products, asked = torch.from_numpy(rows), torch.from_numpy(queries)
        return Batch(
            gather(self.products, rows, self.modalities, self.columns, group, keys(products, *at, 0)),
            gather(self.queries, queries, self.modalities, self.columns, group, keys(asked, *at, 1)),
            torch.from_numpy(grades),
            products,
            queries,
            history=history,
        )


def judgments_of(table: pa.Table, query_ids: list[str], product_ids: list[str]) -> Judgments:
    """Judgments whose query and product are both known, as rows."""
    query_row = {q: i for i, q in enumerate(query_ids)}
    product_row = {p: i for i, p in enumerate(product_ids)}
    queries = np.array([query_row.get(q, -1) for q in table["query_id"].to_pylist()], np.int64)
    products = np.array([product_row.get(p, -1) for p in table["product_id"].to_pylist()], np.int64)
    grades = table["grade"].to_numpy().astype(np.float32)
    known = (queries >= 0) & (products >= 0) & (grades > 0)
    return Judgments(queries[known], products[known], grades[known], len(query_ids), len(product_ids))
