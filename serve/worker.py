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
from pathlib import Path
from typing import Any, Generic, TypeVar

from fuserank.store.database import Database
from serve import watch
from serve.envelope import Envelope, Result, answer
from serve.held import Held

T = TypeVar("T")
Work = Callable[[T, list[Any]], Sequence[Any]]


class Worker(ABC, Generic[T]):
    """`await worker(envelopes)` → results in order, each by the generation that its envelope names."""

    loads = True  # a model: replicas of one machine do that in turns (turns.py)

    def __init__(self, name: str, generation: Path, url: str | None = None):
        """
        Args:
            generation: folder of the generation to answer from where the database names none.
            url: the database that says which generations to hold; None: this one, for good.

        Raises:
            FuserankError: the generation cannot be opened. StoreError: the database failed.
        """
        self.name = name
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        database = Database(url) if url else None
        self.held = Held(name, generation, self.open, database, close=self.close, ready=self.ready)

    async def __call__(self, envelopes: list[Envelope]) -> list[Result]:
        """One result per envelope; failures stay with the envelope at fault."""
        return await self.run(envelopes, self.work)

    async def run(self, envelopes: list[Envelope], work: Work) -> list[Result]:
        """One result per envelope, by `work` in the worker thread."""
        if not envelopes:
            return []
        begin = time.perf_counter()
        loop = asyncio.get_running_loop()
        results = await loop.run_in_executor(self._thread, self._answer, envelopes, work)
        seconds = time.perf_counter() - begin
        loop.call_soon(watch.batch, self.name, envelopes, results, seconds)  # once the answer is on its way
        return results

    def _answer(self, envelopes: list[Envelope], work: Work) -> list[Result]:
        results: dict[int, Result] = {}
        for generation in dict.fromkeys(envelope.generation for envelope in envelopes):
            members = [i for i, envelope in enumerate(envelopes) if envelope.generation == generation]
            held, work_here = generation in self.held, functools.partial(work, self.held.get(generation))
            answered = answer([envelopes[i] for i in members], generation if held else None, work_here)
            results.update(zip(members, answered, strict=True))
        return [results[i] for i in range(len(envelopes))]

    @abstractmethod
    def open(self, folder: Path) -> T:
        """Open a generation. Not in the worker thread. Raises FuserankError."""

    @abstractmethod
    def work(self, part: T, payloads: list[Any]) -> Sequence[Any]:
        """Payloads → one value, or one exception, each. Runs in the worker thread."""

    def close(self, part: T) -> None:
        """Let go of a generation that nobody asks any more."""

    def ready(self, part: T) -> bool:
        """Whether it has all that the live changes ask for."""
        return True

    def __del__(self):  # Serve calls it when the replica ends
        if hasattr(self, "held"):
            self.held.stop()


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
