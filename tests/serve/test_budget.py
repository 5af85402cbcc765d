"""What is left out for want of time: estimates of recent calls, and the order in which a request does without."""

import itertools
from typing import Any

import numpy as np
import pytest

from serve.budget import HISTORY, StageTimes, fitting, reserve, whole
from serve.messages import Ask


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_estimate_is_a_high_quantile_of_recent_calls():
    times = StageTimes(share=0.9)
    assert times.expect("rerank") == 0
    drawn = np.random.default_rng(0).exponential(0.01, 100)
    for seconds in drawn:
        times.record("rerank", float(seconds))
    assert times.expect("rerank") == np.quantile(drawn, 0.9, method="higher")
    assert times.expect("encode") == 0


def test_calls_age_out_so_that_a_stage_left_out_is_tried_again():
    clock = Clock()
    times = StageTimes(kept=10, seconds=5, clock=clock)
    times.record("rerank", 3.0)
    clock.now += 4
    times.record("rerank", 1.0)
    assert times.expect("rerank") == 3.0
    clock.now += 2
    assert times.expect("rerank") == 1.0
    clock.now += 4
    assert times.expect("rerank") == 0
    for _ in range(20):
        times.record("rerank", 2.0)
    assert len(times._calls["rerank"]) == 10


EXPECTED = {"text": 0.01, "image": 0.2, "audio": 0.1, HISTORY: 0.005, "retrieve": 0.02, "rerank": 0.03, "render": 0.001}
MIXED: dict[str, Any] = {"media": {"text": "x", "image": b"i", "audio": b"a"}, "user_id": "u"}


@pytest.mark.parametrize(
    ("seconds", "left_out", "needs"),
    [
        (0.25, (), {"text", "image", "audio", HISTORY}),
        (0.249, ("reranker",), {"text", "image", "audio"}),
        (0.219, ("reranker", "image"), {"text", "audio"}),
        (0.119, ("reranker", "image", "audio"), {"text"}),
        (0.029, ("reranker", "image", "audio", "text"), set()),
        (0.001, ("reranker", "image", "audio", "text"), set()),
    ],
)
def test_first_the_reranker_then_the_slowest_parts(seconds: float, left_out: tuple, needs: set):
    plan = fitting(Ask("search", 10, **MIXED), seconds, EXPECTED)
    assert (plan.left_out, plan.needs, plan.rerank) == (left_out, needs, not left_out)


def test_something_to_search_by_always_remains():
    media = {"text": "x", "image": b"i", "audio": b"a"}
    for size in (1, 2, 3):
        for present in itertools.combinations(media, size):
            for unweighed in itertools.chain.from_iterable(itertools.combinations(present, n) for n in range(size)):
                ask = Ask("search", 10, {m: media[m] for m in present}, dict.fromkeys(unweighed, 0.0))
                plan = fitting(ask, 0.0, EXPECTED)
                searched = plan.needs - set(unweighed)
                assert searched or ("text" in present and "text" not in unweighed)
                assert set(plan.left_out) == {"reranker", *present} - plan.needs


def test_a_picture_alone_is_waited_for_and_an_order_of_its_own_is_not_reranked():
    assert fitting(Ask("search", 10, {"image": b"i"}), 0.0, EXPECTED).left_out == ("reranker",)
    assert fitting(Ask("search", 10, {"text": "x"}, sort=(("price", False),)), 0.0, EXPECTED).left_out == ("text",)
    assert fitting(Ask("recommend", 10, user_id="u"), 0.0, EXPECTED).left_out == (HISTORY,)
    assert fitting(Ask("similar", 10, product_ids=("p",)), 0.0, EXPECTED) == whole(Ask("similar", 10))


def test_the_reserve_is_small_beside_a_short_deadline():
    assert reserve(0.2, {}) == 0.03
    assert reserve(1.0, {}) == 0.05
    assert reserve(10.0, {}) == 0.5
    assert reserve(1.0, {"render": 0.05, "log": 0.02}) == pytest.approx(0.07)
    assert reserve(0.02, {"render": 0.05}) == 0.005
    assert reserve(-1.0, {}) == 0
