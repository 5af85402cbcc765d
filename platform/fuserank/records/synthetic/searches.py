"""Searches of the generated shop's users: what they asked, the page they saw, and the clicks that follow from the
answer's grade and from their taste."""

import math
import random
from collections.abc import Iterator, Mapping

from fuserank.records.synthetic.behaviour import DAYS, SLATE, START, User
from fuserank.records.synthetic.catalogue import Product
from fuserank.records.synthetic.queries import Query, grade


def taste(user: User, product: Product) -> float:
    """How much the user likes a product among others of its type, 0 … 3.5."""
    return user.utility(product) - 2.0 * (product.type in user.types)


def click_chance(grade: float, taste: float, position: int) -> float:
    """Chance of a click on a result, fading with its position as in behaviour.click_chance."""
    return 1 / (1 + math.exp(-(1.3 * grade + 1.1 * taste - 5.2))) * 0.93**position


def make_searches(
    products: list[Product], users: list[User], queries: list[Query], clicked: Mapping[str, set[str]], seed: int
) -> Iterator[dict]:
    """Events in time order within each user; 10–16 searches a user, for queries about types that they like.

    The page is what a plain search would show: SLATE products of the wanted type, better grades earlier by tendency,
    nobody's taste in it. What a user has clicked before is left out, as everywhere in this shop.

    Args:
        clicked: user → product ids of their other clicks.
    """
    draw = random.Random(f"searches-{seed}")
    by_type: dict[str, list[Product]] = {}
    for product in products:
        by_type.setdefault(product.type, []).append(product)
    number = 0
    for user in users:
        done = set(clicked.get(user.user_id, ()))
        known = [query for query in queries if query.type in user.types]
        times = sorted(draw.uniform(0, DAYS * 86_400_000) for _ in range(draw.randint(10, 16)))
        for session, offset in enumerate(times if known else ()):
            query, now = draw.choice(known), START + int(offset)
            found = [p for p in by_type[query.type] if p.product_id not in done]
            noisy = [(grade(p, query) + draw.gauss(0, 1), p) for p in found]
            shown = [p for _, p in sorted(noisy, key=lambda pair: -pair[0])[:SLATE]]
            for position, product in enumerate(shown):
                liked = taste(user, product)
                types = ["impression"]
                if draw.random() < click_chance(grade(product, query), liked, position):
                    done.add(product.product_id)
                    types += ["click", "view"]
                    if draw.random() < 0.15 + 0.12 * liked:
                        types.append("purchase")
                for type_ in types:
                    event = {
                        "event_id": f"f{number:06d}",
                        "type": type_,
                        "user_id": user.user_id,
                        "session_id": f"f{user.user_id[1:]}-{session}",
                        "product_id": product.product_id,
                        "request_id": f"f{user.user_id[1:]}-{session}",
                        "query_id": query.query_id,
                        "position": position,
                        "timestamp": now,
                    }
                    if type_ == "purchase" and product.price is not None:
                        event["value"] = product.price
                    yield event
                    number += 1
                    now += draw.randint(800, 6000)
