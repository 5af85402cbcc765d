"""The recommender looks back only, knows order, type and gaps, and is untouched by padding."""

import pytest
import torch
from torch import Tensor

from fuserank.models.recommender import GAPS, UNKNOWN, Recommender
from fuserank.records.schema import EVENT_TYPES

USERS, EVENTS, WIDTH = 3, 6, 16


@pytest.fixture
def recommender() -> Recommender:
    torch.manual_seed(0)
    return Recommender(12, WIDTH, EVENTS, layers=2, heads=2, dropout=0.1, products=5).eval()


def history() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    items = torch.randn(USERS, EVENTS, WIDTH, generator=generator)
    types = torch.randint(0, len(EVENT_TYPES), (USERS, EVENTS), generator=generator)
    gaps = 10 ** (6 * torch.rand(USERS, EVENTS, generator=generator))
    mask = torch.arange(EVENTS) < torch.tensor([6, 3, 1])[:, None]
    return items, types, gaps, mask


def test_the_future_is_unseen(recommender: Recommender) -> None:
    items, types, gaps, _ = history()
    mask = torch.ones(USERS, EVENTS, dtype=torch.bool)
    before = recommender(items, types, gaps, mask)
    for place in range(1, EVENTS):
        later = items.clone()
        later[:, place:] += torch.linspace(-1, 1, WIDTH)  # a shift of all alike would be normalised away
        after = recommender(later, types.roll(1, 0).where(torch.arange(EVENTS) >= place, types), gaps, mask)
        torch.testing.assert_close(after[:, :place], before[:, :place], atol=1e-5, rtol=1e-4)
        assert ((after[:, place:] - before[:, place:]).abs().amax(2) > 1e-4).all()


def test_padding_is_unseen(recommender: Recommender) -> None:
    items, types, gaps, mask = history()
    users = recommender.user_vectors(items, types, gaps, mask)
    spoilt = recommender.user_vectors(items.masked_fill(~mask[..., None], 9.0), types, gaps, mask)
    torch.testing.assert_close(users, spoilt)
    for row, count in enumerate((6, 3, 1)):
        short = (side[row : row + 1, :count] for side in (items, types, gaps, mask))
        torch.testing.assert_close(recommender.user_vectors(*short)[0], users[row], atol=1e-5, rtol=1e-4)


def test_order_type_and_gaps_matter(recommender: Recommender) -> None:
    items, types, gaps, mask = history()
    users = recommender.user_vectors(items, types, gaps, mask)
    others = [
        recommender.user_vectors(items[:, [1, 0, 2, 3, 4, 5]], types, gaps, mask)[0],
        recommender.user_vectors(items, (types + 1) % len(EVENT_TYPES), gaps, mask)[0],
        recommender.user_vectors(items, types, gaps * 1000, mask)[0],
    ]
    assert all((other - users[0]).abs().max() > 1e-4 for other in others)
    within = torch.full_like(gaps, (GAPS[1] + GAPS[2]) / 2)  # the same bucket is the same to it
    same = [recommender.user_vectors(items, types, gaps, mask) for gaps in (within, within + 1)]
    assert torch.equal(*same)


def test_no_event_is_no_user(recommender: Recommender) -> None:
    items, types, gaps, mask = history()
    mask[1] = False
    users = recommender.user_vectors(items, types, gaps, mask)
    assert (users[1] == 0).all()
    assert users.isfinite().all()
    assert (users[0] != 0).any()


def test_a_product_is_its_content_and_its_id(recommender: Recommender) -> None:
    vectors = torch.randn(7, 12, generator=torch.Generator().manual_seed(2))
    assert recommender.ids is not None
    content = vectors @ recommender.item.weight.T + recommender.item.bias
    whole = torch.cat([content[:5] + recommender.ids.weight, content[5:]])  # two came after training
    torch.testing.assert_close(recommender.table(vectors), whole / whole.norm(dim=1, keepdim=True))
    picked = recommender.table(vectors[:3], torch.tensor([4, UNKNOWN, 9]))
    whole = content[:3] + torch.stack([recommender.ids.weight[4], *torch.zeros(2, WIDTH)])
    torch.testing.assert_close(picked, whole / whole.norm(dim=1, keepdim=True))


def test_without_ids_content_stands_alone() -> None:
    recommender = Recommender(12, WIDTH, EVENTS, layers=1, heads=2, dropout=0.0)
    vectors = torch.randn(7, 12)
    assert recommender.ids is None
    torch.testing.assert_close(recommender.table(vectors), torch.nn.functional.normalize(recommender.item(vectors)))
