"""Judgments and batches against brute force."""

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from fuserank.features.table import FeatureTable
from fuserank.records.schema import JUDGMENT, MODALITIES
from fuserank.training.data import Batch, Judgments, RankingData, gather, judgments_of
from fuserank.training.group import Group
from fuserank.training.splits import open_splits

KNOWN = {(0, 1): 2.0, (0, 4): 1.0, (2, 1): 3.0, (2, 2): 1.0, (2, 5): 1.0, (3, 0): 0.5}


@pytest.fixture
def judgments() -> Judgments:
    order = np.random.default_rng(0).permutation(len(KNOWN))
    pairs, grades = np.array(list(KNOWN))[order], np.array(list(KNOWN.values()))[order]
    return Judgments(pairs[:, 0], pairs[:, 1], grades, 5, 7)


def test_matrix(judgments: Judgments) -> None:
    random = np.random.default_rng(1)
    for _ in range(50):
        queries = random.permutation(5)[: random.integers(0, 6)]
        products = random.permutation(7)[: random.integers(0, 8)]
        expected = [[KNOWN.get((q, p), 0.0) for p in products] for q in queries]
        found = judgments.matrix(queries, products)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, np.reshape(expected, (len(queries), len(products))))


def test_draws_follow_the_gain(judgments: Judgments) -> None:
    random = np.random.default_rng(2)
    drawn = Counter(judgments.draw("query", 2, random) for _ in range(9000))
    assert {p: n / 9000 for p, n in drawn.items()} == pytest.approx({1: 7 / 9, 2: 1 / 9, 5: 1 / 9}, abs=0.02)
    drawn = Counter(judgments.draw("product", 1, random) for _ in range(10000))
    assert {q: n / 10000 for q, n in drawn.items()} == pytest.approx({0: 3 / 10, 2: 7 / 10}, abs=0.02)
    assert judgments.draw("query", 1, random) is None
    assert judgments.draw("product", 6, random) is None


def test_the_highest_draw_stays_inside() -> None:
    class Highest:
        def random(self) -> float:
            return 1 - 2.0**-53

    for count in (1, 3, 7, 1000):
        judgments = Judgments(np.zeros(count, int), np.arange(count), np.full(count, 1.3), 1, count)
        assert judgments.draw("query", 0, Highest()) == count - 1  # type: ignore[arg-type]


def test_unknown_ids_and_zero_grades_are_left_out() -> None:
    rows = [("a", "x", 1.0), ("a", "y", 0.0), ("b", "x", 2.0), ("c", "x", 1.0), ("a", "z", 1.0)]
    table = pa.Table.from_pylist([dict(zip(JUDGMENT.names, row, strict=True)) for row in rows], JUDGMENT)
    found = judgments_of(table, ["b", "a"], ["x", "y"])
    np.testing.assert_array_equal(found.matrix(np.arange(2), np.arange(2)), [[2, 0], [1, 0]])
    assert len(found.by_query[1]) == 2


def test_gather(preprocess: Path) -> None:
    table = FeatureTable.open(preprocess / "features")
    rows, modalities = np.array([3, 19, 0, 4, 7]), ("text", "price")
    side = gather(table, rows, modalities, [0, 3])
    assert side.mask.tolist() == [[bool(table.mask[r, c]) for c in (0, 3)] for r in rows]
    for column, modality in enumerate(modalities):
        places, inputs = side.inputs[modality]
        assert places.tolist() == [i for i in range(5) if side.mask[i, column]]
        for key, value in table.batch(rows[places.numpy()], modality).items():
            assert torch.equal(inputs[key], value)
    assert not gather(table, np.array([19]), modalities, [0, 3]).inputs


@pytest.fixture(scope="module")
def data(preprocess: Path) -> RankingData:
    return open_splits(preprocess, ("text", "image", "price"), 4).train


def epoch(
    data: RankingData, number: int, seed: int = 0, size: int = 20, queries: int = 0, **options: int
) -> list[Batch]:
    return list(data.epoch(number, seed, size, 0.5, queries, 6, **options))


def rows_of(batches: list[Batch]) -> list[list[int]]:
    return [batch.rows.tolist() for batch in batches]


@pytest.mark.parametrize("size", [7, 18, 20, 53, 54, 999])
def test_every_product_once(data: RankingData, size: int) -> None:
    usable = set(range(54)) - {19}  # row 19 has no modality at all
    parts = rows_of(list(data.epoch(0, 0, size, 0.0, 0, 0)))
    assert sorted(row for part in parts for row in part) == sorted(usable)
    assert len(parts) == data.steps(size)
    assert max(map(len, parts)) <= size
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    more = rows_of(list(data.epoch(0, 0, size, 0.5, 0, 0)))  # further positives come on top
    assert all(set(part) <= set(wider) <= usable for part, wider in zip(parts[:1], more[:1], strict=True))
    assert {row for part in more for row in part} == usable
    assert all(len(part) == len(set(part)) <= size + size // 2 for part in more)


def test_seed_and_epoch_decide(data: RankingData) -> None:
    first = epoch(data, 3)
    for one, two in zip(first, epoch(data, 3), strict=True):
        assert torch.equal(one.rows, two.rows)
        assert torch.equal(one.grades, two.grades)
        assert all(torch.equal(one.history[k], two.history[k]) for k in one.history)
    assert rows_of(epoch(data, 4)) != rows_of(first)
    assert rows_of(epoch(data, 3, seed=1)) != rows_of(first)


def test_workers_share_the_encoding_of_one_batch(data: RankingData) -> None:
    whole = epoch(data, 0)
    shares = [epoch(data, 0, group=Group(rank, 3)) for rank in range(3)]
    for step, batch in enumerate(whole):
        mine = [share[step] for share in shares]
        for part in mine:  # all see the whole of it
            assert torch.equal(part.rows, batch.rows)
            assert torch.equal(part.grades, batch.grades)
            assert torch.equal(part.products.mask, batch.products.mask)
            assert torch.equal(part.products.keys, batch.products.keys)
            assert torch.equal(part.history["rows"], batch.history["rows"])
        for modality, (places, inputs) in batch.products.inputs.items():
            count = len(places)
            for name, values in inputs.items():
                parts = [part.products.inputs[modality][1][name] for part in mine]
                assert {len(part) for part in parts} == {-(-count // 3)}  # as many on each
                assert torch.equal(torch.stack(parts, 1).flatten(0, 1)[:count], values)


def test_an_epoch_goes_on_from_any_step(data: RankingData) -> None:
    whole = epoch(data, 2)
    for start in range(len(whole) + 1):
        rest = epoch(data, 2, start=start)
        assert [b.rows.tolist() for b in rest] == [b.rows.tolist() for b in whole[start:]]
        assert all(torch.equal(a.grades, b.grades) for a, b in zip(rest, whole[start:], strict=True))
        assert all(torch.equal(a.products.keys, b.products.keys) for a, b in zip(rest, whole[start:], strict=True))


def test_grades_and_queries_of_a_batch(data: RankingData) -> None:
    for batch in epoch(data, 0):
        assert batch.grades.shape == (len(batch.queries.mask), len(batch.rows))
        assert (batch.grades > 0).any(1).all()  # each query was drawn for a product of the batch
        assert batch.products.mask.any(1).all()
        assert batch.queries.mask.any(1).all()


def test_only_training_queries(data: RankingData) -> None:
    assert data.query_rows.tolist() == list(range(18))
    for batch in epoch(data, 0, queries=999):
        assert len(batch.queries.mask) == 18


def test_queries_are_filled_up(data: RankingData) -> None:
    few, more = epoch(data, 0, size=9), epoch(data, 0, size=9, queries=14)
    assert all(len(batch.queries.mask) <= 9 for batch in few)
    for batch in more:
        assert batch.grades.shape == (len(batch.queries.mask), len(batch.rows))
        assert len(batch.queries.mask) <= 14
    assert sum(len(b.queries.mask) for b in more) > 1.4 * sum(len(b.queries.mask) for b in few)


def test_positives_are_of_this_split_and_can_be_seen(preprocess: Path) -> None:
    whole = open_splits(preprocess, ("text", "image", "price"), 0).train
    allowed = np.arange(0, 40)  # 19 among them, judged but without any modality
    part = RankingData(
        whole.products, whole.queries, whole.judgments, allowed, whole.query_rows, whole.modalities, whole.columns
    )
    for batch in part.epoch(0, 0, 10, 1.0, 0, 0):
        assert set(batch.rows.tolist()) <= set(allowed.tolist()) - {19}
        assert batch.products.mask.any(1).all()


def test_unjudged_products_make_no_queries(preprocess: Path) -> None:
    table = FeatureTable.open(preprocess / "features")
    queries = FeatureTable.open(preprocess / "query_features.parquet")
    nobody = Judgments(*(np.zeros(0, np.int64),) * 2, np.zeros(0), len(queries.ids), len(table.ids))
    columns = [MODALITIES.index(m) for m in ("text", "image")]
    data = RankingData(table, queries, nobody, np.arange(10), np.arange(5), ("text", "image"), columns)
    (batch,) = data.epoch(0, 0, 32, 0.5, 0, 4)
    assert batch.grades.shape == (0, 10)
    assert batch.history == {}
