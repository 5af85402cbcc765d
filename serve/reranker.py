"""Reranker: the candidates' features → their final scores. Reads the generation's model/reranker.safetensors."""

from pathlib import Path

import numpy as np

from serve.worker import Worker, one_thread


class RerankerDeployment(Worker):
    """Payload: float32 [K, F] features of one request's candidates. Value: float32 [K] scores."""

    def __init__(self, generation: Path, modalities: tuple[str, ...]):
        """
        Args:
            generation: the generation's folder.
            modalities: the model's, in order.

        Raises:
            ModelError: its reranker cannot be loaded.
        """
        one_thread()
        from fuserank.models.checkpoint import load_weights
        from fuserank.models.reranker import Reranker, feature_names

        super().__init__(generation.name, "reranker")
        self._model = Reranker(len(feature_names(modalities))).eval()
        load_weights(self._model, generation / "model" / "reranker.safetensors")

    def work(self, payloads: list[np.ndarray]) -> list[np.ndarray]:
        """All candidates of all requests in one forward pass; a candidate's score does not depend on its neighbours."""
        import torch

        with torch.inference_mode():
            scores = self._model(torch.from_numpy(np.concatenate(payloads)[None]))[0].numpy()
        return np.split(scores, np.cumsum([len(features) for features in payloads])[:-1])
