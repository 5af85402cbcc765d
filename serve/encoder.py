"""What the encoder deployments share: the model, the featurizer and one forward pass a batch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from serve.envelope import Envelope, Result
from serve.worker import Worker, one_thread


class Encoder(Worker):
    """Query values of one modality → unit vectors [D]."""

    modality: ClassVar[str]

    def __init__(self, generation: Path):
        """
        Args:
            generation: the generation's folder.

        Raises:
            ModelError: its model or featurizer cannot be loaded.
        """
        one_thread()
        from fuserank.features.featurizer import Featurizer
        from fuserank.models.checkpoint import load_model

        super().__init__(generation.name, f"{self.modality}-encoder")
        self.featurizer = Featurizer.load(generation / "featurizer")
        self._model = load_model(generation / "model", (self.modality,))

    async def products(self, envelopes: list[Envelope]) -> list[Result]:
        """As a call, for what products say or show: in the precision the generation's own vectors were made in."""
        return await self.run(envelopes, self._products)

    def _products(self, payloads: list[Any]) -> Sequence[Any]:
        import torch

        from fuserank.training.encode import autocast

        with autocast(torch.device("cpu")):
            return self.work(payloads)

    def encode(self, values: list[Any]) -> list[np.ndarray]:
        """Featurized values → float32 [D] each, in one forward pass."""
        import torch

        from fuserank.features.batch import collate

        with torch.inference_mode():
            inputs = collate(self.modality, values, pad_id=self.featurizer.settings.pad_id)
            return list(self._model.encode(self.modality, inputs).numpy())

    def encode_readable(self, values: list[Any]) -> list[np.ndarray | Exception]:
        """`encode`, with exceptions among the values passed through at their places."""
        readable = [value for value in values if not isinstance(value, Exception)]
        vectors = iter(self.encode(readable) if readable else [])
        return [value if isinstance(value, Exception) else next(vectors) for value in values]
