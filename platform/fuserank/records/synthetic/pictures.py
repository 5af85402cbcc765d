"""Pictures of the generated shop: a silhouette (shape) filled with colour and pattern, with the parts its type has.

Drawn four times as large and scaled down, at a random place, size, angle and light, on a random background.
"""

import io
import math
import random

from PIL import Image, ImageDraw, ImageFilter

from fuserank.records.synthetic.taxonomy import COLOURS

SIZE = 64
_SCALE = 4


def _points(shape: str, radius: float) -> list[tuple[float, float]]:
    """The outline of a shape around (0, 0)."""
    if shape == "square":
        return [
            (-0.85 * radius, -0.85 * radius),
            (0.85 * radius, -0.85 * radius),
            (0.85 * radius, 0.85 * radius),
            (-0.85 * radius, 0.85 * radius),
        ]
    if shape == "triangular":
        return [(math.sin(a) * radius * 1.1, -math.cos(a) * radius * 1.1) for a in (0, 2.094, 4.189)]
    if shape == "hexagonal":
        return [(math.cos(a) * radius, math.sin(a) * radius) for a in (k * math.pi / 3 for k in range(6))]
    if shape == "star":
        spikes = [radius * 1.15 if k % 2 == 0 else radius * 0.5 for k in range(10)]
        return [(math.sin(k * math.pi / 5) * r, -math.cos(k * math.pi / 5) * r) for k, r in enumerate(spikes)]
    wide, high = (1.15, 0.7) if shape == "oval" else (0.95, 0.95)
    steps = [k * math.pi / 24 for k in range(48)]
    return [(math.cos(a) * radius * wide, math.sin(a) * radius * high) for a in steps]


def _pattern(
    pattern: str, side: int, ink: tuple[int, int, int], accent: tuple[int, int, int], draw_random: random.Random
) -> Image.Image:
    """A square of the pattern."""
    tile = Image.new("RGB", (side, side), ink)
    pen = ImageDraw.Draw(tile)
    step = side // draw_random.choice((6, 7))
    if pattern == "striped":
        for x in range(0, side, step):
            pen.rectangle((x, 0, x + step // 2, side), fill=accent)
    elif pattern == "dotted":
        for row, y in enumerate(range(step // 2, side, step)):
            for x in range(step // 2 + (row % 2) * step // 2, side, step):
                pen.ellipse((x - step // 4, y - step // 4, x + step // 4, y + step // 4), fill=accent)
    elif pattern == "checked":
        for row, y in enumerate(range(0, side, step)):
            for x in range((row % 2) * step, side, 2 * step):
                pen.rectangle((x, y, x + step, y + step), fill=accent)
    elif pattern == "zigzag":
        for y in range(-step, side + step, int(step * 1.4)):
            line = [(x, y + (step if (x // step) % 2 else 0)) for x in range(0, side + step, step)]
            pen.line(line, fill=accent, width=max(2, step // 3), joint="curve")
    elif pattern == "floral":
        for row, y in enumerate(range(step, side, int(step * 1.6))):
            for x in range(step + (row % 2) * step, side, 2 * step):
                for k in range(5):
                    cx, cy = x + math.cos(k * 1.2566) * step * 0.42, y + math.sin(k * 1.2566) * step * 0.42
                    pen.ellipse((cx - step * 0.3, cy - step * 0.3, cx + step * 0.3, cy + step * 0.3), fill=accent)
                pen.ellipse((x - step * 0.2, y - step * 0.2, x + step * 0.2, y + step * 0.2), fill=ink)
    return tile


def _parts(
    pen: ImageDraw.ImageDraw, kind: str, cx: float, cy: float, r: float, dark: tuple[int, int, int], before: bool
) -> None:
    """What a type has besides its silhouette, behind it (before) or on it."""
    thick = max(3, int(r * 0.11))
    if before:
        if kind == "bag":
            pen.arc((cx - r * 0.6, cy - r * 1.75, cx + r * 0.6, cy - r * 0.2), 180, 360, fill=dark, width=thick)
        elif kind == "lamp":
            pen.rectangle((cx - r * 0.1, cy + r * 0.4, cx + r * 0.1, cy + r * 1.5), fill=dark)
            pen.rectangle((cx - r * 0.6, cy + r * 1.4, cx + r * 0.6, cy + r * 1.55), fill=dark)
        elif kind == "pendant":
            pen.line(
                [(cx - r * 1.2, cy - r * 1.8), (cx, cy - r * 0.5), (cx + r * 1.2, cy - r * 1.8)],
                fill=dark,
                width=thick // 2,
            )
        elif kind == "vase":
            pen.rectangle((cx - r * 0.3, cy - r * 1.5, cx + r * 0.3, cy), fill=dark)
            pen.rectangle((cx - r * 0.5, cy - r * 1.6, cx + r * 0.5, cy - r * 1.4), fill=dark)
        elif kind == "tray":
            for side in (-1, 1):
                pen.arc(
                    (cx + side * r * 1.15 - r * 0.4, cy - r * 0.4, cx + side * r * 1.15 + r * 0.4, cy + r * 0.4),
                    0,
                    360,
                    fill=dark,
                    width=thick,
                )
        elif kind == "rug":
            for k in range(-5, 6):
                for side in (-1, 1):
                    pen.line(
                        [(cx + side * r * 0.5, cy + k * r * 0.16), (cx + side * r * 1.5, cy + k * r * 0.16)],
                        fill=dark,
                        width=thick // 3,
                    )
        elif kind == "tablecloth":
            pen.polygon(
                [(cx - r * 1.4, cy + r * 1.5), (cx - r * 0.8, cy), (cx + r * 0.8, cy), (cx + r * 1.4, cy + r * 1.5)],
                fill=dark,
            )
    elif kind == "clock":
        pen.line([(cx, cy), (cx, cy - r * 0.6)], fill=dark, width=thick)
        pen.line([(cx, cy), (cx + r * 0.4, cy + r * 0.15)], fill=dark, width=thick)
    elif kind == "plate":
        pen.ellipse((cx - r * 0.5, cy - r * 0.5, cx + r * 0.5, cy + r * 0.5), outline=dark, width=thick // 2)
    elif kind == "mirror":
        pen.polygon(
            [
                (cx - r * 0.35, cy - r * 0.45),
                (cx + r * 0.35, cy - r * 0.45),
                (cx + r * 0.35, cy + r * 0.45),
                (cx - r * 0.35, cy + r * 0.45),
            ],
            fill=(215, 230, 240),
        )
        pen.line([(cx - r * 0.2, cy + r * 0.3), (cx + r * 0.2, cy - r * 0.3)], fill=(255, 255, 255), width=thick)
    elif kind == "box":
        pen.line([(cx - r * 0.9, cy - r * 0.15), (cx + r * 0.9, cy - r * 0.15)], fill=dark, width=thick)
        pen.rectangle((cx - r * 0.15, cy - r * 0.3, cx + r * 0.15, cy + r * 0.1), fill=dark)
    elif kind == "cushion":
        for x, y in ((-0.55, -0.45), (0.55, -0.45), (-0.55, 0.45), (0.55, 0.45)):
            pen.ellipse((cx + x * r - thick, cy + y * r - thick, cx + x * r + thick, cy + y * r + thick), fill=dark)


def render(kind: str, colour: str, pattern: str, shape: str, draw_random: random.Random) -> Image.Image:
    """One picture, SIZE × SIZE RGB; the same values drawn with another random state give another picture."""
    side = SIZE * _SCALE
    jitter = [draw_random.randint(-14, 14) for _ in range(3)]
    red, green, blue = (max(0, min(255, c + j)) for c, j in zip(COLOURS[colour][0], jitter, strict=True))
    ink = (red, green, blue)
    accent = (35, 35, 40) if colour in ("white", "yellow") else (250, 248, 240)
    ground = draw_random.choice(((228, 226, 220), (205, 212, 218), (222, 214, 204), (196, 203, 196), (238, 236, 238)))
    picture = Image.new("RGB", (side, side), ground)
    cx, cy = side / 2 + draw_random.uniform(-0.07, 0.07) * side, side / 2 + draw_random.uniform(-0.05, 0.05) * side
    r = side * draw_random.uniform(0.25, 0.3)
    dark = (95, 85, 78)
    _parts(ImageDraw.Draw(picture), kind, cx, cy, r, dark, before=True)
    stencil = Image.new("L", (side, side), 0)
    ImageDraw.Draw(stencil).polygon([(cx + x, cy + y) for x, y in _points(shape, r)], fill=255)
    fill = _pattern(pattern, side, ink, accent, draw_random).rotate(draw_random.uniform(-12, 12))
    picture.paste(fill, (0, 0), stencil)
    outline = [(cx + x, cy + y) for x, y in _points(shape, r)]
    pen = ImageDraw.Draw(picture)
    pen.line([*outline, outline[0]], fill=(70, 64, 60), width=_SCALE)
    _parts(pen, kind, cx, cy, r, dark, before=False)
    picture = picture.rotate(draw_random.uniform(-10, 10), resample=Image.Resampling.BILINEAR, fillcolor=ground)
    small = picture.resize((SIZE, SIZE), Image.Resampling.LANCZOS)
    small = small.filter(ImageFilter.GaussianBlur(draw_random.uniform(0, 0.5)))
    light = draw_random.uniform(0.88, 1.1)
    return small.point([min(255, int(value * light)) for value in range(256)] * 3)


def encode(picture: Image.Image) -> bytes:
    """As JPEG, the same bytes for the same picture."""
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=90)
    return out.getvalue()
