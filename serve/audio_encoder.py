"""Audio encoder: spoken queries → unit vectors. Reads the generations' model/ and featurizer/."""

import numpy as np

from serve.encoder import Encoder, Encoding
from serve.worker import attempt


class AudioEncoder(Encoder):
    """Payload: an encoded sound. Value: float32 [D], or MediaError for an unreadable one."""

    modality = "audio"

    def vectors(self, part: Encoding, payloads: list[bytes]) -> list[np.ndarray | Exception]:
        """Decode one by one, encode the readable ones in one forward pass."""
        return part.encode_readable([attempt(part.featurizer.audio, payload) for payload in payloads])
