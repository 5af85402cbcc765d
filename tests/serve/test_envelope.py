"""One request's failure, deadline or generation never touches its neighbours."""

import time

from fuserank.errors import FilterError, MediaError
from serve.envelope import EXPIRED, INTERNAL, UNAVAILABLE, Envelope, answer, failure


def envelopes(*payloads: object, deadline: float = 60, generation: str = "g") -> list[Envelope]:
    return [Envelope(f"r{i}", generation, time.time() + deadline, p) for i, p in enumerate(payloads)]


def test_values_keep_their_places():
    results = answer(envelopes(1, 2, 3), "g", lambda payloads: [10 * p for p in payloads])
    assert [(r.request_id, r.value, r.error) for r in results] == [("r0", 10, None), ("r1", 20, None), ("r2", 30, None)]


def test_an_exception_among_the_values_is_that_request_s_failure():
    results = answer(envelopes(1, 2), "g", lambda payloads: [payloads[0], MediaError("unreadable picture")])
    assert results[0].value == 1
    assert results[1].error is not None
    assert (results[1].error.status, results[1].error.message) == (422, "unreadable picture")


def test_when_the_whole_batch_raises_only_the_payload_at_fault_fails():
    calls = []

    def work(payloads: list[int]) -> list[float]:
        calls.append(len(payloads))
        return [1 / p for p in payloads]

    results = answer(envelopes(1, 0, 4), "g", work)
    assert [r.value for r in results] == [1, None, 0.25]
    assert results[1].error == INTERNAL
    assert calls == [3, 1, 1, 1]


def test_expired_and_foreign_generations_are_not_worked_on():
    seen = []

    def work(payloads: list[int]) -> list[int]:
        seen.extend(payloads)
        return payloads

    mixed = [*envelopes(1), *envelopes(2, deadline=-1), *envelopes(3, generation="old")]
    assert [r.error for r in answer(mixed, "g", work)] == [None, EXPIRED, UNAVAILABLE]
    assert seen == [1]


def test_only_our_own_words_are_shown():
    assert failure(KeyError("/etc/secret")) == INTERNAL
    shown = failure(FilterError("no field `prize`.", "Did you mean `price`?"))
    assert (shown.status, shown.code, shown.hint) == (400, "bad_filter", "Did you mean `price`?")
