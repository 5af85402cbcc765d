"""Products of the generated shop: true attributes first, then what the shop publishes of them."""

import random
from dataclasses import dataclass

from fuserank.records.synthetic.taxonomy import (
    BASE_PRICE,
    BRANDS,
    CATEGORIES,
    COLOURS,
    MATERIALS,
    PATTERNS,
    SHAPES,
    TIERS,
    TYPES,
    words,
)

LACKING = 0.2
"""Share of products that lack one of text, picture and price, a third each."""
SPOKEN = 0.35
"""Share of products with a spoken name."""

OPENINGS = (
    "Your {thing} for every day",
    "Our {thing} of the season",
    "The {thing} to keep",
    "This {thing} is made with care",
)
MADE = ("with a {material} finish", "in fine {material} quality", "from our {material} line", "in a {material} version")
CLOSINGS = ("Wipe clean.", "Ships in two days.", "Designed in the north.", "A good gift.", "Two years of warranty.")


@dataclass(frozen=True)
class Product:
    """One product: its truth, and what can be seen of it."""

    product_id: str
    type: str
    colour: str
    pattern: str
    shape: str
    material: str
    tier: str
    price: float | None  # None: the shop does not publish it
    true_price: float
    title: str
    description: str
    brand: str
    names_colour: bool  # the text says the colour
    has_image: bool
    spoken: str  # what the spoken name says; "" for none
    in_stock: bool
    rating: float
    review_count: int

    @property
    def has_text(self) -> bool:
        return bool(self.title)

    @property
    def category(self) -> tuple[str, str] | tuple[()]:
        """The path the shop publishes; it is text, so a product without text has none."""
        return CATEGORIES[self.type] if self.has_text else ()

    def value(self, attribute: str) -> str:
        """The true value of an attribute."""
        return getattr(self, attribute)


def make_products(count: int, seed: int) -> list[Product]:
    """`count` products, types in turn, every other attribute drawn alike and independently."""
    draw = random.Random(f"products-{seed}")
    types = [list(TYPES)[i % len(TYPES)] for i in range(count)]
    draw.shuffle(types)
    prices = [round(BASE_PRICE[kind] * draw.lognormvariate(0, 0.7), 2) for kind in types]
    tiers = _tiers(types, prices)
    identities = draw.sample(range(100_000, 1_000_000), count)
    lacks = [("text", "image", "price")[i % 3] if i < LACKING * count else "" for i in range(count)]
    draw.shuffle(lacks)
    return [
        _product(draw, f"p{identity}", kind, price, tier, lack)
        for identity, kind, price, tier, lack in zip(identities, types, prices, tiers, lacks, strict=True)
    ]


def _tiers(types: list[str], prices: list[float]) -> list[str]:
    """Thirds of the prices within each type."""
    tiers, names = [""] * len(types), tuple(TIERS)
    for kind in TYPES:
        rows = sorted((i for i, t in enumerate(types) if t == kind), key=lambda i: (prices[i], i))
        for place, row in enumerate(rows):
            tiers[row] = names[3 * place // len(rows)]
    return tiers


def _product(draw: random.Random, identity: str, kind: str, price: float, tier: str, lacks: str) -> Product:
    colour, pattern, shape, material = (draw.choice(list(table)) for table in (COLOURS, PATTERNS, SHAPES, MATERIALS))
    brand, thing = draw.choice(BRANDS), draw.choice(words("type", kind))
    stuff = draw.choice(words("material", material))
    names_colour, in_title = draw.random() < 0.5, draw.random() < 0.5
    hue = draw.choice(words("colour", colour)) if names_colour else ""
    title = " ".join(word for word in (brand, hue, stuff if in_title else "", thing) if word)
    opening = draw.choice(OPENINGS).format(thing=draw.choice(words("type", kind)))
    made = "" if in_title else ", " + draw.choice(MADE).format(material=stuff)
    description = f"{opening}{made}. {draw.choice(CLOSINGS)}"
    spoken = f"{brand} {stuff} {thing}" if draw.random() < SPOKEN else ""
    without_text = lacks == "text"
    return Product(
        product_id=identity,
        type=kind,
        colour=colour,
        pattern=pattern,
        shape=shape,
        material=material,
        tier=tier,
        price=None if lacks == "price" else price,
        true_price=price,
        title="" if without_text else title,
        description="" if without_text else description,
        brand="" if without_text else brand,
        names_colour=names_colour and not without_text,
        has_image=lacks != "image",
        spoken=spoken,
        in_stock=draw.random() < 0.93,
        rating=round(draw.uniform(2.5, 5.0), 1),
        review_count=int(draw.lognormvariate(2.0, 1.0)),
    )


def visible(product: Product, modality: str) -> frozenset[str]:
    """Which attributes (and `type`) one modality of a product shows."""
    if modality == "text" and product.has_text:
        return frozenset({"type", "material"} | ({"colour"} if product.names_colour else set()))
    if modality == "image" and product.has_image:
        return frozenset({"type", "colour", "pattern", "shape"})
    if modality == "audio" and product.spoken:
        return frozenset({"type", "material"})
    if modality == "price" and product.price is not None:
        return frozenset({"tier"})
    return frozenset()
