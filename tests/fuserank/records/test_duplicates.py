"""Planted duplicates are found, and what only looks a little alike is not."""

import numpy as np
import pyarrow as pa
import pytest

from fuserank.records.duplicates import WHOLE, find_duplicates, picture_signature, text_signature

WORDS = [f"word{i}" for i in range(400)]


def text(seed: int, length: int = 40) -> list[str]:
    return [WORDS[i] for i in np.random.default_rng(seed).integers(0, len(WORDS), length)]


def picture(seed: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 9, 3)).astype(np.uint8)
    return coarse.repeat(6, 0).repeat(6, 1)


def find(ids: list[str], texts: list, pictures: list, media: list) -> pa.Table:
    kinds = (pa.string(), pa.binary(), pa.uint64(), pa.string())
    columns = (ids, texts, pictures, media)
    return find_duplicates(*(pa.chunked_array([pa.array(c, k)]) for c, k in zip(columns, kinds, strict=True)))


def test_the_estimate_is_the_jaccard_similarity() -> None:
    """Against the similarity of the sets of word triples themselves."""
    close = 0
    for seed in range(40):
        left = text(seed, 60)
        right = [*left[: 20 + seed], *text(1000 + seed, 10)]
        sets = [{tuple(words[i : i + 3]) for i in range(len(words) - 2)} for words in (left, right)]
        truth = len(sets[0] & sets[1]) / len(sets[0] | sets[1])
        one, other = (np.frombuffer((text_signature(" ".join(w)) or b"")[WHOLE:], np.uint32) for w in (left, right))
        close += abs(float((one == other).mean()) - truth) < 3 * np.sqrt(0.25 / 48)
    assert close >= 39  # three standard deviations of the estimate


def test_planted_duplicates() -> None:
    base = text(1)
    texts = {
        "a": " ".join(base),
        "b": " ".join(base).upper(),  # the same, but for case
        "c": " ".join([*base[:-1], "other"]),  # one word of forty
        "d": " ".join(text(2)),
        "e": "red mug",
        "f": "Red  mug",
        "g": "red jug",
        "h": "",
    }
    pixels = {name: picture(place) for place, name in enumerate(texts)}
    pixels["d"] = np.clip(pixels["c"].astype(int) + 9, 0, 255).astype(np.uint8)  # brighter
    hashes = [picture_signature(p) for p in pixels.values()]
    media = ["1", "2", "3", "4", "5", "6", "1", None]
    signatures = [text_signature(t) for t in texts.values()]
    assert signatures[-1] is None
    found = find(list(texts), signatures, hashes, media).to_pylist()
    groups: dict[tuple[str, str], list[str]] = {}
    for row in found:
        groups.setdefault((row["reason"], row["group"]), []).append(row["product_id"])
    assert groups[("same text", "a")] == ["a", "b"]
    assert groups[("same text", "e")] == ["e", "f"]
    assert groups[("similar text", "a")] == ["a", "b", "c"]
    assert groups[("same picture", "a")] == ["a", "g"]
    assert groups[("similar picture", "c")] == ["c", "d"]
    assert len(groups) == 5


def test_pictures_that_say_nothing_are_no_duplicates() -> None:
    assert picture_signature(np.full((48, 48, 3), 200, np.uint8)) is None
    assert picture_signature(picture(1)) is not None
    assert find(["a", "b"], [None, None], [None, None], [None, None]).num_rows == 0


@pytest.mark.parametrize("bits", [4, 5])
def test_how_far_pictures_may_differ(bits: int) -> None:
    base = picture_signature(picture(3))
    assert base is not None
    random = np.random.default_rng(bits)
    for _ in range(50):
        other = base
        for place in random.choice(64, bits, replace=False):
            other ^= 1 << int(place)
        assert (find(["a", "b"], [None] * 2, [base, other], [None] * 2).num_rows == 2) == (bits <= 4)


def test_a_crowd_of_equals_is_one_group() -> None:
    signature = text_signature(" ".join(text(5)))
    found = find([f"p{i:03}" for i in range(200)], [signature] * 200, [None] * 200, [None] * 200)
    assert found.num_rows == 200
    assert set(found["group"].to_pylist()) == {"p000"}
