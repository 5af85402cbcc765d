"""Loads a search service over loopback: c connections, each asks again as soon as it has its answer.

HTTP/1.1 by hand over asyncio streams, because on two cores a comfortable client would take what it measures.
"""

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Load:
    """What one run saw."""

    requests: int
    failed: int  # answers that are not 200
    seconds: float
    p50_ms: float
    p99_ms: float

    @property
    def per_second(self) -> float:
        return (self.requests - self.failed) / self.seconds


def load(port: int, texts: Iterator[str], connections: int, seconds: float) -> Load:
    """Ask for `seconds`. texts: never the same twice."""
    return asyncio.run(_load(port, texts, connections, seconds))


def ask(port: int, text: str) -> list[tuple[str, float]]:
    """One answer: ids and scores."""

    async def one() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        status, body = await exchange(reader, writer, "/v1/search", {"text": text, "limit": 10})
        writer.close()
        if status != 200:
            raise RuntimeError(f"status {status}: {body[:300]!r}")
        return body

    return [(hit["product_id"], hit["score"]) for hit in json.loads(asyncio.run(one()))["hits"]]


async def _load(port: int, texts: Iterator[str], connections: int, seconds: float) -> Load:
    times: list[float] = []
    failed = 0
    begin = time.perf_counter()

    async def client() -> None:
        nonlocal failed
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (sent := time.perf_counter()) < begin + seconds:
            status, _ = await exchange(reader, writer, "/v1/search", {"text": next(texts), "limit": 10})
            times.append(time.perf_counter() - sent)
            failed += status != 200
        writer.close()

    await asyncio.gather(*(client() for _ in range(connections)))
    took = time.perf_counter() - begin
    p50, p99 = np.percentile(times, (50, 99)) * 1000
    return Load(len(times), failed, took, float(p50), float(p99))


async def exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str, content: object
) -> tuple[int, bytes]:
    """Post JSON over an open connection: status and body."""
    body = json.dumps(content).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
    if "content-length" in headers:
        return int(lines[0].split()[1]), await reader.readexactly(int(headers["content-length"]))
    parts = []
    while size := int((await reader.readline()).strip(), 16):  # chunked
        parts.append(await reader.readexactly(size + 2))
    await reader.readline()
    return int(lines[0].split()[1]), b"".join(parts)
