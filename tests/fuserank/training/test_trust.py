"""A modality that says more than it knows is trusted less: by products that it was not made on, and only if proven."""

import numpy as np
import pytest
import torch
from torch import nn

from fuserank.evaluation.metrics import rank_metrics
from fuserank.models.fused import FusedModel
from fuserank.records.schema import MODALITIES
from fuserank.training import trust
from fuserank.training.cached import CachedTable
from fuserank.training.data import Judgments
from fuserank.training.trust import fit_trust
from fuserank.training.validate import Validation

WIDTH, KINDS, EACH = 32, 40, 10
CPU = torch.device("cpu")


class Straight(nn.Module):
    width = WIDTH


def model(kind: str = "ensemble") -> FusedModel:
    """Text and picture, their outputs as they are: heads and projections are the identity."""
    torch.manual_seed(0)
    made = FusedModel({"text": Straight(), "image": Straight()}, WIDTH, kind, {})
    with torch.no_grad():
        for projection in made.projections.values():
            projection[1].weight.copy_(torch.eye(WIDTH))
            projection[1].bias.zero_()
        for part in made.heads.values():
            part.weight.zero_()
            part.bias.zero_()
    return made.eval()


def shop(noise: tuple[float, float], seed: int = 0) -> Validation:
    """A query a kind, asked in words; text and picture of a product are its kind plus so much noise."""
    random = np.random.default_rng(seed)
    kinds = random.normal(size=(KINDS, WIDTH))
    of = np.repeat(np.arange(KINDS), EACH)
    mask = np.zeros((KINDS * EACH, len(MODALITIES)), bool)
    mask[:, [MODALITIES.index(name) for name in ("text", "image")]] = True
    hidden = {
        name: (kinds[of] + amount * random.normal(size=(len(of), WIDTH))).astype(np.float16)
        for name, amount in zip(("text", "image"), noise, strict=True)
    }
    asked = np.zeros((KINDS, len(MODALITIES)), bool)
    asked[:, MODALITIES.index("text")] = True
    products = CachedTable([str(n) for n in range(len(of))], mask, hidden)
    queries = CachedTable([str(n) for n in range(KINDS)], asked, {"text": kinds.astype(np.float16)})
    judged = Judgments(of, np.arange(len(of)), np.ones(len(of), np.float32), KINDS, len(of))
    columns = [MODALITIES.index(name) for name in ("text", "image")]
    return Validation(products, queries, judged, np.arange(len(of)), np.arange(KINDS), columns)


@pytest.mark.parametrize("kind", ["ensemble", "gated"])
def test_noise_is_trusted_less_and_other_products_rank_better_for_it(kind: str) -> None:
    made, others = model(kind), shop((0.8, 4.0), seed=1)
    before = others.score(made, CPU)["ndcg@10"]
    found = fit_trust(made, shop((0.8, 4.0)), CPU, seed=0)
    assert found["trust_lift_low"] > 0
    assert found["trust_image"] < 0.5 * found["trust_text"]
    assert others.score(made, CPU)["ndcg@10"] > before + 0.02
    vectors, mask = torch.randn(3, 2, WIDTH), torch.ones(3, 2, dtype=torch.bool)
    scaled = vectors * torch.tensor([found["trust_text"], found["trust_image"]])[:, None]
    torch.testing.assert_close(made.product_vectors(vectors, mask), made.fusion.product(scaled, mask))


def test_where_both_tell_as_much_nothing_moves() -> None:
    made = model()
    found = fit_trust(made, shop((1.5, 1.5)), CPU, seed=0)
    assert found["trust_lift_low"] <= 0
    assert made.trust.tolist() == [1.0, 1.0]


def test_the_figure_is_that_of_all_variants(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half for the products as they are, half for those whose text, or picture, is hidden of one half."""
    made, validation = model(), shop((0.8, 4.0))
    monkeypatch.setattr(trust, "FACTORS", (1.0,))
    found = fit_trust(made, validation, CPU, seed=3)
    random = np.random.default_rng((3, 10))
    random.permutation(KINDS)
    random.permutation(0)
    half = random.permutation(KINDS * EACH) % 2 == 0
    grades = validation.judgments.matrix(validation.query_rows, validation.product_rows)
    products, queries = validation.products, validation.queries
    assert isinstance(products, CachedTable)
    assert isinstance(queries, CachedTable)
    sides = [unit(products.hidden[name]) for name in ("text", "image")]
    vectors = torch.stack(sides, 1)
    words = unit(queries.hidden["text"])
    asked = torch.stack([words, torch.zeros_like(words)], 1)
    asked_mask = torch.tensor([True, False]).expand(KINDS, 2)
    values = []
    for hidden in (None, 0, 1):
        mask = np.ones((KINDS * EACH, 2), bool)
        if hidden is not None:
            mask[half, hidden] = False
        with torch.no_grad():
            scores = made.query_vectors(asked, asked_mask) @ made.product_vectors(vectors, torch.from_numpy(mask)).T
        values.append(np.nanmean(rank_metrics(scores.numpy(), grades)["ndcg@10"]))
    assert found["untrusted_ndcg@10"] == pytest.approx(values[0] / 2 + (values[1] + values[2]) / 4, abs=1e-5)


def test_few_queries_tell_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    made = model()
    monkeypatch.setattr(trust, "FEWEST", KINDS + 1)
    assert fit_trust(made, shop((0.8, 4.0)), CPU, seed=0) == {}
    assert made.trust.tolist() == [1.0, 1.0]


def unit(hidden: np.ndarray) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.from_numpy(hidden).float(), dim=-1)
