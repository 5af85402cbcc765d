"""The services that `serving.py` compares, each in a process of its own; the same model work on the same generation.

    plain    one FastAPI process, one request at a time in the framework's threads
    batched  the same with micro-batches in one thread
    naive    Ray Serve as it comes: a deployment each for encoder, retriever, reranker; one request a hop
    ours     `fuserank serve`

Run by serving.py: `python benchmarks/serving_sides.py SIDE CONFIG PORT`; prints a line once it can be asked.
"""

import asyncio
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI

from serve import launcher

if __name__ == "__main__" and sys.argv[1] == "ours":  # before Ray Serve is imported, as `fuserank serve` sets them
    os.environ.update(launcher.environment())

from fuserank import config
from fuserank.retrieval.rerank_inputs import placed
from serve.app import generation_folder
from serve.batching import Batcher
from serve.documents import Documents
from serve.messages import Ask, Found, RetrieverQuery
from serve.reranker import RerankerDeployment
from serve.retriever import RetrieverDeployment
from serve.text_encoder import TextEncoder

SIDES = ("plain", "batched", "naive", "ours")
READY = "ready"


class Models:
    """What a search takes, in this process."""

    def __init__(self, folder: Path, candidates: int):
        self.encoder, self.reranker = TextEncoder(folder), RerankerDeployment(folder)
        self.retriever = RetrieverDeployment(folder, candidates)
        self.documents = Documents(folder / "products.parquet", None)

    def search(self, texts: list[str], limit: int) -> list[dict[str, Any]]:
        """One batch."""
        vectors = self.encoder.work(self.encoder.held.current(), texts)
        queries = [
            RetrieverQuery(Ask("search", limit), text, {"text": vector})
            for text, vector in zip(texts, vectors, strict=True)
        ]
        found: list[Any] = self.retriever.held.current().answer(queries)
        scores = self.reranker.work(self.reranker.held.current(), [one.features for one in found])
        return [shown(self.documents, one, final, limit) for one, final in zip(found, scores, strict=True)]


def shown(documents: Documents, found: Found, scores: np.ndarray, limit: int) -> dict[str, Any]:
    """An answer."""
    final = placed(found.score, scores)
    order = np.argsort(-final, kind="stable")[:limit]
    hits = documents.hits(found.rows[order].tolist())
    return {"hits": [hit | {"score": float(score)} for hit, score in zip(hits, final[order], strict=True)]}


def plain(folder: Path, candidates: int) -> FastAPI:
    """A function for each request."""
    app, models = FastAPI(), Models(folder, candidates)

    @app.post("/v1/search")
    def search(request: dict[str, Any]) -> dict[str, Any]:
        return models.search([request["text"]], request["limit"])[0]

    return app


def batched(folder: Path, candidates: int) -> FastAPI:
    """Requests gather while a batch is computed."""
    app, models, thread = FastAPI(), Models(folder, candidates), ThreadPoolExecutor(1)

    async def run(requests: list[dict[str, Any]], waiting: list[asyncio.Future[Any]]) -> list[dict[str, Any]]:
        texts, limit = [request["text"] for request in requests], requests[0]["limit"]
        return await asyncio.get_running_loop().run_in_executor(thread, models.search, texts, limit)

    batcher: Batcher[dict[str, Any], dict[str, Any]] = Batcher(run, 64, 512)

    @app.post("/v1/search")
    async def search(request: dict[str, Any]) -> dict[str, Any]:
        return await batcher.submit(request)

    return app


def naive(folder: Path, candidates: int) -> Any:
    """What one would write first with Ray Serve."""
    from ray import serve

    place = serve.deployment(ray_actor_options={"num_cpus": 0.2})  # else two cores hold two of the four

    @place
    class Encode:
        def __init__(self):
            self.encoder = TextEncoder(folder)

        def __call__(self, text: str) -> np.ndarray:
            return self.encoder.work(self.encoder.held.current(), [text])[0]

    @place
    class Retrieve:
        def __init__(self):
            self.retriever = RetrieverDeployment(folder, candidates)

        def __call__(self, text: str, vector: np.ndarray, limit: int) -> Any:
            query = RetrieverQuery(Ask("search", limit), text, {"text": vector})
            return self.retriever.held.current().answer([query])[0]

    @place
    class Rerank:
        def __init__(self):
            self.reranker = RerankerDeployment(folder)

        def __call__(self, features: np.ndarray) -> np.ndarray:
            return self.reranker.work(self.reranker.held.current(), [features])[0]

    app = FastAPI()

    @place
    @serve.ingress(app)
    class Gateway:
        def __init__(self, encode: Any, retrieve: Any, rerank: Any):
            self.encode, self.retrieve, self.rerank = encode, retrieve, rerank
            self.documents = Documents(folder / "products.parquet", None)

        @app.post("/v1/search")
        async def search(self, request: dict[str, Any]) -> dict[str, Any]:
            vector = await self.encode.remote(request["text"])
            found = await self.retrieve.remote(request["text"], vector, request["limit"])
            scores = await self.rerank.remote(found.features)
            return shown(self.documents, found, scores, request["limit"])

    return Gateway.bind(Encode.bind(), Retrieve.bind(), Rerank.bind())  # type: ignore[attr-defined]


def main() -> None:
    """Serve until the process is ended."""
    side, file, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
    experiment = config.update(config.load(file), {"serve.port": port})
    folder, candidates = generation_folder(experiment), experiment.index.candidates
    if side in ("plain", "batched"):
        import uvicorn

        app = (plain if side == "plain" else batched)(folder, candidates)
        server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning", access_log=False))
        threading.Thread(target=_announce, args=(server,), daemon=True).start()
        server.run()
        return
    from workloads import cluster, serve

    if side == "ours":
        with cluster.connect(launcher.environment()):
            running = serve.start(experiment)
            print(READY, flush=True)
            serve.wait()
            running.stop()
        return
    from ray import serve as ray_serve

    with cluster.connect():
        ray_serve.start(http_options={"host": "127.0.0.1", "port": port})
        ray_serve.run(naive(folder, candidates))
        print(READY, flush=True)
        serve.wait()
        ray_serve.shutdown()


def _announce(server: Any) -> None:
    while not server.started:
        threading.Event().wait(0.05)
    print(READY, flush=True)


if __name__ == "__main__":
    main()
