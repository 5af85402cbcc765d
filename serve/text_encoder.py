"""Text encoder: query texts → unit vectors. Reads the generations' model/ and featurizer/."""

import numpy as np

from serve.encoder import Encoder, Encoding


class TextEncoder(Encoder):
    """Payload: the query's text. Value: float32 [D]."""

    modality = "text"

    def vectors(self, part: Encoding, payloads: list[str]) -> list[np.ndarray]:
        """All texts in one forward pass."""
        return part.encode(part.featurizer.text(payloads))
