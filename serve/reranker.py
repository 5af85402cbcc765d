"""Reranker: what is known of the candidates → their final scores. Reads the generations' model/reranker.safetensors."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fuserank.retrieval.generation import read_manifest
from fuserank.retrieval.rerank_inputs import RerankInputs
from serve.worker import Worker, one_thread

if TYPE_CHECKING:
    from fuserank.models.reranker import Reranker


class RerankerDeployment(Worker["Reranker"]):
    """Payload: RerankInputs of one request's candidates, or their features [K, F] alone where it does not attend.
    Value: float32 [K] scores."""

    def __init__(self, generation: Path, url: str | None = None):
        """See Worker."""
        one_thread()
        super().__init__("reranker", generation, url)

    def open(self, folder: Path) -> "Reranker":
        """Raises ModelError: it cannot be loaded."""
        from fuserank.models.checkpoint import load_reranker

        return load_reranker(folder / "model", tuple(read_manifest(folder)["modalities"]))

    def work(self, part: "Reranker", payloads: list[RerankInputs | np.ndarray]) -> list[np.ndarray]:
        """One forward pass a request: bits do not depend on what else is in the batch."""
        from fuserank.retrieval.rerank_inputs import rerank

        return [rerank(part, payload) for payload in payloads]
