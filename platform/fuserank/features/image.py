"""One encoded picture → uint8 [H, W, 3] RGB. Reads bytes, writes nothing.

JPEG, PNG, GIF, WebP, BMP and TIFF; alpha over white, CMYK, 16-bit, palettes and EXIF orientation resolved; the first
frame of an animation. The pixel count is checked before anything is decoded.
"""

import io
import warnings

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from fuserank.errors import MediaError

FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF")  # nothing that runs other programs (EPS) or is not a picture


def decode_image(data: bytes, size: tuple[int, int], max_pixels: int) -> np.ndarray:
    """Decode and resize (antialiased bilinear, the aspect follows `size`).

    Args:
        data: the encoded picture.
        size: height and width of the result, in pixels.
        max_pixels: larger pictures are refused.

    Returns:
        uint8 [H, W, 3], RGB.

    Raises:
        MediaError: "unreadable picture: …" or "picture too large: …".
    """
    height, width = size
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's bomb warning; max_pixels below is the limit
            with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
                pixels = picture.width * picture.height
                if pixels > max_pixels:
                    raise MediaError(f"picture too large: {picture.width}×{picture.height} pixels, limit {max_pixels}")
                picture.draft("RGB", (2 * width, 2 * height))  # JPEG decodes large pictures at a fraction of their size
                upright = _rgb(ImageOps.exif_transpose(picture))
                return np.asarray(upright.resize((width, height), Image.Resampling.BILINEAR))
    except MediaError:
        raise
    except UnidentifiedImageError:  # its message holds the stream's address, which differs from run to run
        raise MediaError(f"unreadable picture: not one of {', '.join(FORMATS)}") from None
    except Image.DecompressionBombError as error:
        raise MediaError(f"picture too large: {error}") from None
    except MemoryError:
        raise MediaError("picture too large: out of memory") from None
    except Exception as error:  # Pillow's plugins raise nearly anything on damaged bytes
        raise MediaError(f"unreadable picture: {type(error).__name__} {error}") from None


def _rgb(picture: Image.Image) -> Image.Image:
    if picture.mode == "RGB":
        return picture
    if picture.mode.startswith("I"):  # 16 bits a pixel, some decoders widen to 32
        values = np.asarray(picture, dtype=np.float64)
        return Image.fromarray(np.clip(values / 257, 0, 255).astype(np.uint8)).convert("RGB")
    if picture.mode == "F":
        values = np.nan_to_num(np.asarray(picture, dtype=np.float64))
        scale = 255 if values.max() <= 1 else 1
        return Image.fromarray(np.clip(values * scale, 0, 255).astype(np.uint8)).convert("RGB")
    if picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info:
        layered = picture.convert("RGBA")
        ground = Image.new("RGBA", layered.size, (255, 255, 255, 255))
        return Image.alpha_composite(ground, layered).convert("RGB")
    return picture.convert("RGB")
