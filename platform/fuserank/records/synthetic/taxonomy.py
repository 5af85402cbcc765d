"""The words and values of the generated shop. Most attributes show in one place only, so fusion matters:

type      in the text, the picture and the spoken name      colour    in the picture, and in half of the texts
material  in the text and the spoken name only              pattern   in the picture only
price tier in the price only, relative to its type          shape     in the picture only
"""

TYPES: dict[str, tuple[str, ...]] = {  # type → words for it; the first is the most common
    "bag": ("bag", "handbag", "tote"),
    "cushion": ("cushion", "pillow"),
    "rug": ("rug", "carpet", "mat"),
    "lamp": ("lamp", "light", "lantern"),
    "plate": ("plate", "dish"),
    "clock": ("clock", "timepiece"),
    "mirror": ("mirror", "looking glass"),
    "box": ("box", "case", "chest"),
    "vase": ("vase", "urn"),
    "tray": ("tray", "platter", "salver"),
    "pendant": ("pendant", "necklace", "charm"),
    "tablecloth": ("tablecloth", "table cover"),
}

CATEGORIES: dict[str, tuple[str, str]] = {
    "bag": ("Fashion", "Bags"),
    "pendant": ("Fashion", "Jewellery"),
    "cushion": ("Living room", "Cushions"),
    "rug": ("Living room", "Rugs"),
    "lamp": ("Living room", "Lighting"),
    "clock": ("Living room", "Clocks"),
    "mirror": ("Living room", "Mirrors"),
    "vase": ("Living room", "Vases"),
    "box": ("Kitchen and dining", "Storage"),
    "plate": ("Kitchen and dining", "Tableware"),
    "tray": ("Kitchen and dining", "Serving"),
    "tablecloth": ("Kitchen and dining", "Table linen"),
}

COLOURS: dict[str, tuple[tuple[int, int, int], tuple[str, ...]]] = {  # colour → RGB, words
    "red": ((205, 40, 45), ("red", "crimson")),
    "orange": ((240, 135, 35), ("orange", "tangerine")),
    "yellow": ((240, 210, 60), ("yellow", "lemon")),
    "green": ((60, 150, 75), ("green", "emerald")),
    "blue": ((50, 95, 200), ("blue", "azure")),
    "purple": ((125, 65, 165), ("purple", "violet")),
    "pink": ((240, 140, 180), ("pink", "rose")),
    "brown": ((125, 80, 45), ("brown", "chestnut")),
    "black": ((40, 40, 45), ("black", "jet")),
    "white": ((245, 243, 238), ("white", "ivory")),
}

PATTERNS: dict[str, tuple[str, ...]] = {
    "plain": ("plain", "unpatterned"),
    "striped": ("striped", "stripy"),
    "dotted": ("dotted", "polka dot"),
    "checked": ("checked", "chequered"),
    "zigzag": ("zigzag", "chevron"),
    "floral": ("floral", "flowery"),
}

SHAPES: dict[str, tuple[str, ...]] = {
    "round": ("round", "circular"),
    "square": ("square", "quadratic"),
    "oval": ("oval", "elliptical"),
    "triangular": ("triangular", "three-cornered"),
    "hexagonal": ("hexagonal", "six-sided"),
    "star": ("star-shaped", "starry"),
}

MATERIALS: dict[str, tuple[str, ...]] = {
    "wool": ("wool", "woollen"),
    "leather": ("leather", "cowhide"),
    "cotton": ("cotton", "percale"),
    "linen": ("linen", "flax"),
    "oak": ("oak", "oaken"),
    "steel": ("steel", "stainless"),
    "glass": ("glass", "crystal"),
    "bamboo": ("bamboo", "cane"),
}

TIERS: dict[str, tuple[str, ...]] = {  # thirds of the prices of one type
    "budget": ("cheap", "budget"),
    "middle": ("mid-range", "moderately priced"),
    "premium": ("premium", "luxury"),
}

BASE_PRICE: dict[str, float] = {  # middle price of a type; types overlap, so a price alone tells no tier
    "bag": 90.0,
    "cushion": 28.0,
    "rug": 140.0,
    "lamp": 75.0,
    "plate": 16.0,
    "clock": 45.0,
    "mirror": 85.0,
    "box": 24.0,
    "vase": 35.0,
    "tray": 30.0,
    "pendant": 110.0,
    "tablecloth": 38.0,
}

BRANDS = (
    "Alder",
    "Bergen",
    "Corvo",
    "Delphine",
    "Elmo",
    "Fennec",
    "Galant",
    "Hestia",
    "Ilmari",
    "Juno",
    "Kestrel",
    "Lumen",
)

ATTRIBUTES = ("colour", "pattern", "shape", "material", "tier")
VALUES: dict[str, tuple[str, ...]] = {
    "colour": tuple(COLOURS),
    "pattern": tuple(PATTERNS),
    "shape": tuple(SHAPES),
    "material": tuple(MATERIALS),
    "tier": tuple(TIERS),
}


def words(attribute: str, value: str) -> tuple[str, ...]:
    """What people call a value."""
    if attribute == "colour":
        return COLOURS[value][1]
    table = {"type": TYPES, "pattern": PATTERNS, "shape": SHAPES, "material": MATERIALS, "tier": TIERS}[attribute]
    return table[value]
