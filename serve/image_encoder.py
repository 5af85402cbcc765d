"""Image encoder: query pictures → unit vectors. Reads the generation's model/ and featurizer/."""

import numpy as np

from serve.encoder import Encoder
from serve.worker import attempt


class ImageEncoder(Encoder):
    """Payload: an encoded picture. Value: float32 [D], or MediaError for an unreadable one."""

    modality = "image"

    def work(self, payloads: list[bytes]) -> list[np.ndarray | Exception]:
        """Decode one by one, encode the readable ones in one forward pass."""
        return self.encode_readable([attempt(self.featurizer.image, payload) for payload in payloads])
