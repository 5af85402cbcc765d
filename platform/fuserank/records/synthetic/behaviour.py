"""Users of the generated shop: tastes, and the sessions of impressions, views, clicks and purchases that follow."""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

from fuserank.records.synthetic.catalogue import Product
from fuserank.records.synthetic.taxonomy import COLOURS, MATERIALS, PATTERNS, TIERS, TYPES

START = 1_767_225_600_000  # 2026-01-01 UTC, ms
DAYS = 60
SLATE = 8  # products shown at a time


@dataclass(frozen=True)
class User:
    """One user's tastes."""

    user_id: str
    types: tuple[str, ...]  # favourites
    colours: tuple[str, ...]
    patterns: tuple[str, ...]
    materials: tuple[str, ...]
    tier: str

    def utility(self, product: Product) -> float:
        """How much the user likes a product, 0 … 5.5; on what it is in truth, whether or not the shop shows it."""
        return (
            2.0 * (product.type in self.types)
            + 1.0 * (product.colour in self.colours)
            + 1.0 * (product.pattern in self.patterns)
            + 0.5 * (product.material in self.materials)
            + 1.0 * (product.tier == self.tier)
        )


def make_users(count: int, seed: int) -> list[User]:
    """`count` users with a few favourites each."""
    draw = random.Random(f"users-{seed}")
    return [
        User(
            f"u{number:04d}",
            tuple(draw.sample(list(TYPES), 3)),
            tuple(draw.sample(list(COLOURS), 2)),
            tuple(draw.sample(list(PATTERNS), 2)),
            tuple(draw.sample(list(MATERIALS), 2)),
            draw.choice(list(TIERS)),
        )
        for number in range(count)
    ]


def click_chance(utility: float, interest: float, position: int) -> float:
    """Chance of a click: taste and the session's interest (0 … 2), fading with the position on the page."""
    return 1 / (1 + math.exp(-(1.1 * utility + 1.2 * interest - 5.2))) * 0.93**position


def make_events(products: list[Product], users: list[User], seed: int) -> Iterator[dict]:
    """Events in time order within each user; 3–6 sessions a user, 1–2 pages a session."""
    draw = random.Random(f"events-{seed}")
    popular = [1 / (rank + 10) for rank in range(len(products))]
    draw.shuffle(popular)
    popularity = list(accumulate(popular))
    by_type = {kind: [i for i, p in enumerate(products) if p.type == kind] for kind in TYPES}
    everyone = range(len(products))
    number = 0
    for user in users:
        utilities = [user.utility(product) for product in products]
        liking = [math.exp(u) for u in utilities]
        to_taste = list(accumulate(liking))
        in_type = {kind: list(accumulate(liking[i] for i in by_type[kind])) for kind in user.types}
        clicked: set[int] = set()
        times = sorted(draw.uniform(0, DAYS * 86_400_000) for _ in range(draw.randint(3, 6)))
        for session, offset in enumerate(times):
            kind = draw.choice(user.types)
            wish = (draw.choice(user.colours), draw.choice(user.patterns))
            now = START + int(offset)
            for page in range(draw.randint(1, 2)):
                shown = _page(draw, by_type[kind], in_type[kind], to_taste, popularity, everyone, clicked)
                request = f"r{user.user_id[1:]}-{session}-{page}"
                for position, row in enumerate(shown):
                    product = products[row]
                    interest = (product.type == kind) * (
                        0.7 + 0.65 * (product.colour == wish[0]) + 0.65 * (product.pattern == wish[1])
                    )
                    chance = click_chance(utilities[row], interest, position)
                    types = ["impression"]
                    if draw.random() < chance:
                        clicked.add(row)
                        types += ["click", "view"]
                        if draw.random() < 0.15 + 0.08 * utilities[row]:
                            types.append("add_to_cart")
                            if draw.random() < 0.5:
                                types.append("purchase")
                    for type_ in types:
                        event = {
                            "event_id": f"e{number:06d}",
                            "type": type_,
                            "user_id": user.user_id,
                            "session_id": f"s{user.user_id[1:]}-{session}",
                            "product_id": product.product_id,
                            "request_id": request,
                            "position": position,
                            "timestamp": now,
                        }
                        if type_ == "purchase" and product.price is not None:  # a hidden price stays hidden
                            event["value"] = product.price
                        yield event
                        number += 1
                        now += draw.randint(800, 6000)
                now += draw.randint(10_000, 90_000)


def _page(
    draw: random.Random,
    same: list[int],
    in_type: list[float],
    to_taste: list[float],
    popularity: list[float],
    everyone: range,
    clicked: set[int],
) -> list[int]:
    """Half of what the session is about, a quarter to the user's taste, a quarter of what is popular; no product twice.

    The weights are running sums.
    """
    chosen: dict[int, None] = {}
    while len(chosen) < SLATE:
        turn = draw.random()
        if turn < 0.5:
            row = draw.choices(same, cum_weights=in_type)[0]
        elif turn < 0.75:
            row = draw.choices(everyone, cum_weights=to_taste)[0]
        else:
            row = draw.choices(everyone, cum_weights=popularity)[0]
        if row not in clicked:  # what a user has turned to is not shown to them again
            chosen[row] = None
    shown = list(chosen)
    draw.shuffle(shown)
    return shown
