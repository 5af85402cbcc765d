"""How large a picture and how long a sound may be, by what their headers say: nothing is decoded to find out, so a
decompression bomb is refused before it goes off. Reads bytes, writes nothing."""

import io
import warnings
from dataclasses import dataclass

from fuserank.errors import MediaError


@dataclass(frozen=True)
class MediaLimits:
    """Limits of one picture or sound that is sent."""

    file_bytes: int = 6_000_000  # as a file, not as base64
    pixels: int = 25_000_000
    seconds: float = 60.0

    def check(self, modality: str, data: bytes) -> None:
        """Raises MediaError for what is too large. What cannot be read passes: whoever decodes it says why.

        Args:
            modality: `image` or `audio`.
        """
        if len(data) > self.file_bytes:
            raise MediaError(f"{modality}: {len(data)} bytes, limit {self.file_bytes}", "Send a smaller file.")
        if modality == "image":
            width, height = self._size(data)
            if width * height > self.pixels:
                raise self._too_large(f"{width}×{height}")
        elif modality == "audio" and (seconds := _seconds(data)) > self.seconds:
            raise MediaError(f"sound too long: {seconds:.1f} s, limit {self.seconds:g}", "Send the part that matters.")

    def _too_large(self, size: str) -> MediaError:
        what = f"picture too large: {size} pixels, limit {self.pixels}"
        return MediaError(what, "Scale it down; the model sees it much smaller anyway.")

    def _size(self, data: bytes) -> tuple[int, int]:
        """Width and height in pixels, (0, 0) for what cannot be read."""
        from PIL import Image

        from fuserank.features.image import FORMATS

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow warns at a limit of its own
                with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
                    return picture.size
        except Image.DecompressionBombError:
            raise self._too_large(f"more than {2 * (Image.MAX_IMAGE_PIXELS or 0)}") from None
        except Exception:  # its plugins raise nearly anything on damaged bytes
            return 0, 0


def _seconds(data: bytes) -> float:
    """The length in seconds, 0 for what cannot be read."""
    import soundfile

    try:
        with soundfile.SoundFile(io.BytesIO(data)) as sound:
            return sound.frames / sound.samplerate if sound.samplerate > 0 else 0.0
    except Exception:
        return 0.0
