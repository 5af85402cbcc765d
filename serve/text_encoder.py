"""Text encoder: query texts → unit vectors. Reads the generation's model/ and featurizer/."""

import numpy as np

from serve.encoder import Encoder


class TextEncoder(Encoder):
    """Payload: the query's text. Value: float32 [D]."""

    modality = "text"

    def work(self, payloads: list[str]) -> list[np.ndarray]:
        """All texts in one forward pass."""
        return self.encode(self.featurizer.text(payloads))
