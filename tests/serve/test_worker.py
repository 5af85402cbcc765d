"""Model work leaves the replica's event loop free, one batch at a time."""

import asyncio
import threading
import time
from pathlib import Path

from serve.envelope import Envelope
from serve.worker import Worker, attempt


class Sleeper(Worker[float]):
    """Blocks its thread as a forward pass would; notes the threads."""

    def __init__(self):
        super().__init__("sleeper", Path("g"))
        self.threads: set[str] = set()
        self.running = self.most = 0

    def open(self, folder: Path) -> float:
        return 0.1

    def work(self, part: float, payloads: list[int]) -> list[int]:
        self.running += 1
        self.most = max(self.most, self.running)
        self.threads.add(threading.current_thread().name)
        time.sleep(part)
        self.running -= 1
        return payloads


def test_the_loop_goes_on_while_the_thread_works():
    async def scenario():
        worker, ticks = Sleeper(), 0

        async def ticking():
            nonlocal ticks
            while True:
                await asyncio.sleep(0.005)
                ticks += 1

        ticker = asyncio.create_task(ticking())
        batches = [[Envelope(f"{i}", "g", time.time() + 60, i)] for i in range(3)]
        results = await asyncio.gather(*(worker(batch) for batch in batches))
        ticker.cancel()
        assert [result.value for (result,) in results] == [0, 1, 2]
        assert ticks >= 10  # a blocked loop would have ticked three times
        assert worker.most == 1
        assert worker.threads == {"sleeper_0"}
        assert await worker([]) == []

    asyncio.run(scenario())


def test_attempt_gives_the_exception():
    assert attempt(int, "7") == 7
    assert isinstance(attempt(int, "x"), ValueError)
