"""Exact and near duplicates among products: the same text, nearly the same text, the same picture, nearly the same one.

Signatures are small and computed row by row (where the rows are, in parallel); pairs are found from the signatures
alone. Reads and writes nothing. N products.
"""

import hashlib
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fuserank.records.schema import DUPLICATE

PERMUTATIONS, BAND = 48, 4  # 12 bands of 4: pairs of similarity .8 meet with probability .997, of .3 with .09
SHINGLE = 3  # words
ALIKE = 0.8  # estimated Jaccard similarity from which texts count as near duplicates
WHOLE = 16  # bytes
FEWEST = 4  # words below which a text is compared as a whole only
BITS = 4  # of 64 in which near-duplicate pictures may differ
NEIGHBOURS = 8  # of a bucket of texts each is compared with so many others and the first
AT_ONCE = 200_000  # pairs compared in one go
_PRIME = np.uint64((1 << 31) - 1)
_RANDOM = np.random.default_rng(20_240_601)
_A = _RANDOM.integers(1, int(_PRIME), PERMUTATIONS, dtype=np.uint64)
_B = _RANDOM.integers(0, int(_PRIME), PERMUTATIONS, dtype=np.uint64)
_NONE = np.zeros((0, 2), np.int64)


def text_signature(text: str) -> bytes | None:
    """What tells equal texts, and MinHash of word triples (Broder 1997, On the resemblance and containment of
    documents).

    Returns:
        WHOLE bytes that only equal texts share (case and space aside), then uint32 [PERMUTATIONS] unless the text is
        very short; None without words.
    """
    words = text.lower().split()
    if not words:
        return None
    whole = hashlib.blake2b(" ".join(words).encode("utf-8", "replace"), digest_size=WHOLE).digest()
    if len(words) < FEWEST:
        return whole
    shingles = {" ".join(words[i : i + SHINGLE]) for i in range(len(words) - SHINGLE + 1)}
    digests = b"".join(hashlib.blake2b(s.encode("utf-8", "replace"), digest_size=4).digest() for s in sorted(shingles))
    hashed = np.frombuffer(digests, np.uint32).astype(np.uint64) % _PRIME
    return whole + ((hashed[:, None] * _A + _B) % _PRIME).min(0).astype(np.uint32).tobytes()


def picture_signature(pixels: np.ndarray) -> int | None:
    """Difference hash of a picture: which of 8×8 places are brighter than their right neighbour (Krawetz 2013,
    https://www.hackerfactor.com/blog/index.php?/archives/529-Kind-of-Like-That.html).

    Args:
        pixels: uint8 [H, W, 3], H ≥ 8 and W ≥ 9.

    Returns:
        64 bits; None for a picture of one colour, which says nothing.
    """
    grey = pixels.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    rows = np.linspace(0, len(grey), 9).astype(int)
    columns = np.linspace(0, grey.shape[1], 10).astype(int)
    small = np.add.reduceat(np.add.reduceat(grey, rows[:-1], 0), columns[:-1], 1)
    small /= np.diff(rows)[:, None] * np.diff(columns)[None, :]
    if float(np.ptp(small)) < 2:
        return None
    bits = (small[:, :-1] > small[:, 1:]).reshape(-1)
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def find_duplicates(
    ids: pa.ChunkedArray, texts: pa.ChunkedArray, pictures: pa.ChunkedArray, media: pa.ChunkedArray
) -> pa.Table:
    """Groups of products that seem to be one.

    Args:
        ids: product ids, sorted. texts, pictures: their signatures, binary and uint64. media: names of the main
            pictures, equal where their content is. All [N], null where missing.

    Returns:
        DUPLICATE: a row for each member of a group of two or more, by group; a product may be in a group by text and
        in another by picture. A group of similar ones holds also what equals one of them.
    """
    whole = pc.call_function("binary_slice", [texts], pc.SliceOptions(0, WHOLE))
    same_text, same_picture = _equal(whole), _equal(media)
    found: list[pa.Table] = []
    for order, (reason, pairs, within) in enumerate(
        (
            ("same text", same_text, _NONE),
            ("similar text", _similar_texts(texts, same_text), same_text),
            ("same picture", same_picture, _NONE),
            ("similar picture", _similar_pictures(pictures, _codes(media)), same_picture),
        )
    ):
        rows, groups = _groups(len(ids), pairs, within)
        columns = [ids.take(pa.array(rows)), ids.take(pa.array(groups)), pa.array([reason] * len(rows), pa.string())]
        found.append(pa.table([*columns, pa.array([order] * len(rows), pa.int8())], [*DUPLICATE.names, "order"]))
    keys = [("group", "ascending"), ("order", "ascending"), ("product_id", "ascending")]
    return pa.concat_tables(found).sort_by(keys).select(DUPLICATE.names).cast(DUPLICATE)


def merged_into(duplicates: pa.Table, reasons: Sequence[str]) -> dict[str, str]:
    """Products to give up → the one that stands for them: those that are one by every reason.

    Args:
        duplicates: DUPLICATE. reasons: as there; `similar …` includes `same …`.
    """
    groups: dict[str, dict[str, str]] = defaultdict(dict)  # product → reason → group
    for row in sorted(duplicates.to_pylist(), key=lambda row: row["reason"]):  # same before similar, which is wider
        for reason in reasons:
            if row["reason"] in (reason, reason.replace("similar", "same")):
                groups[row["product_id"]][reason] = row["group"]
    first: dict[tuple[str, ...], str] = {}
    found: dict[str, str] = {}
    for product_id in sorted(groups):
        if len(groups[product_id]) == len(set(reasons)):
            stands = first.setdefault(tuple(groups[product_id][reason] for reason in reasons), product_id)
            if stands != product_id:
                found[product_id] = stands
    return found


def _codes(values: pa.ChunkedArray) -> np.ndarray:
    """int64 [N]: equal numbers for equal values, -1 for null."""
    indices = values.combine_chunks().dictionary_encode().indices
    return pc.call_function("coalesce", [indices, pa.scalar(-1, pa.int32())]).to_numpy().astype(np.int64)


def _equal(values: pa.ChunkedArray) -> np.ndarray:
    """Pairs int64 [P, 2] of each value's first place and another."""
    codes = _codes(values)
    places = np.flatnonzero(codes >= 0)
    _, first, back = np.unique(codes[places], return_index=True, return_inverse=True)
    firsts = places[first][back]
    return np.stack([firsts, places], 1)[firsts != places]


def _similar_texts(signatures: pa.ChunkedArray, same: np.ndarray) -> np.ndarray:
    """Pairs that share a band and are ALIKE; of equal texts only the first is looked at."""
    lengths = pc.call_function("binary_length", [signatures]).to_numpy(zero_copy_only=False)
    usable = lengths == WHOLE + 4 * PERMUTATIONS
    usable[same[:, 1]] = False
    places = np.flatnonzero(usable)
    data = signatures.take(pa.array(places)).combine_chunks().buffers()[2] if len(places) else b""
    hashes = np.frombuffer(data, np.uint32).reshape(len(places), WHOLE // 4 + PERMUTATIONS)[:, WHOLE // 4 :]
    found = [_NONE]
    for start in range(0, PERMUTATIONS, BAND):
        bucket = np.zeros(len(places), np.uint64)
        for column in range(start, start + BAND):  # two bands that collide only cost a comparison
            bucket = (bucket ^ hashes[:, column]) * np.uint64(0x9E3779B97F4A7C15)
        order = np.argsort(bucket, kind="stable")
        pairs = order[_within_runs(bucket[order])]
        for part in np.array_split(pairs, len(pairs) // AT_ONCE + 1):
            alike = (hashes[part[:, 0]] == hashes[part[:, 1]]).mean(1) >= ALIKE
            found.append(places[part[alike]])
    return np.concatenate(found)


def _within_runs(ordered: np.ndarray) -> np.ndarray:
    """Pairs of places in a sorted array whose values are equal: each with its next NEIGHBOURS, and with the first."""
    _, first, back = np.unique(ordered, return_index=True, return_inverse=True)
    head, places = first[back], np.arange(len(ordered))
    pairs = [np.stack([head, places], 1)[head != places]]
    for ahead in range(1, NEIGHBOURS + 1):
        left = places[: max(0, len(ordered) - ahead)]
        pairs.append(np.stack([left, left + ahead], 1)[head[left] == head[left + ahead]])
    return np.concatenate(pairs)


def _similar_pictures(hashes: pa.ChunkedArray, media: np.ndarray) -> np.ndarray:
    """Pairs that differ in BITS of 64 or fewer, of one media code never: at least one of five parts of the bits is
    equal then (pigeonhole)."""
    valid = hashes.is_valid().to_numpy()
    values = pc.call_function("coalesce", [hashes, pa.scalar(0, pa.uint64())]).to_numpy()
    places = np.flatnonzero(valid)
    distinct, first, back = np.unique(values[places], return_index=True, return_inverse=True)
    pairs = np.stack([places[first][back], places], 1)  # the same hash; other bytes
    found = [
        pairs[(pairs[:, 0] != pairs[:, 1]) & ((media[pairs[:, 0]] != media[pairs[:, 1]]) | (media[pairs[:, 0]] < 0))]
    ]
    for shift in range(0, 64, 13):
        part = (distinct >> np.uint64(shift)) & np.uint64(0x1FFF)
        order = np.argsort(part, kind="stable")
        for members in np.split(order, np.flatnonzero(np.diff(part[order])) + 1):
            for begin in range(0, len(members), 256):
                rows = members[begin : begin + 256]
                left, right = np.nonzero(np.bitwise_count(distinct[rows, None] ^ distinct[members][None]) <= BITS)
                left, right = rows[left], members[right]
                found.append(np.stack([places[first[left]], places[first[right]]], 1)[left < right])
    return np.concatenate(found)


def _groups(size: int, pairs: np.ndarray, within: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Connected components: places in one of two or more, and each one's smallest place.

    Args:
        within: pairs that join what `pairs` has reached, without being a reason of their own.
    """
    reached, label = np.zeros(size, bool), np.arange(size)
    every = np.concatenate([pairs, within])
    while len(every):
        low = np.minimum(label[every[:, 0]], label[every[:, 1]])
        np.minimum.at(label, every[:, 0], low)
        np.minimum.at(label, every[:, 1], low)
        label = label[label]
        if (label[every[:, 0]] == label[every[:, 1]]).all():
            break
    reached[label[pairs[:, 0]]] = True
    rows = np.flatnonzero(reached[label])
    return rows, label[rows]
