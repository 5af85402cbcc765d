"""A catalogue with changes answers as an index made anew of the products as they are: random changes, before and after
compaction, filters, words and vectors; and what a compaction under way does not lose."""

import tempfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuserank.errors import FilterError
from fuserank.features.text import product_text
from fuserank.records.live import from_row, merge, to_row
from fuserank.records.schema import PRODUCT
from fuserank.retrieval import delta_words
from fuserank.retrieval.catalogue import Catalogue, write_catalogue
from fuserank.retrieval.delta import Applied, LiveCatalogue, Vectors
from fuserank.retrieval.pipeline import Retriever, SearchRequest

N, M, D, E = 24, 3, 4, 6
WORDS = ["red", "blue", "wool", "boot", "dress", "红色", "靴子"]
FILTERS: list[dict[str, Any] | None] = [
    None,
    {"in_stock": True},
    {"price": {"lte": 5}},
    {"attributes.shade": ["dark"]},
    {"not": {"category": "c1"}},
    {"or": [{"brand": "b1"}, {"product_id": ["p3", "n1"]}]},
]


def text_of(row: Any) -> str:
    return product_text(row, ("title", "brand"))


def draw(seed: int, product_id: str) -> Vectors:
    random = np.random.default_rng([seed, zlib.crc32(product_id.encode())])  # no two products score alike
    mask = random.random(M) < 0.7
    modalities = (random.normal(size=(M, D)) * mask[:, None]).astype(np.float16)
    return Vectors(random.normal(size=E).astype(np.float32), modalities, mask)


def product(seed: int, product_id: str) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    return {
        "product_id": product_id,
        "title": " ".join(random.choice(WORDS, size=3)),
        "brand": f"b{seed % 3}",
        "price": f"{seed % 40 / 4:.2f}",
        "category": ["Shop", f"c{seed % 3}"],
        "attributes": {"shade": ["dark" if seed % 2 else "light"]},
        "in_stock": bool(seed % 4),
    }


def build(
    folder: Path, records: dict[str, dict[str, Any]], vectors: dict[str, Vectors], kind: Any = "flat"
) -> Catalogue:
    rows = [to_row(record) for record in records.values()]
    parts = [vectors[product_id] for product_id in records]
    write_catalogue(
        folder,
        pa.Table.from_pylist(rows, PRODUCT),
        np.stack([part.modalities for part in parts]),
        np.stack([part.mask for part in parts]),
        np.stack([part.fused for part in parts]),
        [text_of(row) for row in rows],
        kind,
    )
    return Catalogue.open(folder)


class World:
    """A live catalogue and, beside it, plainly kept, what it must hold."""

    def __init__(self, folder: Path, kind: str = "flat"):
        self.folder, self.kind, self.seq, self.builds = folder, kind, 0, 0
        self.records = {f"p{i}": product(i, f"p{i}") for i in range(N)}
        self.vectors = {f"p{i}": draw(i, f"p{i}") for i in range(N)}
        scratch = folder / "scratch"
        scratch.mkdir()
        base = build(folder / "base", self.records, self.vectors, kind)
        self.live = LiveCatalogue(base, 0, text_of, scratch)
        self.retriever = Retriever(self.live)

    def change(self, kind: str, product_id: str, seed: int) -> Applied | None:
        """Note a change and give it for `apply`; None where it means nothing."""
        vectors = None
        if kind == "upsert":
            vectors = self.vectors[product_id] = draw(seed, product_id)
            self.records[product_id] = product(seed, product_id)
        elif product_id not in self.records:
            return None
        elif kind == "delete":
            del self.records[product_id]
        else:
            patch = [{"in_stock": seed % 2 == 0}, {"price": f"{seed % 30 / 3:.2f}"}, {"attributes": {"shade": None}},
                     {"title": f"{WORDS[seed % 7]} boot"}][seed % 4]  # fmt: skip
            self.records[product_id] = merge(self.records[product_id], patch)
        self.seq += 1
        return Applied(self.seq, product_id, self.records.get(product_id), vectors)

    def apply(self, changes: list[tuple[str, str, int]]) -> None:
        self.live.apply([found for change in changes if (found := self.change(*change)) is not None])

    def compare(self, exact_words: bool = False) -> None:
        """The same products, with the same scores, as an index made anew finds."""
        self.builds += 1
        anew = build(self.folder / f"anew{self.builds}", self.records, self.vectors)
        reference = Retriever(anew)
        random = np.random.default_rng(1)
        for condition in FILTERS:
            if condition is not None:
                matching = {self.live.ids[row] for row in np.flatnonzero(self.live.filters.mask(condition))}
                assert matching == {anew.ids[row] for row in np.flatnonzero(anew.filters.mask(condition))}
            for k in (5, 100):
                request = SearchRequest(
                    text="red boot 红色",
                    query_vector=random.normal(size=E).astype(np.float32),
                    q_heads=random.normal(size=(M, D)).astype(np.float32),
                    filter=condition,
                    candidates=k,
                )
                vectors_only = SearchRequest(query_vector=request.query_vector, filter=condition, candidates=k)
                mine, theirs = (r.search([request, vectors_only]) for r in (self.retriever, reference))
                ids = [[self.live.ids[row] for row in found.rows] for found in mine]
                expected = [[anew.ids[row] for row in found.rows] for found in theirs]
                assert ids[1] == expected[1]
                np.testing.assert_allclose(mine[1].fused, theirs[1].fused, rtol=1e-5, atol=1e-6)
                if k == 100:  # everything that matches
                    assert ids[0] == expected[0]
                    np.testing.assert_array_equal(mine[0].mask, theirs[0].mask)
                    np.testing.assert_allclose(mine[0].modalities, theirs[0].modalities, rtol=1e-5)
                    np.testing.assert_array_equal(mine[0].lexical > 0, theirs[0].lexical > 0)
                    if exact_words:
                        np.testing.assert_allclose(mine[0].lexical, theirs[0].lexical, rtol=1e-5)

    def compact(self, meanwhile: list[tuple[str, str, int]] = ()) -> None:  # type: ignore[assignment]
        job = self.live.compaction()
        self.apply(list(meanwhile))
        job()()


IDS = st.sampled_from([f"p{i}" for i in range(N)] + [f"n{i}" for i in range(8)])
CHANGES = st.lists(st.tuples(st.sampled_from(["upsert", "patch", "delete"]), IDS, st.integers(0, 10_000)), max_size=25)


@settings(max_examples=5, deadline=None)
@given(st.lists(CHANGES, min_size=1, max_size=3), CHANGES, CHANGES)
def test_any_changes_answer_like_an_index_made_anew(groups, meanwhile, later):
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder))
        for group in groups:
            world.apply(group)
        world.compare()
        world.compact()
        world.compare(exact_words=True)
        world.compact(meanwhile)
        world.compare()
        world.apply(later)
        world.compare()


@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivf"])
def test_all_that_exists_is_found_when_nearly_all_is_deleted(tmp_path, kind):
    world = World(tmp_path, kind)
    world.apply([("delete", f"p{i}", 0) for i in range(N) if i not in (3, 7)] + [("upsert", "n1", 5)])
    query = SearchRequest(query_vector=np.ones(E, np.float32), candidates=3)
    assert {world.live.ids[row] for row in world.retriever.search([query])[0].rows} == {"p3", "p7", "n1"}
    world.compare()


@pytest.mark.parametrize("kind", ["flat", "ivf"])
@pytest.mark.parametrize("few", [0, 3, 100])
def test_what_changes_during_a_compaction_is_in_the_new_base_or_beside_it(tmp_path, kind, few, monkeypatch):
    monkeypatch.setattr(delta_words, "FEW", few)
    world = World(tmp_path, kind)
    world.apply([("upsert", f"n{i}", 40 + i) for i in range(4)])
    job = world.live.compaction()
    world.apply(
        [("upsert", "n1", 7), ("upsert", "p2", 8), ("delete", "p3", 0), ("upsert", "n9", 9), ("delete", "n0", 0)]
    )
    install = job()
    world.apply([("upsert", "n1", 41), ("upsert", "p3", 10), ("delete", "n9", 0), ("patch", "p4", 3)])
    install()
    world.compare()
    world.apply([("upsert", "n0", 11), ("delete", "n1", 0)])
    world.compare()
    world.compact()
    world.compare(exact_words=True)


def test_a_product_without_vectors_is_refused(tmp_path):
    world = World(tmp_path)
    with pytest.raises(ValueError, match="'new' without vectors"):
        world.live.apply([Applied(1, "new", product(1, "new"), None)])


def test_rows_are_for_good_and_alike_however_changes_are_grouped(tmp_path):
    changes = [("upsert", "n1", 1), ("delete", "n1", 0), ("upsert", "n2", 2), ("upsert", "n1", 3), ("delete", "p0", 0)]
    rows = []
    for at_once in (True, False):
        folder = tmp_path / str(at_once)
        folder.mkdir()
        world = World(folder)
        for group in [changes] if at_once else [[change] for change in changes]:
            world.apply(group)
        world.compare()
        rows.append([(i, world.live.ids[i]) for i in range(world.live.size)])
        assert world.live.seq == 5
    assert rows[0] == rows[1]
    assert rows[0][N:] == [(N, "n1"), (N + 1, "n2")]


def test_a_product_is_liked_for_what_it_is_now(tmp_path):
    shop = World(tmp_path)
    same = [row for row in range(N) if shop.records[shop.live.ids[row]]["brand"] == "b1"][:3]
    other = next(row for row in range(N) if shop.records[shop.live.ids[row]]["brand"] == "b2")
    before = shop.live.traits.affinity(np.array([other]), same)
    record = shop.records[shop.live.ids[other]] | {"brand": "b1", "category": ["Shop", "c1"]}
    shop.live.apply([Applied(1, shop.live.ids[other], record), Applied(2, "new", record, draw(1, "new"))])
    after = shop.live.traits.affinity(np.array([other, shop.live.rows["new"]]), same)
    assert after[0, 0] > before[0, 0] + 1
    assert after[0].tolist() == after[1].tolist()


def test_a_new_attribute_can_be_filtered_on_and_an_unknown_one_is_refused(tmp_path):
    world = World(tmp_path)
    with pytest.raises(FilterError, match=r"attributes\.glow"):
        world.live.filters.mask({"attributes.glow": "yes"})
    glowing = world.change("upsert", "n1", 1)
    assert glowing is not None
    world.live.apply([Applied(1, "n1", merge(glowing.record, {"attributes": {"glow": ["yes"]}}), glowing.vectors)])
    assert np.flatnonzero(world.live.filters.mask({"attributes.glow": "yes"})).tolist() == [N]
    with pytest.raises(FilterError, match="shadow"):
        world.live.filters.mask({"attributes.shadow": "x"})


def test_a_row_and_its_record_are_the_same_product(generation):
    for row in generation.catalogue.products.slice(0, 20).to_pylist():
        again = pa.Table.from_pylist([to_row(from_row(row))], PRODUCT).to_pylist()[0]
        same = {name: value for name, value in row.items() if name not in ("labels", "split", "images")}
        assert {name: again[name] for name in same} == same
