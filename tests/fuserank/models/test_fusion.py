"""One contract for all five fusions, each run through the whole model: masks, gradients, scores and contributions."""

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from fuserank.errors import ConfigError
from fuserank.models.fused import QUERYABLE, FusedModel
from fuserank.models.fusion import FUSIONS, build_fusion
from fuserank.records.schema import MODALITIES

WIDTH, BATCH, M = 16, 9, len(MODALITIES)


class Plain(nn.Module):
    """An encoder that hands its input on."""

    width = 8

    def forward(self, values: Tensor) -> Tensor:
        return values


def make(kind: str, seed: int = 0) -> FusedModel:
    torch.manual_seed(seed)
    model = FusedModel({m: Plain() for m in MODALITIES}, WIDTH, kind, {}).eval()
    with torch.no_grad():  # away from the special point where training starts
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


def sides(seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    vectors = nn.functional.normalize(torch.randn(BATCH, M, WIDTH, generator=generator), dim=-1)
    mask = torch.rand(BATCH, M, generator=generator) < 0.6
    mask[0], mask[1], mask[2] = True, False, torch.arange(M) == 0
    return vectors, mask


@pytest.fixture(params=FUSIONS)
def model(request: pytest.FixtureRequest) -> FusedModel:
    return make(request.param)


@pytest.mark.parametrize("rubbish", [float("nan"), float("inf"), -3e38])
def test_masked_slots_never_change_a_bit(model: FusedModel, rubbish: float) -> None:
    vectors, mask = sides()
    spoilt = torch.where(mask[..., None], vectors, rubbish)
    assert torch.equal(model.product_vectors(vectors, mask), model.product_vectors(spoilt, mask))
    weights = torch.rand(BATCH, M)
    assert torch.equal(model.query_vectors(vectors, mask, weights), model.query_vectors(spoilt, mask, weights))
    clean, dirty = (model.modality_scores(v, mask, v, mask) for v in (vectors, spoilt))
    assert torch.equal(clean, dirty)
    assert torch.equal(
        model.contributions(vectors[0], mask[0], vectors, mask), model.contributions(spoilt[0], mask[0], spoilt, mask)
    )


def test_masked_slots_never_reach_a_gradient(model: FusedModel) -> None:
    vectors, mask = sides()
    spoilt = torch.where(mask[..., None], vectors, float("nan"))
    (model.product_vectors(spoilt, mask) * model.query_vectors(spoilt, mask)).sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_everything_missing_is_finite(model: FusedModel) -> None:
    vectors, mask = torch.zeros(3, M, WIDTH), torch.zeros(3, M, dtype=torch.bool)
    product, query = model.product_vectors(vectors, mask), model.query_vectors(vectors, mask)
    assert product.isfinite().all()
    assert query.isfinite().all()
    (product * query).sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_rows_are_independent(model: FusedModel) -> None:
    vectors, mask = sides()
    order = torch.randperm(BATCH, generator=torch.Generator().manual_seed(2))
    for answer in (model.product_vectors, model.query_vectors):
        whole = answer(vectors, mask)
        assert whole.shape == (BATCH, model.out_width)
        torch.testing.assert_close(answer(vectors[order], mask[order]), whole[order], atol=1e-6, rtol=1e-5)
        for row in range(BATCH):
            alone = answer(vectors[row : row + 1], mask[row : row + 1])[0]
            torch.testing.assert_close(alone, whole[row], atol=1e-6, rtol=1e-5)


def test_bfloat16_agrees(model: FusedModel) -> None:
    vectors, mask = sides()
    exact = model.query_vectors(vectors, mask) @ model.product_vectors(vectors, mask).T
    with torch.autocast("cpu", torch.bfloat16):
        query, product = model.query_vectors(vectors, mask), model.product_vectors(vectors, mask)
    torch.testing.assert_close(query.float() @ product.float().T, exact, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("kind", FUSIONS)
def test_training_begins_with_what_the_encoder_was_pre_trained_for(kind: str) -> None:
    """Of one modality, a fresh model ranks as its encoder's bare outputs do."""
    torch.manual_seed(0)
    model = FusedModel({"text": Plain()}, WIDTH, kind, {}).eval()
    asked, known = torch.randn(20, Plain.width), torch.randn(50, Plain.width)
    vectors = [model.encode("text", {"values": side})[:, None] for side in (asked, known)]
    there = [torch.ones(len(side), 1, dtype=torch.bool) for side in vectors]
    fused = model.query_vectors(vectors[0], there[0]) @ model.product_vectors(vectors[1], there[1]).T
    bare = nn.functional.normalize(asked, dim=-1) @ nn.functional.normalize(known, dim=-1).T
    alike = torch.corrcoef(torch.stack([fused.detach().flatten(), bare.flatten()]))[0, 1]
    assert float(alike) > 0.995


def test_gradients_reach_every_parameter(model: FusedModel) -> None:
    _, mask = sides()
    inputs = {m: {"values": torch.randn(BATCH, Plain.width)} for m in MODALITIES}
    product = torch.stack([model.encode(m, inputs[m]) for m in MODALITIES], 1)
    query = torch.stack([model.encode(m, inputs[m]) for m in QUERYABLE], 1)
    query = torch.cat([query, torch.zeros(BATCH, M - len(QUERYABLE), WIDTH)], 1)
    query_mask = mask & (torch.arange(M) < len(QUERYABLE))
    scores = model.query_vectors(query, query_mask) @ model.product_vectors(product, mask).T
    alone = model.modality_scores(query, query_mask, product, mask)
    target = torch.randn(BATCH, BATCH, generator=torch.Generator().manual_seed(3))
    ((scores * target).sum() + alone[alone.isfinite()].square().sum()).backward()
    silent = [n for n, p in model.named_parameters() if p.grad is None or p.grad.abs().max() < 1e-9]
    assert not silent


def test_a_fused_score_uses_every_present_modality(model: FusedModel) -> None:
    vectors, _ = sides()
    mask = torch.ones(BATCH, M, dtype=torch.bool)
    query = model.query_vectors(vectors, mask)
    before = (query * model.product_vectors(vectors, mask)).sum(1)
    for place in range(M):
        changed = vectors.clone()
        changed[:, place] = -changed[:, place]
        after = (query * model.product_vectors(changed, mask)).sum(1)
        assert ((after - before).abs() > 1e-5).all()
        hidden = mask.clone()
        hidden[:, place] = False
        assert (((query * model.product_vectors(vectors, hidden)).sum(1) - before).abs() > 1e-6).all()


def shapley(model: FusedModel, query: Tensor, vectors: Tensor, mask: Tensor) -> Tensor:
    """Mean marginal gain over all orders in which the present modalities may arrive; nothing is worth 0."""
    players = [m for m in range(M) if mask[m]]
    shares = torch.zeros(M, dtype=torch.float64)
    for order in itertools.permutations(players):
        before, kept = 0.0, torch.zeros(M, dtype=torch.bool)
        for player in order:
            kept[player] = True
            now = float((model.product_vectors(vectors[None], kept[None]) @ query)[0])
            shares[player] += (now - before) / math.factorial(len(players))
            before = now
    return shares


@pytest.mark.parametrize("weighted", [False, True])
def test_contributions_are_shapley_values(model: FusedModel, weighted: bool) -> None:
    vectors, mask = sides()
    asked, asked_mask = (side[:1] for side in sides(5))
    weights = torch.tensor([1.0, 0.3, 0.0, 2.0, 1.0]) if weighted else None
    found = model.contributions(asked[0], asked_mask[0], vectors, mask, weights)
    query = model.query_vectors(asked, asked_mask, None if weights is None else weights[None])[0].detach()
    with torch.no_grad():
        score = model.product_vectors(vectors, mask) @ query
        brute = torch.stack([shapley(model, query, v, m) for v, m in zip(vectors, mask, strict=True)])
    seen = mask.any(1)
    torch.testing.assert_close(found.double(), brute, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.sum(1)[seen], score[seen], atol=1e-5, rtol=0)
    assert (found[~mask] == 0).all()


def test_what_no_product_has_costs_no_passes(model: FusedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, mask = sides()
    mask[:, 1] = mask[:, 4] = False
    asked, asked_mask = (side[0] for side in sides(5))
    passes, original = [], model.product_vectors
    monkeypatch.setattr(model, "product_vectors", lambda *given: passes.append(given) or original(*given))
    found = model.contributions(asked, asked_mask, vectors, mask)
    monkeypatch.undo()
    assert len(passes) == 2 ** (M - 2)
    query = model.query_vectors(asked[None], asked_mask[None])[0].detach()
    with torch.no_grad():
        brute = torch.stack([shapley(model, query, v, m) for v, m in zip(vectors, mask, strict=True)])
    torch.testing.assert_close(found.double(), brute, atol=1e-5, rtol=0)


def test_query_weights(model: FusedModel) -> None:
    vectors, _ = sides()
    mask = torch.ones(BATCH, M, dtype=torch.bool)
    plain = model.query_vectors(vectors, mask)
    torch.testing.assert_close(model.query_vectors(vectors, mask, torch.ones(BATCH, M)), plain)
    torch.testing.assert_close(model.query_vectors(vectors, mask, torch.full((BATCH, M), 7.0)), plain)
    weights, absent = torch.ones(BATCH, M), mask.clone()
    weights[:, 1], absent[:, 1] = 0, False
    assert torch.equal(model.query_vectors(vectors, mask, weights), model.query_vectors(vectors, absent))
    assert not torch.allclose(model.query_vectors(vectors, mask, weights), plain)
    assert model.query_vectors(vectors, mask, torch.zeros(BATCH, M)).isfinite().all()


def test_one_weight_moves_the_query_towards_its_modality(model: FusedModel) -> None:
    vectors, _ = sides()
    mask = torch.ones(BATCH, M, dtype=torch.bool)
    weights = torch.where(torch.arange(M) == 1, 1e6, 1.0).expand(BATCH, M)
    torch.testing.assert_close(model.query_vector(vectors, mask, weights), vectors[:, 1], atol=1e-3, rtol=0)


def test_modality_scores_are_dot_products(model: FusedModel) -> None:
    vectors, mask = sides()
    asked, asked_mask = (side[:2] for side in sides(5))
    found = model.modality_scores(asked, asked_mask, vectors, mask)
    heads = model.query_heads(model.query_vector(asked, asked_mask)).detach()
    for b, k, m in itertools.product(range(2), range(BATCH), range(M)):
        expected = float(heads[b, m] @ vectors[k, m]) if mask[k, m] else -math.inf
        assert found[b, k, m].item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("kind", ["ensemble", "gated"])
def test_late_scores_by_their_formula(kind: str) -> None:
    """Σ_m w_m [present_m g_m q_m·v_m + missing_m c_m], and for gated one more slot that sees all of the product."""
    model = make(kind)
    vectors, mask = sides()
    with torch.no_grad():
        query = model.query_vector(vectors, mask)
        heads, expected = model.query_heads(query), model.fusion.expected(query)
        found = model.query_vectors(vectors, mask) @ model.product_vectors(vectors, mask).T
        if kind == "ensemble":
            weights, gates = model.fusion.logits.softmax(0).expand(BATCH, M), torch.ones(BATCH, M + 1)
        else:
            filled = torch.where(mask[..., None], vectors, model.fusion.missing.vectors).flatten(1)
            mean = torch.stack([row[there].mean(0) for row, there in zip(vectors, mask, strict=True)]).nan_to_num()
            joint = nn.functional.normalize(mean + model.fusion.together(filled), dim=-1)
            asked = nn.functional.normalize(query + model.fusion.together_query(query), dim=-1)
            weights, gates = model.fusion.query_gate(query).softmax(1), 2 * model.fusion.product_gate(filled).sigmoid()
        for q, p in itertools.product(range(BATCH), range(BATCH)):
            score = 0.0
            for m in range(M):
                seen = gates[p, m] * (heads[q, m] @ vectors[p, m]) if mask[p, m] else expected[q, m]
                score += float(weights[q, m] * seen)
            if kind == "gated":
                score += float(weights[q, M] * gates[p, M] * (asked[q] @ joint[p]))
            assert float(found[q, p]) == pytest.approx(score, abs=1e-5)


def test_unknown_fusion() -> None:
    with pytest.raises(ConfigError, match="gated") as caught:
        build_fusion("gatd", 2, 8)
    assert "gatd" in caught.value.message
