"""Reranker: what is known of the candidates → their final scores. Reads the generation's model/reranker.safetensors."""

from pathlib import Path

import numpy as np

from fuserank.retrieval.rerank_inputs import RerankInputs
from serve.worker import Worker, one_thread


class RerankerDeployment(Worker):
    """Payload: RerankInputs of one request's candidates, or their features [K, F] alone where it does not attend.
    Value: float32 [K] scores."""

    def __init__(self, generation: Path, modalities: tuple[str, ...]):
        """
        Args:
            generation: the generation's folder.
            modalities: the model's, in order.

        Raises:
            ModelError: its reranker cannot be loaded.
        """
        one_thread()
        from fuserank.models.checkpoint import load_reranker

        super().__init__(generation.name, "reranker")
        self._model = load_reranker(generation / "model", modalities)

    def work(self, payloads: list[RerankInputs | np.ndarray]) -> list[np.ndarray]:
        """One forward pass a request: bits do not depend on what else is in the batch."""
        from fuserank.retrieval.rerank_inputs import rerank

        return [rerank(self._model, payload) for payload in payloads]
