"""The base of every model deployment: list in, list out, all model work in one thread of the replica.

With Ray's throughput flags user code runs on the replica's event loop, so torch, faiss or SQL called there would stall
health checks. `work` is called in the replica's one worker thread instead.
"""

import asyncio
import functools
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from serve import metrics, watch
from serve.envelope import Envelope, Result, answer


class Worker(ABC):
    """`await worker(envelopes)` → results in order."""

    def __init__(self, generation: str, name: str):
        self.generation, self.name = generation, name
        metrics.record("fuserank_generation_info", 1, deployment=name, generation=generation)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)

    async def __call__(self, envelopes: list[Envelope]) -> list[Result]:
        """One result per envelope; failures stay with the envelope at fault."""
        return await self.run(envelopes, self.work)

    async def run(self, envelopes: list[Envelope], work: Callable[[list[Any]], Sequence[Any]]) -> list[Result]:
        """One result per envelope, by `work` in the worker thread."""
        if not envelopes:
            return []
        begin = time.perf_counter()
        task = functools.partial(answer, envelopes, self.generation, work)
        results = await asyncio.get_running_loop().run_in_executor(self._thread, task)
        watch.batch(self.name, envelopes, results, time.perf_counter() - begin)
        return results

    @abstractmethod
    def work(self, payloads: list[Any]) -> list[Any]:
        """Payloads → one value, or one exception, each. Runs in the worker thread."""


def one_thread() -> None:
    """Keep torch to one thread in this replica: its worker thread is the only one that computes."""
    import torch  # here: the gateway never needs it, and importing it costs seconds

    torch.set_num_threads(1)


def attempt(work: Any, payload: Any) -> Any:
    """`work(payload)`, or the exception it raised, for payloads that must be prepared one by one."""
    try:
        return work(payload)
    except Exception as error:
        return error
