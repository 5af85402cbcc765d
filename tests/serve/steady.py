"""Asks a service at a steady rate, whatever becomes of the answers: an open loop, as many users are.

HTTP/1.1 by hand over asyncio, one connection a request, because a comfortable client would need a core of its own.
"""

import asyncio
import itertools
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Request = tuple[str, dict[str, Any]]
"""Path and body of a POST."""
TIMEOUT = 30.0


@dataclass(frozen=True)
class Outcome:
    """One request: when it was sent (time.monotonic()), how long it took, what came back."""

    sent: float
    seconds: float
    status: int  # 0: no answer
    answer: Any  # the JSON body; why there is no answer


class Steady:
    """`with Steady(port, rate, request) as steady:` asks in a thread of its own."""

    def __init__(self, port: int, rate: float, request: Callable[[int], Request]):
        """
        Args:
            rate: requests a second. request: of each number, from 0 on.
        """
        self.outcomes: list[Outcome] = []
        self._port, self._rate, self._request = port, rate, request
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._ask()), daemon=True)

    def __enter__(self) -> "Steady":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def between(self, begin: float, end: float) -> list[Outcome]:
        """Of the requests sent then; all of them have ended once the service answers or TIMEOUT has passed."""
        deadline = time.monotonic() + TIMEOUT
        while time.monotonic() < min(deadline, end + 1):
            time.sleep(0.05)
        return [one for one in list(self.outcomes) if begin <= one.sent < end]

    async def _ask(self) -> None:
        begin, running = time.monotonic(), set()
        for number in itertools.count():
            await asyncio.sleep(max(0.0, begin + number / self._rate - time.monotonic()))
            if self._stopped.is_set():
                break
            task = asyncio.create_task(self._one(*self._request(number)))
            running.add(task)
            task.add_done_callback(running.discard)
        await asyncio.gather(*running)

    async def _one(self, path: str, body: dict[str, Any]) -> None:
        sent = time.monotonic()
        try:
            status, answer = await asyncio.wait_for(post(self._port, path, body), TIMEOUT)
        except (OSError, ValueError, IndexError, TimeoutError) as error:
            status, answer = 0, f"{type(error).__name__}: {error}"
        self.outcomes.append(Outcome(sent, time.monotonic() - sent, status, answer))


async def post(port: int, path: str, body: Any) -> tuple[int, Any]:
    """Status and JSON, or the text where it is none. Raises OSError, ValueError, IndexError: no whole answer came."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        data = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
        whole = await reader.read()
    finally:
        writer.close()
    head, _, rest = whole.partition(b"\r\n\r\n")
    status = int(head.split()[1])
    if b"transfer-encoding: chunked" in head.lower():
        parts = []
        while size := int(rest.split(b"\r\n", 1)[0], 16):
            rest = rest.split(b"\r\n", 1)[1]
            parts.append(rest[:size])
            rest = rest[size + 2 :]
        rest = b"".join(parts)
    try:
        return status, json.loads(rest)
    except json.JSONDecodeError:
        return status, rest[:200].decode("latin-1")
