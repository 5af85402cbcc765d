"""One HTML page that needs nothing else: tables, plots and pictures are inside it. Returns text, writes nothing.

The frame (style and the few lines of script that sort tables) is page.html beside this file. Everything that comes from
a shop is escaped.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib import resources
from pathlib import Path
from string import Template

from PIL import Image

from fuserank.evaluation.intervals import FEW

THUMBNAIL = 96  # pixels
LONG = 40  # characters from which the text of a cell is set in several lines


@dataclass(frozen=True)
class Hit:
    """One product of an example answer."""

    title: str
    grade: float
    image: str | None = None  # data URI


@dataclass(frozen=True)
class Example:
    """One query with the first hits of some systems."""

    query: str
    sides: dict[str, list[Hit]]
    image: str | None = None  # data URI of the query's own picture
    notes: str = ""


@dataclass
class Page:
    """Sections in order; `html` gives the whole page."""

    title: str
    parts: list[str] = field(default_factory=list)

    def heading(self, text: str) -> None:
        self.parts.append(f"<h2>{escape(text)}</h2>")

    def subheading(self, text: str) -> None:
        self.parts.append(f"<h3>{escape(text)}</h3>")

    def text(self, text: str, style: str = "") -> None:
        self.parts.append(f'<p class="{escape(style)}">{escape(text)}</p>')

    def table(self, columns: Sequence[str], rows: Sequence[Sequence["Cell | str"]], marked: Sequence[int] = ()) -> None:
        """A sortable table in a box of its own that scrolls sideways on small screens."""
        styles = [_words(*(row[place] for row in rows)) for place in range(len(columns))]
        head = "".join(
            f'<th scope="col"{style}><button type="button">{escape(column)}</button></th>'
            for style, column in zip(styles, columns, strict=True)
        )
        lines = []
        for place, row in enumerate(rows):
            style = ' class="served"' if place in marked else ""
            lines.append(f"<tr{style}>{''.join(map(_cell, row))}</tr>")
        body = "".join(lines)
        self.parts.append(
            f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
        )

    def plot(self, png: bytes, caption: str) -> None:
        source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
        words = escape(caption)
        self.parts.append(f'<figure><img src="{source}" alt="{words}"><figcaption>{words}</figcaption></figure>')

    def gallery(self, title: str, items: Sequence[tuple[str, str | None]]) -> None:
        """Captions, each with a picture (a data URI) or without."""
        shown = "".join(
            "<li>"
            + (f'<img src="{escape(image)}" alt="">' if image else '<div class="none">no picture</div>')
            + f"<span>{escape(caption)}</span></li>"
            for caption, image in items
        )
        found = f'<ol class="hits">{shown}</ol>' if items else '<p class="soft">none</p>'
        self.parts.append(f'<section class="example"><h3><span>{escape(title)}</span></h3>{found}</section>')

    def example(self, example: Example) -> None:
        picture = f'<img src="{escape(example.image)}" alt="picture of the query">' if example.image else ""
        notes = f'<small class="soft">{escape(example.notes)}</small>' if example.notes else ""
        sides = []
        for name, hits in example.sides.items():
            items = "".join(map(_hit, hits))
            found = f'<ol class="hits">{items}</ol>' if hits else '<p class="soft">nothing found</p>'
            sides.append(f"<div><h4>{escape(name)}</h4>{found}</div>")
        self.parts.append(
            f'<section class="example"><h3>{picture}<span>{escape(example.query)}</span>{notes}</h3>'
            f'<div class="sides">{"".join(sides)}</div></section>'
        )

    def html(self) -> str:
        page = resources.files("fuserank.evaluation").joinpath("page.html").read_text(encoding="utf-8")
        body = f"<h1>{escape(self.title)}</h1>\n" + "\n".join(self.parts)
        return Template(page).substitute(title=escape(self.title), body=body)


@dataclass(frozen=True)
class Cell:
    """A number with what is shown beside it; tables sort by `value`."""

    value: float | None
    text: str
    aside: str = ""
    style: str = ""


def figure(interval: Mapping, bounds: bool = True) -> Cell:
    """A mean, with its interval unless `bounds` is False."""
    if (none := _too_few(interval)) is not None:
        return none
    known = bounds and interval["low"] is not None
    aside = f" [{interval['low']:.3f}, {interval['high']:.3f}]" if known else ""
    return Cell(interval["mean"], f"{interval['mean']:.3f}", aside)


def difference(interval: Mapping) -> Cell:
    """A signed difference; coloured only where the interval excludes 0."""
    if (none := _too_few(interval)) is not None:
        return none
    style = ("up" if interval["mean"] > 0 else "down") if interval["excludes_zero"] else ""
    bounds = "" if interval["low"] is None else f" [{interval['low']:+.3f}, {interval['high']:+.3f}]"
    return Cell(interval["mean"], f"{interval['mean']:+.3f}", bounds, style)


def chance(difference: Mapping, key: str = "p_holm") -> Cell:
    """A p value."""
    if (none := _too_few(difference)) is not None:
        return none
    p = difference[key]
    return Cell(p, "–" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}")


def _too_few(interval: Mapping) -> Cell | None:
    """What stands in place of a figure that no or too few queries tell of."""
    if interval["mean"] is None:
        return Cell(None, "–")
    few = interval.get("n", FEW) < FEW
    return Cell(None, "too few", f" (n = {interval['n']})") if few else None


def thumbnail(path: Path | None, pixels: int = THUMBNAIL) -> str | None:
    """A picture file as a small JPEG data URI; None where there is none or it cannot be read."""
    if path is None:
        return None
    try:
        with Image.open(path) as picture:
            small = picture.convert("RGB")
            small.thumbnail((pixels, pixels))
    except OSError:
        return None
    out = io.BytesIO()
    small.save(out, format="JPEG", quality=82)
    return f"data:image/jpeg;base64,{base64.b64encode(out.getvalue()).decode()}"


def _words(*cells: Cell | str) -> str:
    """The style of a cell, or of the head of cells, that holds a sentence."""
    return ' class="words"' if any(isinstance(cell, str) and len(cell) > LONG for cell in cells) else ""


def _cell(cell: Cell | str) -> str:
    if isinstance(cell, str):
        return f'<td{_words(cell)} data-v="{escape(cell)}">{escape(cell)}</td>'
    value = "-1e9" if cell.value is None else f"{cell.value:.6g}"
    aside = f"<small>{escape(cell.aside)}</small>" if cell.aside else ""
    return f'<td data-v="{value}"><span class="{escape(cell.style)}">{escape(cell.text)}</span>{aside}</td>'


def _hit(hit: Hit) -> str:
    picture = f'<img src="{escape(hit.image)}" alt="">' if hit.image else '<div class="none">no picture</div>'
    grade = f"<b>grade {hit.grade:g}</b>"
    style = ' class="g"' if hit.grade > 0 else ""
    return f"<li{style}>{picture}<span>{escape(hit.title)}</span>{grade}</li>"
