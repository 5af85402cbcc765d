"""Exact and near duplicates among products: the same text, nearly the same text, the same picture, nearly the same one.

Signatures are small and computed row by row (where the rows are, in parallel); pairs are found from the signatures
alone. Reads and writes nothing. N products.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import combinations

import numpy as np
import pyarrow as pa

from fuserank.records.schema import DUPLICATE

PERMUTATIONS, BAND = 48, 4  # 12 bands of 4: pairs of similarity .8 meet with probability .997, of .3 with .09
SHINGLE = 3  # words
ALIKE = 0.8  # estimated Jaccard similarity from which texts count as near duplicates
WHOLE = 16  # bytes
FEWEST = 4  # words below which a text is compared as a whole only
BITS = 4  # of 64 in which near-duplicate pictures may differ
CROWD = 64  # of a larger bucket each member is compared with the first only
_PRIME = np.uint64((1 << 31) - 1)
_RANDOM = np.random.default_rng(20_240_601)
_A = _RANDOM.integers(1, int(_PRIME), PERMUTATIONS, dtype=np.uint64)
_B = _RANDOM.integers(0, int(_PRIME), PERMUTATIONS, dtype=np.uint64)


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
    ids: list[str], texts: list[bytes | None], pictures: list[int | None], media: list[str | None]
) -> pa.Table:
    """Groups of products that seem to be one.

    Args:
        ids: product ids; texts, pictures: their signatures; media: content hash of the main picture. All [N].

    Returns:
        DUPLICATE: a row for each member of a group of two or more, by group; a product may be in a group by text and
        in another by picture.
    """
    found: list[dict] = []
    parts = (
        ("same text", _equal([text and text[:WHOLE] for text in texts])),
        ("similar text", _similar_texts([text and text[WHOLE:] for text in texts])),
        ("same picture", _equal(media)),
        ("similar picture", _similar_pictures(pictures)),
    )
    told: set[tuple[int, int]] = set()
    for reason, pairs in parts:
        kept = [pair for pair in pairs if pair not in told]
        told.update(kept)
        for members in _groups(kept):
            names = sorted(ids[place] for place in members)
            found += [{"product_id": name, "group": names[0], "reason": reason} for name in names]
    order = {reason: place for place, (reason, _) in enumerate(parts)}
    found.sort(key=lambda row: (row["group"], order[row["reason"]], row["product_id"]))
    return pa.Table.from_pylist(found, schema=DUPLICATE)


def _equal(values: list) -> list[tuple[int, int]]:
    first: dict = {}
    return [(first[v], p) for p, v in enumerate(values) if v is not None and first.setdefault(v, p) != p]


def _similar_texts(signatures: list[bytes | None]) -> list[tuple[int, int]]:
    known = {p: np.frombuffer(s, np.uint32) for p, s in enumerate(signatures) if s}
    keys = ((start, s[start : start + BAND].tobytes(), p) for p, s in known.items() for start in range(0, len(s), BAND))
    return sorted(pair for pair in _meetings(keys) if (known[pair[0]] == known[pair[1]]).mean() >= ALIKE)


def _similar_pictures(hashes: list[int | None]) -> list[tuple[int, int]]:
    """Of five parts of 64 bits at least one is equal where at most four bits differ (pigeonhole)."""
    known = {p: h for p, h in enumerate(hashes) if h is not None}
    keys = ((shift, h >> shift & 0x1FFF, p) for p, h in known.items() for shift in range(0, 64, 13))
    return sorted(pair for pair in _meetings(keys) if (known[pair[0]] ^ known[pair[1]]).bit_count() <= BITS)


def _meetings(keys: Iterable[tuple[int, bytes | int, int]]) -> set[tuple[int, int]]:
    """Pairs that share a bucket."""
    buckets: dict[tuple[int, bytes | int], list[int]] = defaultdict(list)
    for band, value, place in keys:
        buckets[band, value].append(place)
    pairs: set[tuple[int, int]] = set()
    for members in buckets.values():
        if len(members) > CROWD:
            pairs.update((members[0], other) for other in members[1:])
        elif len(members) > 1:
            pairs.update(combinations(members, 2))
    return pairs


def _groups(pairs: Iterable[tuple[int, int]]) -> Iterator[list[int]]:
    """Connected components of the pairs."""
    parent: dict[int, int] = {}

    def root(place: int) -> int:
        parent.setdefault(place, place)
        while parent[place] != place:
            parent[place] = place = parent[parent[place]]
        return place

    for left, right in pairs:
        parent[root(right)] = root(left)
    members: dict[int, list[int]] = defaultdict(list)
    for place in sorted(parent):
        members[root(place)].append(place)
    yield from members.values()
