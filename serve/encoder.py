"""What the encoder deployments share: model and featurizer of each generation, and one forward pass a batch."""

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from fuserank.errors import InputError
from fuserank.features.featurizer import Featurizer
from fuserank.retrieval.generation import read_manifest
from serve.envelope import Envelope, Result
from serve.worker import Worker, one_thread


class Encoding:
    """One modality of one generation."""

    def __init__(self, folder: Path, modality: str):
        """Raises ModelError: its model or featurizer cannot be loaded."""
        from fuserank.models.checkpoint import load_model

        self.featurizer = Featurizer.load(folder / "featurizer")
        self._model, self._modality = load_model(folder / "model", (modality,)), modality

    def encode(self, values: list[Any]) -> list[np.ndarray]:
        """Featurized values → float32 [D] each, in one forward pass."""
        import torch

        from fuserank.features.batch import collate

        with torch.inference_mode():
            inputs = collate(self._modality, values, pad_id=self.featurizer.settings.pad_id)
            return list(self._model.encode(self._modality, inputs).numpy())

    def encode_readable(self, values: list[Any]) -> list[np.ndarray | Exception]:
        """`encode`, with exceptions among the values passed through at their places."""
        readable = [value for value in values if not isinstance(value, Exception)]
        vectors = iter(self.encode(readable) if readable else [])
        return [value if isinstance(value, Exception) else next(vectors) for value in values]


class Encoder(Worker[Encoding | None]):
    """Query values of one modality → unit vectors [D]. A generation without the modality refuses them."""

    modality: ClassVar[str]

    def __init__(self, generation: Path, url: str | None = None):
        """See Worker."""
        one_thread()
        super().__init__(f"{self.modality}-encoder", generation, url)

    def open(self, folder: Path) -> Encoding | None:
        """None for a generation without the modality. Raises ModelError."""
        return Encoding(folder, self.modality) if self.modality in read_manifest(folder)["modalities"] else None

    async def products(self, envelopes: list[Envelope]) -> list[Result]:
        """As a call, for what products say or show: in the precision the generation's own vectors were made in."""
        return await self.run(envelopes, self._products)

    def _products(self, part: Encoding | None, payloads: list[Any]) -> Sequence[Any]:
        import torch

        from fuserank.training.encode import autocast

        with autocast(torch.device("cpu")):
            return self.work(part, payloads)

    def work(self, part: Encoding | None, payloads: list[Any]) -> Sequence[Any]:
        """One forward pass."""
        if part is None:
            refusal = InputError(f"This shop's model has no {self.modality} encoder.", f"Leave `{self.modality}` out.")
            return [refusal] * len(payloads)
        return self.vectors(part, payloads)

    @abstractmethod
    def vectors(self, part: Encoding, payloads: list[Any]) -> Sequence[Any]:
        """Query values → float32 [D] or an exception each."""
