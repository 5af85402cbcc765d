"""Queries of the generated shop and their judgments, which follow from the products' true attributes."""

import random
from dataclasses import dataclass

from fuserank.errors import InputError
from fuserank.records.synthetic.catalogue import Product
from fuserank.records.synthetic.taxonomy import ATTRIBUTES, words

# Shares of the kinds of query. Spoken ones become typed ones where there is no speech.
KINDS = {"text": 0.69, "mixed": 0.15, "image": 0.08, "spoken": 0.08}
SEEN = ("colour", "pattern", "shape")  # what a picture can ask for
UNSEEN = ("material", "tier")
PHRASES = ("{words}", "{words}", "a {words}", "{words} please", "looking for a {words}", "i want a {words}")
LIKE = ("like this, {words}", "this but {words}", "one like this: {words}")


@dataclass(frozen=True)
class Query:
    """One query: what is wanted, and how it is asked."""

    query_id: str
    kind: str  # text | mixed | image | spoken
    type: str
    wanted: dict[str, str]  # attribute → value
    text: str  # what is typed, or said for a spoken query; "" for a picture alone
    user_id: str


def grade(product: Product, query: Query) -> int:
    """3 all wanted attributes match, 2 all but one of at least two, 1 the type only, 0 another type."""
    if product.type != query.type:
        return 0
    misses = sum(product.value(name) != value for name, value in query.wanted.items())
    if misses == 0:
        return 3
    return 2 if misses == 1 and len(query.wanted) >= 2 else 1


def make_queries(products: list[Product], users: list[str], count: int, seed: int, speech: bool) -> list[Query]:
    """`count` queries, each wanting what some product has; no text twice."""
    draw = random.Random(f"queries-{seed}")
    queries: list[Query] = []
    seen: set[str] = set()
    asked: set[tuple] = set()
    misses = 0
    while len(queries) < count:
        kind = draw.choices(tuple(KINDS), tuple(KINDS.values()))[0]
        kind = "text" if kind == "spoken" and not speech else kind
        target = draw.choice(products)
        wanted = _wanted(draw, target, kind)
        text = "" if kind == "image" else _text(draw, target.type, wanted, kind)
        key = text if kind in ("text", "spoken") else f"{kind}{text}{target.type}{sorted(wanted.items())}"
        wants = (target.type, *sorted(wanted.items()))
        if key in seen or (wants in asked and misses < 100):  # evaluation asks what training did not
            misses += 1
            if misses > 1000:
                raise InputError(
                    f"records.generate: {len(products)} products do not give {count} different queries.",
                    "Lower records.generate.queries or raise records.generate.products.",
                )
            continue
        misses = 0
        seen.add(key)
        asked.add(wants)
        user = draw.choice(users) if users and draw.random() < 0.33 else ""
        queries.append(Query(f"q{len(queries):04d}", kind, target.type, wanted, text, user))
    return queries


def _wanted(draw: random.Random, target: Product, kind: str) -> dict[str, str]:
    if kind == "image":
        names = SEEN
    elif kind == "mixed":
        names = (*SEEN, draw.choice(UNSEEN))  # all that its picture shows, and one thing it cannot
    else:
        names = _named(draw, draw.choices((1, 2, 3), (0.3, 0.5, 0.2))[0])
    return {name: target.value(name) for name in names}


def _named(draw: random.Random, count: int) -> tuple[str, ...]:
    """What a typed query names: of several attributes one that a picture shows and one that it cannot show."""
    if count == 1:
        return (draw.choice(ATTRIBUTES),)
    first = draw.choice(SEEN), draw.choice(UNSEEN)
    return (*first, *draw.sample([name for name in ATTRIBUTES if name not in first], count - 2))


def _text(draw: random.Random, kind_of_product: str, wanted: dict[str, str], kind: str) -> str:
    order = ("tier", "colour", "shape", "pattern", "material")
    if kind == "mixed":  # the picture says the rest
        said = [draw.choice(words(name, value)) for name, value in wanted.items() if name not in SEEN]
        return draw.choice(LIKE).format(words=" ".join(said))
    said = [draw.choice(words(name, wanted[name])) for name in order if name in wanted]
    said.append(draw.choice(words("type", kind_of_product)))
    phrase = PHRASES[0] if kind == "spoken" else draw.choice(PHRASES)  # speech must fit the model's window
    return phrase.format(words=" ".join(said))
