"""Image encoder: query pictures → unit vectors. Reads the generations' model/ and featurizer/."""

import numpy as np

from serve.encoder import Encoder, Encoding
from serve.worker import attempt


class ImageEncoder(Encoder):
    """Payload: an encoded picture. Value: float32 [D], or MediaError for an unreadable one."""

    modality = "image"

    def vectors(self, part: Encoding, payloads: list[bytes]) -> list[np.ndarray | Exception]:
        """Decode one by one, encode the readable ones in one forward pass."""
        return part.encode_readable([attempt(part.featurizer.image, payload) for payload in payloads])
