"""The generated shop as a closed loop: users who answer by their true tastes, served slates by a ranker that may learn.

What a ranker sees is what a server has: vectors of what a product's text, picture and price show (with noise, turned
so that no coordinate is an attribute), the category of the page, and what the user clicked and passed over before.
B requests · K candidates · S positions · D width of a vector · U users · P products.
"""

from dataclasses import dataclass

import numpy as np

from fuserank.feedback.policies.base import SlatePolicy
from fuserank.records.synthetic.behaviour import SLATE, make_users
from fuserank.records.synthetic.catalogue import make_products, visible
from fuserank.records.synthetic.taxonomy import TYPES, VALUES

CANDIDATES, BATCH, RECENT, NOISE = 40, 200, 10, 0.1
VARIANCE = 0.15  # of a click around its chance
NAMES = ("bias", "page", "recent", "nearest", "taste", "page taste", "popular")
FADE = 0.93 ** np.arange(SLATE)
TABLE = {"type": tuple(TYPES), **VALUES}
SEEN_BY = ("text", "image", "price")


@dataclass(frozen=True)
class Requests:
    users: np.ndarray  # [B]
    pages: np.ndarray  # [B] type the page is about
    wishes: np.ndarray  # [B, 2] colour and pattern this session is after: hidden
    candidates: np.ndarray  # [B, K]


class World:
    """Products and users; tastes stay in here."""

    def __init__(self, seed: int, products: int = 600, users: int = 200):
        random = np.random.default_rng([seed, 1])
        self.products, self.users = make_products(products, seed), make_users(users, seed)
        self.codes = {a: np.array([values.index(p.value(a)) for p in self.products]) for a, values in TABLE.items()}
        blocks = []
        for attribute, values in TABLE.items():
            shows = [any(attribute in visible(p, m) for m in SEEN_BY) for p in self.products]
            blocks.append(np.eye(len(values))[self.codes[attribute]] * np.array(shows)[:, None])
        plain = np.concatenate(blocks, axis=1)
        turn = np.linalg.qr(random.normal(size=(plain.shape[1], plain.shape[1])))[0]
        noisy = plain @ turn + NOISE * random.normal(size=plain.shape)
        self.vectors = noisy / np.linalg.norm(noisy, axis=1, keepdims=True)
        self.published = np.where([bool(p.category) for p in self.products], self.codes["type"], -1)
        self.favourites = {
            "type": [u.types for u in self.users], "colour": [u.colours for u in self.users],
            "pattern": [u.patterns for u in self.users], "material": [u.materials for u in self.users],
            "tier": [(u.tier,) for u in self.users],
        }  # fmt: skip
        worth = {"type": 2.0, "colour": 1.0, "pattern": 1.0, "material": 0.5, "tier": 1.0}
        self.utility = sum(
            worth[a] * np.array([[v in liked for v in TABLE[a]] for liked in self.favourites[a]])[:, self.codes[a]]
            for a in worth
        )  # [U, P]
        self.by_type = np.stack([np.flatnonzero(self.codes["type"] == t) for t in range(len(TYPES))])

    def requests(self, random: np.random.Generator) -> Requests:
        """Half of the candidates of the page's type, half of any; which is no matter of taste."""
        users = random.integers(0, len(self.users), BATCH)

        def favourite(attribute: str) -> np.ndarray:
            liked = [self.favourites[attribute][u] for u in users]
            return np.array([TABLE[attribute].index(values[random.integers(len(values))]) for values in liked])

        pages, wishes = favourite("type"), np.stack([favourite("colour"), favourite("pattern")], axis=1)
        keys = random.random((BATCH, self.by_type.shape[1])).argsort(1)[:, : CANDIDATES // 2]
        same = np.take_along_axis(self.by_type[pages], keys, axis=1)
        anything = random.random((BATCH, len(self.products)))
        np.put_along_axis(anything, same, 2.0, axis=1)
        other = np.argpartition(anything, CANDIDATES // 2, axis=1)[:, : CANDIDATES // 2]
        return Requests(users, pages, wishes, np.concatenate([same, other], axis=1))

    def chances(self, r: Requests) -> np.ndarray:
        """Click chance of every candidate at the first position, behaviour.click_chance. [B, K]"""
        code = {a: self.codes[a][r.candidates] for a in ("type", "colour", "pattern")}
        wished = (code["colour"] == r.wishes[:, :1]) * 0.65 + (code["pattern"] == r.wishes[:, 1:]) * 0.65
        interest = (code["type"] == r.pages[:, None]) * (0.7 + wished)
        return 1 / (1 + np.exp(-(1.1 * self.utility[r.users[:, None], r.candidates] + 1.2 * interest - 5.2)))


class Memory:
    """What the server remembers of its users' clicks."""

    def __init__(self, world: World):
        users, (products, width) = len(world.users), world.vectors.shape
        self.world = world
        self.recent, self.count = np.zeros((users, RECENT, width)), np.zeros(users, int)
        self.gram, self.response = np.zeros((users, width, width)), np.zeros((users, width))
        self.tastes, self.mean, self.spread = np.zeros((users, width)), np.zeros(width), 0.1 * np.eye(width)
        self.shown, self.clicked = np.zeros(products), np.zeros(products)
        self.pages = np.array([[10.0, 1.0], [10.0, 1.0]])  # shown and clicked, off the page's category and on it

    def features(self, r: Requests) -> np.ndarray:
        """[B, K, F] in the order of NAMES."""
        vectors = self.world.vectors[r.candidates]
        page = (self.world.published[r.candidates] == r.pages[:, None]).astype(float)
        nearness = np.einsum("bkd,btd->bkt", vectors, self.recent[r.users])
        known = np.minimum(self.count[r.users], RECENT)[:, None]
        mean = nearness.sum(2) / np.maximum(known, 1)
        taste = np.einsum("bkd,bd->bk", vectors, self.tastes[r.users])
        rate = (self.clicked.sum() + 1) / (self.shown.sum() + 10)
        popular = ((self.clicked + 20 * rate) / (self.shown + 20) - rate)[r.candidates]
        columns = (np.ones_like(page), page, mean, nearness.max(2), 3 * taste, 3 * page * taste, 3 * popular)
        return np.stack(columns, axis=2)

    def remember(self, r: Requests, rows: np.ndarray, clicks: np.ndarray) -> None:
        shown = np.take_along_axis(r.candidates, rows, axis=1)
        np.add.at(self.shown, shown, 1)
        np.add.at(self.clicked, shown, clicks)
        page = (self.world.published[shown] == r.pages[:, None]).astype(int)
        np.add.at(self.pages, page, np.stack([np.broadcast_to(FADE, page.shape), clicks], axis=2))
        surprise = clicks - (self.pages[:, 1] / self.pages[:, 0])[page] * FADE  # beyond what the page explains
        vectors = self.world.vectors[shown]
        seen = vectors * FADE[:, None]
        np.add.at(self.gram, r.users, np.einsum("bsd,bse->bde", seen, seen))
        np.add.at(self.response, r.users, np.einsum("bsd,bs->bd", seen, surprise))
        self.learn_tastes()
        for request, position in np.argwhere(clicks):
            user = r.users[request]
            self.recent[user, self.count[user] % RECENT] = vectors[request, position]
            self.count[user] += 1

    def learn_tastes(self) -> None:
        """Users' weights as random effects w ~ N(mean, spread): one step of EM, which learns what tastes differ in."""
        precision = np.linalg.inv(self.spread)
        doubt = np.linalg.inv(self.gram / VARIANCE + precision)
        known = self.response / VARIANCE + precision @ self.mean
        self.tastes = np.einsum("ude,ue->ud", doubt, known)
        self.mean = self.tastes.mean(0)
        apart = self.tastes - self.mean
        self.spread = apart.T @ apart / len(apart) + doubt.mean(0) + 1e-5 * np.eye(len(self.mean))


def frozen(features: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """A fixed ranker on live histories: products of the page's category and near to what was clicked last."""
    return np.argsort(-(features[..., 1] + features[..., 2]), axis=1, kind="stable")[:, :SLATE]


def serve(world: World, slates: int, seed: int, policy: SlatePolicy | None = None) -> dict[str, np.ndarray]:
    """Serve the same requests whoever ranks; a policy learns after every batch.

    Returns:
        `expected`: mean true click chance of each slate, and `oracle`: the best there was, both [slates].
    """
    stream, memory = np.random.default_rng([seed, 2]), Memory(world)
    expected, oracle = [], []
    for start in range(0, slates, BATCH):
        r = world.requests(stream)
        dice, features, seeds = stream.random((BATCH, SLATE)), memory.features(r), np.arange(start, start + BATCH)
        rows = frozen(features, seeds) if policy is None else policy.choose(features, seeds, SLATE).rows
        chances = world.chances(r)
        chance = np.take_along_axis(chances, rows, axis=1) * FADE
        clicks = (dice < chance).astype(float)
        memory.remember(r, rows, clicks)
        if policy is not None:
            shown = np.take_along_axis(features, rows[..., None], axis=1).reshape(-1, len(NAMES))
            policy.observe(shown, clicks.ravel(), np.tile(FADE, BATCH))
        expected.append(chance.mean(1))
        oracle.append((-np.sort(-chances, axis=1)[:, :SLATE] * FADE).mean(1))
    return {"expected": np.concatenate(expected), "oracle": np.concatenate(oracle)}
