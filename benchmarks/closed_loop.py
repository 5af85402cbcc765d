"""A policy that learns against the model's own order, on a trained run of the generated shop whose users answer by
their true tastes.

python benchmarks/closed_loop.py [-c CONFIG] [--slates 20000] [--users 200] [--seeds 5] [--set KEY=VALUE]

Everything but the users is what serves: the generation's model and recommender, the blend, the features of a policy,
the policy itself. A user looks at a product of a type they like, with a colour and a pattern in mind that nobody is
told of, and is shown 8 of 40 candidates: 20 of that type and 20 of any (given by a filter, so that the oracle, the
order of true chances, ranks the same ones). Clicks follow records/synthetic/behaviour.py. Writes closed_loop.json and
the regret curve to benchmarks/results/.
"""

import argparse
import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from fuserank import artifacts, config
from fuserank.config import Experiment
from fuserank.evaluation import plots
from fuserank.evaluation.intervals import paired_difference
from fuserank.feedback.policies.build import configured
from fuserank.feedback.policies.state import LinearState
from fuserank.feedback.sequences import POSITIVE
from fuserank.records.synthetic.behaviour import SLATE, User, click_chance, make_users
from fuserank.records.synthetic.catalogue import make_products
from fuserank.retrieval import policy_inputs
from serve.app import generation_folder
from serve.messages import Ask, Display, HistoryEvent, Past, RetrieverQuery
from serve.retriever import Searcher

ROOT = Path(__file__).resolve().parents[1]
CANDIDATES, BATCH, LAST = 40, 50, 2000  # LAST: slates that are judged
FADE = 0.93 ** np.arange(SLATE)
console = Console()


@dataclass
class Visitor:
    """A user with what a server knows of them."""

    user: User
    events: list[HistoryEvent] = field(default_factory=list)
    shown: list[Display] = field(default_factory=list)


class World:
    """The run's products and its first users, with the past that the run's events tell."""

    def __init__(self, experiment: Experiment, users: int):
        generate = experiment.records.generate
        assert generate is not None, "the run's records are not generated"
        online = experiment.policy.online or config.Online()
        self.settings = experiment.policy
        self.online = online.model_copy(update={"candidates": CANDIDATES, "fresh": 0, "looked_at": FADE.tolist()})
        folder = generation_folder(experiment)
        self.searcher = Searcher(folder, 200, 200, 1000, None, ThreadPoolExecutor(1), 5000, self.online)
        self.products = {p.product_id: p for p in make_products(generate.products, generate.seed)}
        self.ids = list(self.products)
        self.users = make_users(generate.users, generate.seed)[:users]
        self.past: dict[str, list[HistoryEvent]] = {user.user_id: [] for user in self.users}
        with (artifacts.stage_path(experiment, "generate") / "events.jsonl").open(encoding="utf-8") as lines:
            for event in map(json.loads, lines):
                if event["type"] in POSITIVE and event["user_id"] in self.past:
                    told = HistoryEvent(event["product_id"], event["type"], event["timestamp"] / 1000)
                    self.past[event["user_id"]].append(told)
        self.by_type: dict[str, list[str]] = {}
        for product in self.products.values():
            self.by_type.setdefault(product.type, []).append(product.product_id)

    def chances(self, user: User, kind: str, wish: tuple[str, str], candidates: list[str]) -> np.ndarray:
        """Of a click on each candidate in the first place, [K]."""
        products = [self.products[product] for product in candidates]
        interest = [
            (p.type == kind) * (0.7 + 0.65 * (p.colour == wish[0]) + 0.65 * (p.pattern == wish[1])) for p in products
        ]
        return np.array([click_chance(user.utility(p), i, 0) for p, i in zip(products, interest, strict=True)])

    def serve(self, slates: int, seed: int, kind: str | None) -> dict[str, np.ndarray]:
        """The same requests whoever orders; a policy learns after every batch.

        Args:
            kind: of the policy; None: the model's own order.

        Returns:
            `expected`: mean true click chance of each slate, and `oracle`: the best there was, both [slates].
        """
        stream, now = np.random.default_rng([seed, 2]), time.time()
        visitors = [Visitor(user, sorted(self.past[user.user_id], key=lambda e: e.time)) for user in self.users]
        state = LinearState(policy_inputs.names("recommend", self.searcher._model.modalities))
        expected, oracle = [], []
        for start in range(0, slates, BATCH):
            asked = [self._request(visitors[v], stream) for v in stream.permutation(len(visitors))[:BATCH]]
            dice = stream.random((BATCH, SLATE))
            found = self.searcher.answer([query for _, query, _ in asked])
            prior = {"score": self.online.prior}
            policy = None if kind is None else configured(kind, state, self.settings, prior=prior)
            told, clicks = [], []
            for b, ((visitor, _, chance), answer) in enumerate(zip(asked, found, strict=True)):
                assert not isinstance(answer, Exception), answer
                assert answer.told is not None
                ids = [self.searcher.live.catalogue.ids[row] for row in answer.rows]
                chances = np.array([chance[product] for product in ids])
                features = policy_inputs.complete(answer.score, answer.told)
                rows = np.arange(SLATE)
                if policy is not None:
                    rows = policy.choose(features[None], np.array([start + b]), SLATE).rows[0]
                clicked = dice[b] < chances[rows] * FADE
                told.append(features[rows])
                clicks.append(clicked.astype(float))
                for place, (row, turned) in enumerate(zip(rows, clicked, strict=True)):
                    visitor.shown.append(Display(ids[row], place, bool(turned)))
                    if turned:
                        visitor.events.append(HistoryEvent(ids[row], "click", now + start + b))
                expected.append(float(np.mean(chances[rows] * FADE)))
                oracle.append(float(np.mean(-np.sort(-chances)[:SLATE] * FADE)))
            if policy is not None:
                state.observe(np.concatenate(told), np.concatenate(clicks), np.tile(FADE, len(told)))
        return {"expected": np.array(expected), "oracle": np.array(oracle)}

    def _request(
        self, visitor: Visitor, stream: np.random.Generator
    ) -> tuple[Visitor, RetrieverQuery, dict[str, float]]:
        user = visitor.user
        kind = user.types[stream.integers(len(user.types))]
        wish = user.colours[stream.integers(len(user.colours))], user.patterns[stream.integers(len(user.patterns))]
        same = stream.choice(self.by_type[kind], CANDIDATES // 2, replace=False).tolist()
        other = stream.permutation(np.setdiff1d(self.ids, same))[: CANDIDATES - len(same)].tolist()
        looked = str(stream.choice(self.by_type[kind]))
        candidates = [*same, *other]
        ask = Ask(
            "recommend", SLATE, filter={"product_id": candidates}, user_id=user.user_id,
            product_ids=(looked,), pool=CANDIDATES,
        )  # fmt: skip
        past = Past(tuple(visitor.events[-200:]), tuple(visitor.shown[-SLATE * self.online.shown :]))
        chances = self.chances(user, kind, wish, candidates)
        return visitor, RetrieverQuery(ask, None, {}, past), dict(zip(candidates, chances, strict=True))


def closed(frozen: np.ndarray, policy: np.ndarray, oracle: np.ndarray) -> float:
    """Share of the gap between the model's order and the oracle that the policy closes on the last slates."""
    low, own, high = (float(values[-LAST:].mean()) for values in (frozen, policy, oracle))
    return (own - low) / (high - low)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-c", "--config", default=str(ROOT / "workloads" / "configs" / "demo.yaml"))
    parser.add_argument("--slates", type=int, default=20_000)
    parser.add_argument("--users", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--kind", default="linucb")
    parser.add_argument("--set", action="append", default=[])
    options = parser.parse_args()
    experiment = config.load(options.config, options.set)
    world, runs, shares, gains = World(experiment, options.users), [], [], []
    table = Table("seed", "model's order", "policy", "oracle", "policy − model's", "gap closed")
    for seed in range(options.seeds):
        frozen, learnt = (world.serve(options.slates, seed, kind) for kind in (None, options.kind))
        np.testing.assert_array_equal(frozen["oracle"], learnt["oracle"])  # the same requests
        gain = paired_difference(learnt["expected"][-LAST:], frozen["expected"][-LAST:])
        shares.append(closed(frozen["expected"], learnt["expected"], frozen["oracle"]))
        gains.append(gain)
        runs.append({"frozen": frozen["expected"], "policy": learnt["expected"], "oracle": frozen["oracle"]})
        means = [f"{values[-LAST:].mean():.4f}" for values in runs[-1].values()]
        gained = f"{gain.mean:+.4f} ({gain.low:+.4f} to {gain.high:+.4f})"
        table.add_row(str(seed), *means, gained, f"{shares[-1]:.3f}")
        console.print(f"seed {seed}: {' '.join(means)}  {gained}  closed {shares[-1]:.3f}")
    console.print(table)
    counts = range(options.slates // 20, options.slates + 1, options.slates // 20)
    regret = {
        name: [(n, float(np.mean([(r["oracle"] - r[name])[:n].sum() for r in runs]))) for n in counts]
        for name in ("frozen", "policy")
    }
    results = ROOT / "benchmarks" / "results"
    rates = [{name: float(values[-LAST:].mean()) for name, values in run.items()} for run in runs]
    content = {"slates": options.slates, "users": options.users, "kind": options.kind, "closed": shares}
    content |= {"rates": rates, "gains": [gain.as_dict() for gain in gains], "regret": regret}
    artifacts.write_json(results / "closed_loop_served.json", content)
    picture = plots.curves(regret, "slates", "summed click rate short of the oracle")
    (results / "closed_loop_served.png").write_bytes(picture)


if __name__ == "__main__":
    main()
