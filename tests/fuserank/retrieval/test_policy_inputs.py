"""What a policy sees of recommended products, one feature at a time, against plain loops."""

from types import SimpleNamespace

import numpy as np

from fuserank.feedback.behaviour import Behaviour
from fuserank.retrieval import policy_inputs
from fuserank.retrieval.policy_inputs import LATEST, LIKING, RELATED

N, E, M = 30, 16, 2


def catalogue() -> SimpleNamespace:
    random = np.random.default_rng(0)
    vectors = random.normal(size=(N, E)).astype(np.float32)
    values = random.random((N, 5)) < 0.4
    traits = SimpleNamespace(
        affinity=lambda rows, past: np.zeros((len(rows), 2), np.float32),
        tiers=lambda rows: np.full(len(rows), 3),
        common=lambda rows, row: (values[rows] & values[row]).sum(1) / max(values[row].sum(), 1),
    )
    modalities = random.normal(size=(N, M, E)).astype(np.float32)
    return SimpleNamespace(
        vectors=vectors, modality_vectors=modalities, mask=np.ones((N, M), bool), traits=traits, values=values
    )


def test_what_relates_a_product_to_the_user() -> None:
    shop, rows, recent = catalogue(), np.array([3, 7, 11]), [*range(12, 12 + LATEST), 5]
    liked = np.array([0.2, -0.1, 0.0], np.float32)
    found = policy_inputs.recommended(rows, shop, Behaviour.nothing(N), recent, None, liked)  # type: ignore[arg-type]
    names = policy_inputs.names("recommend", ("text", "image"))[3:]
    assert found.shape == (3, len(names))
    told = dict(zip(names, found.T, strict=True))
    for place, row in enumerate(rows):
        likeness = [float(shop.vectors[row] @ shop.vectors[past]) for past in recent[-LATEST:]]
        both = sum(a and b for a, b in zip(shop.values[row], shop.values[5], strict=True)) / shop.values[5].sum()
        like = LIKING * liked[place]
        expected = (likeness[-1], max(likeness), both, like, like * likeness[-1], like * both)
        np.testing.assert_allclose([told[name][place] for name in RELATED], expected, rtol=1e-4, atol=1e-6)


def test_of_strangers_nothing_is_told() -> None:
    found = policy_inputs.recommended(np.array([1, 2]), catalogue(), Behaviour.nothing(N), [], None)  # type: ignore[arg-type]
    told = dict(zip(policy_inputs.names("recommend", ("text", "image"))[3:], found.T, strict=True))
    assert not any(told[name].any() for name in RELATED)
