"""Who may ask the service and how much (`serve.guard`)."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from fuserank.config.section import Positive, Section, Weight

_ORIGIN = re.compile(r"https?://(\[[0-9A-Fa-f:]+\]|[A-Za-z0-9.-]+)(:\d{1,5})?")


def _origin(value: str) -> str:
    if value != "*" and not _ORIGIN.fullmatch(value):
        raise ValueError("is no origin; write scheme, host and port, such as https://shop.example")
    return value


class Guard(Section):
    """Keys, rates and limits. Keys themselves are in the database (`fuserank keys`)."""

    administration: bool = False  # /v1/admin/… for admin keys; else administration is the command line alone
    requests_per_second: Weight = 100.0  # of a key that has no rate of its own, at each gateway; 0: any
    burst: Annotated[int, Field(ge=1)] = 200  # requests that may come at once after a pause
    origins: list[Annotated[str, AfterValidator(_origin)]] = []  # of pages whose scripts may call (CORS); "*": any
    max_media_bytes: Positive = 6_000_000  # of one picture or sound, before base64
    max_image_pixels: Positive = 25_000_000
    max_audio_seconds: Annotated[float, Field(gt=0)] = 60.0
    max_items: Annotated[int, Field(gt=0, le=1000)] = 1000  # products, events or ids of one request
