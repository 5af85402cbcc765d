"""Which rows are for training, validation and evaluation, decided by a hash of the row's own key. Reads nothing."""

import hashlib
from collections.abc import Collection

TRAINING, VALIDATION, EVALUATION = SPLITS = ("training", "validation", "evaluation")


def bucket(key: str, modulus: int) -> int:
    """int(sha1(key), 16) % modulus, the key in UTF-8."""
    return int(hashlib.sha1(key.encode("utf-8", "replace")).hexdigest(), 16) % modulus


def split_of(key: str, modulus: int, validation: Collection[int], evaluation: Collection[int]) -> str:
    """The split of a row by its key, lower-cased, so that equal keys are never on both sides."""
    place = bucket(key.lower(), modulus)
    return EVALUATION if place in evaluation else VALIDATION if place in validation else TRAINING
