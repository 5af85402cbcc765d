"""Micro-batches: their sizes under concurrency, isolation of failures, the queue limit, cancelled callers."""

import asyncio

import pytest

from serve.batching import Batcher, QueueFullError


class Slow:
    """Doubles numbers in a little while; notes the batches."""

    def __init__(self, seconds: float = 0.02):
        self.seconds = seconds
        self.batches: list[list[int]] = []
        self.running = 0
        self.most = 0

    async def __call__(self, items: list[int], waiting: list[asyncio.Future[int]]) -> list[int]:
        self.batches.append(items)
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(self.seconds)
        self.running -= 1
        return [2 * item for item in items]


def test_an_idle_chain_answers_at_once_and_alone():
    async def scenario():
        slow = Slow(0)
        batcher = Batcher(slow, max_batch=8, queue=100)
        assert [await batcher.submit(i) for i in range(5)] == [0, 2, 4, 6, 8]
        assert slow.batches == [[0], [1], [2], [3], [4]]

    asyncio.run(scenario())


def test_requests_of_one_turn_leave_together_and_later_ones_gather():
    async def scenario():
        slow = Slow()
        batcher = Batcher(slow, max_batch=64, queue=1000)
        first = [asyncio.create_task(batcher.submit(i)) for i in range(10)]
        await asyncio.sleep(0.005)
        later = []
        for i in range(10, 19):  # nine stragglers: fewer than the batch in flight, so they wait for it
            later.append(asyncio.create_task(batcher.submit(i)))
            await asyncio.sleep(0)
        assert await asyncio.gather(*first, *later) == [2 * i for i in range(19)]
        assert [len(batch) for batch in slow.batches] == [10, 9]

    asyncio.run(scenario())


def test_a_second_batch_leaves_when_it_is_as_large_as_the_first_but_never_a_third():
    async def scenario():
        slow = Slow()
        batcher = Batcher(slow, max_batch=4, queue=1000, max_in_flight=2)
        answers = await asyncio.gather(*(batcher.submit(i) for i in range(40)))
        assert answers == [2 * i for i in range(40)]
        assert max(len(batch) for batch in slow.batches) == 4
        assert slow.most == 2

    asyncio.run(scenario())


def test_busy_clients_get_large_batches():
    async def scenario():
        slow = Slow(0.01)
        batcher = Batcher(slow, max_batch=64, queue=1000)

        async def client():
            for i in range(10):
                assert await batcher.submit(i) == 2 * i

        await asyncio.gather(*(client() for _ in range(32)))
        assert sum(batcher.sizes) == 320
        assert sum(batcher.sizes) / len(batcher.sizes) > 10

    asyncio.run(scenario())


def test_a_failed_batch_fails_only_its_own_items():
    async def run(items: list[int], waiting: list[asyncio.Future[int]]) -> list[int]:
        await asyncio.sleep(0.005)
        if 0 in items:
            raise ValueError("zero")
        return items

    async def scenario():
        batcher = Batcher(run, max_batch=1, queue=10)
        results = await asyncio.gather(*(batcher.submit(i) for i in range(4)), return_exceptions=True)
        assert isinstance(results[0], ValueError)
        assert results[1:] == [1, 2, 3]

    asyncio.run(scenario())


def test_too_few_answers_are_an_error_for_all_of_them():
    async def run(items: list[int], waiting: list[asyncio.Future[int]]) -> list[int]:
        return items[1:]

    async def scenario():
        with pytest.raises(RuntimeError, match="batch of 1 came back with 0"):
            await Batcher(run, 8, 10).submit(1)

    asyncio.run(scenario())


def test_a_full_queue_refuses():
    async def scenario():
        batcher = Batcher(Slow(), max_batch=2, queue=3, max_in_flight=1)
        flying = [asyncio.create_task(batcher.submit(i)) for i in range(2)]
        await asyncio.sleep(0.005)
        waiting = [asyncio.create_task(batcher.submit(i)) for i in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(QueueFullError):
            await batcher.submit(9)
        assert await asyncio.gather(*flying, *waiting) == [0, 2, 0, 2, 4]

    asyncio.run(scenario())


def test_a_cancelled_caller_is_not_sent():
    async def scenario():
        slow = Slow()
        batcher = Batcher(slow, max_batch=8, queue=10, max_in_flight=1)
        first = asyncio.create_task(batcher.submit(1))
        await asyncio.sleep(0.005)
        gone, stays = asyncio.create_task(batcher.submit(2)), asyncio.create_task(batcher.submit(3))
        await asyncio.sleep(0)
        gone.cancel()
        assert await asyncio.gather(first, stays) == [2, 6]
        assert slow.batches == [[1], [3]]

    asyncio.run(scenario())


def test_drain_waits_for_everything():
    async def scenario():
        slow = Slow()
        batcher = Batcher(slow, max_batch=2, queue=10, max_in_flight=1)
        tasks = [asyncio.create_task(batcher.submit(i)) for i in range(6)]
        await asyncio.sleep(0)
        await batcher.drain()
        assert batcher.waiting == 0
        assert sum(len(batch) for batch in slow.batches) == 6
        await asyncio.gather(*tasks)

    asyncio.run(scenario())


def test_an_answer_set_early_does_not_wait_for_its_neighbours():
    async def scenario():
        async def run(items: list[int], waiting: list[asyncio.Future[int]]) -> list[int]:
            waiting[0].set_result(-items[0])
            await asyncio.sleep(0.2)
            return items

        batcher = Batcher(run, max_batch=2, queue=10)
        early, late = (asyncio.create_task(batcher.submit(i)) for i in (1, 2))
        assert await asyncio.wait_for(early, 0.1) == -1
        assert not late.done()
        assert await late == 2

    asyncio.run(scenario())


def test_those_that_cannot_wait_leave_beside_slow_batches_and_only_so_many():
    async def scenario():
        slow = Slow(0.3)
        batcher = Batcher(slow, max_batch=4, queue=100, max_in_flight=1)
        patient = [asyncio.create_task(batcher.submit(i)) for i in range(4)]
        await asyncio.sleep(0.01)
        later = asyncio.create_task(batcher.submit(4))
        hurried = [asyncio.create_task(batcher.submit(i, 0.05)) for i in (5, 6)]
        await asyncio.sleep(0.1)
        assert slow.batches == [[0, 1, 2, 3], [5, 6]]
        third = asyncio.create_task(batcher.submit(7, 0.01))
        await asyncio.sleep(0.05)
        assert slow.batches == [[0, 1, 2, 3], [5, 6]], "twice max_in_flight"
        assert await asyncio.gather(*patient, *hurried, later, third) == [0, 2, 4, 6, 10, 12, 8, 14]
        assert slow.most == 2

    asyncio.run(scenario())


def test_who_would_be_late_is_refused_and_the_others_are_in_time():
    """One item in 20 ms, asked for five times as often: of those that are taken none takes much longer than it can."""

    async def scenario():
        batcher = Batcher(Slow(0.02), max_batch=1, queue=1000, max_in_flight=1)
        loop, took, refused = asyncio.get_running_loop(), [], []

        async def ask(number: int):
            begin = loop.time()
            try:
                await batcher.submit(number, within=0.3)
                took.append(loop.time() - begin)
            except QueueFullError:
                refused.append(number)

        asked = []
        for number in range(300):
            asked.append(asyncio.create_task(ask(number)))
            await asyncio.sleep(0.004)
        await asyncio.gather(*asked)
        assert len(took) > 40
        assert len(refused) > 150
        assert sum(seconds > 0.45 for seconds in took) < 0.1 * len(took), sorted(took)[-10:]
        assert batcher.wait == 0
        await batcher.submit(0, within=0.0)  # nobody waits: it is tried

    asyncio.run(scenario())
