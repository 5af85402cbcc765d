"""Sections on the stages that train, search, index, judge and serve."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from fuserank.config.deployments import Deployments
from fuserank.config.gradient import Gradient
from fuserank.config.guard import Guard
from fuserank.config.model import Adaptation, FusionKind
from fuserank.config.online import Online, PolicyKind
from fuserank.config.rules import Rules
from fuserank.config.section import Fraction, Positive, Section, Weight
from fuserank.config.watch import Watch

VectorKind = Literal["auto", "flat", "hnsw", "ivf"]
HybridKind = Literal["learnt", "linear", "rrf", "none"]


class PretrainTask(Section):
    """One self-supervised task."""

    epochs: Annotated[int, Field(ge=0)] = 5  # 0 skips it
    batch_size: Positive = 128
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3


class OptionalTask(PretrainTask):
    """A self-supervised task that is off unless asked for."""

    epochs: Annotated[int, Field(ge=0)] = 0


class Pretrain(Section):
    """Self-supervision before any judgment is seen, in this order; what a task leaves, the next one starts from."""

    text: PretrainTask = PretrainTask()  # masked language
    image: PretrainTask = PretrainTask()  # contrast of two views
    audio: OptionalTask = OptionalTask()  # masked spectrogram
    cross: OptionalTask = OptionalTask()  # contrast between the modalities of one product
    spans: OptionalTask = OptionalTask()  # a few words of a text against the whole product
    behaviour: OptionalTask = OptionalTask()  # masked items of histories, for the recommender


class Refine(Section):
    """After the epochs: everything above the encoders learns on from their cached outputs."""

    steps: Annotated[int, Field(ge=0)] = 100  # 0 leaves it out
    products: Positive = 1024  # a step
    queries: Annotated[int, Field(ge=0)] = 512  # a step, as train.queries
    learning_rate: Annotated[float, Field(gt=0)] = 5e-3


class Recommend(Section):
    """After refining: the recommender learns on by itself, on fused vectors that stand still."""

    epochs: Annotated[int, Field(ge=0)] = 20  # over the histories; 0 leaves it out
    batch_size: Positive = 256  # histories a step
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    weight_decay: Weight = 0.01
    negatives: Annotated[int, Field(ge=0)] = 0  # products sampled beside a step's own; 0: the whole catalogue
    id_dropout: Fraction = 0.1  # chance that a product has to do without its id, so that content learns to stand alone


class Train(Section):
    """Supervised training of encoders, fusion and recommender together, on Ray Train."""

    start: str | None = None  # folder of a trained model (its config.json and model.safetensors) to go on from
    labels: Annotated[float, Field(gt=0, le=1)] = 1.0  # share of the labelled rows that training may see
    epochs: Positive = 12
    batch_size: Positive = 128  # products a step
    positives: Fraction = (
        0.5  # further products a step, drawn from the best answers to its queries (share of batch_size)
    )
    queries: Annotated[int, Field(ge=0)] = 0  # queries a step: one a product, filled up to so many at random
    bank: Annotated[int, Field(ge=0)] = 1024  # further products a step, by their encoder outputs of this epoch
    mined: Fraction = 0.0  # share of the bank that is hard negatives: what ranks high for a query and is no answer
    refine: Refine = Refine()
    recommend: Recommend = Recommend()
    sequences: Annotated[int, Field(ge=0)] = 32  # user histories a step, for the recommender
    token_dropout: Fraction = 0.1  # share of the words and attribute values that each step hides
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    encoder_learning_rate: Annotated[float, Field(gt=0)] = 5e-4
    weight_decay: Weight = 0.01
    warmup: Fraction = 0.1  # share of all steps
    schedule: Literal["cosine", "linear", "constant"] = "cosine"  # of the learning rate after it
    patience: Annotated[int, Field(ge=0)] = 0  # epochs without a better validation before training stops; 0: never
    accumulate: Positive = 1  # parts of a batch that the encoders see one after the other: less memory, same gradient
    clip: Annotated[float, Field(gt=0)] = 1.0
    workers: Positive = 1
    cpus_per_worker: Positive = 2
    gpu: bool = False
    strategy: Literal["ddp", "fsdp"] = "ddp"  # of several workers: all weights on each, or the encoders' sharded
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"  # auto: bfloat16 where it is native
    compile: bool = False  # the encoders by torch.compile
    checkpoint_seconds: Weight = 40.0  # between checkpoints; 0: after every step
    max_failures: Annotated[int, Field(ge=0)] = 2  # workers that may die before the run fails
    keep: Literal["best", "last"] = "best"  # which epoch's weights are exported, by validation nDCG@10


Range = tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]


class Stop(Section):
    """When a trial ends early because it cannot win: asynchronous successive halving."""

    kind: Literal["asha", "none"] = "asha"
    grace: Positive = 1  # epochs that every trial has
    reduction: Annotated[int, Field(ge=2)] = 3  # one in so many goes on, after grace, grace · reduction … epochs


class Space(Section):
    """What the search may choose from; a range or list that is null or empty keeps the config's own value."""

    kinds: list[FusionKind] = ["concat", "attention", "gated", "ensemble", "joint"]  # fusion.kind
    widths: list[Annotated[int, Field(gt=0, multiple_of=4)]] = [64, 128, 256]  # fusion.width
    modality_dropout: tuple[Fraction, Fraction] | None = (0.0, 0.5)  # fusion.modality_dropout
    weights: Range | None = (0.2, 2.0)  # every loss.weights.*; not less: in `train` a head also teaches its encoder
    learning_rate: Range | None = (5e-4, 1e-2)  # train.learning_rate
    encoder_learning_rate: Range | None = (1e-4, 3e-3)  # train.encoder_learning_rate; of trials that train encoders
    adaptations: list[Adaptation] = []  # of every encoder that has the choice; of trials that train encoders
    hybrids: list[HybridKind] = []  # index.hybrid
    hybrid_weight: Range | None = None  # index.hybrid_weight, of linear and rrf
    rerank_depths: list[Positive] = []  # index.rerank_depth
    candidates: list[Positive] = []  # index.candidates
    vectors: list[VectorKind] = []  # index.vectors

    @property
    def of_index(self) -> bool:
        """Whether anything of `index` is searched: then trials are judged by what serving would answer."""
        listed = self.hybrids or self.rerank_depths or self.candidates or self.vectors
        return bool(listed) or self.hybrid_weight is not None

    @model_validator(mode="after")
    def _ordered(self) -> "Space":
        for name, value in self:
            if isinstance(value, tuple) and value[0] > value[1]:
                raise ValueError(f"{name} runs from the smaller to the larger number, e.g. [{value[1]}, {value[0]}]")
        return self


class Tune(Section):
    """Ray Tune over fusion, loss weights, learning rates, adaptation, and how words and reranker count in answers."""

    trials: Positive = 10
    training: Literal["cached", "whole"] = "cached"  # what a trial trains: all above the encoders, or as `train` does
    epochs: Positive = 12  # of a trial on cached encoder outputs; a whole one has train.epochs
    concurrent: Positive = 2
    cpus_per_trial: Positive = 1  # of a trial on cached outputs, and its threads; a whole one has train's workers
    retries: Annotated[int, Field(ge=0)] = 2  # how often a trial whose process dies is begun again
    algorithm: Literal["tpe", "random"] = "tpe"
    objectives: list[Literal["ndcg@10", "latency_ms"]] = ["ndcg@10"]  # both: the search looks for the Pareto front
    latency_limit_ms: Annotated[float, Field(gt=0)] | None = None  # best.yaml answers within; null: no limit
    stop: Stop = Stop()
    space: Space = Space()

    @model_validator(mode="after")
    def _sound(self) -> "Tune":
        if "ndcg@10" not in self.objectives:
            raise ValueError("objectives must name ndcg@10")
        if self.training == "cached" and self.space.adaptations:
            raise ValueError("space.adaptations needs training: whole; trials on cached outputs move no encoder")
        return self


class Index(Section):
    """What serving searches: vectors (faiss) and words (tantivy), one immutable folder a generation."""

    vectors: VectorKind = "auto"  # flat up to 50,000 products, then ivf
    candidates: Positive = 200  # how many each side hands over
    typos: bool = True  # a query's words that no product has are read as the nearest words there are
    hybrid: HybridKind = "learnt"  # how words count beside vectors
    hybrid_weight: Weight = 0.3  # of words, for linear and rrf
    rerank_depth: Positive = 200  # of the candidates the reranker looks at the best; the rest stays below
    later_sessions: Annotated[float, Field(gt=0, lt=1)] = 0.2  # share of the search sessions held out, the latest
    keep: Positive = 2  # generations left on disk


Leak = Literal["repeated-products", "repeated-queries", "later-events", "label-as-feature"]
"""What evaluation/leaks.py finds."""


class Evaluate(Section):
    """Full-catalogue ranking of held-out queries."""

    k: Positive = 10
    recall_k: Positive = 100
    relevant: Annotated[float, Field(gt=0)] = 1.0  # grade from which a product counts for recall, MRR, hit rate and MAP
    bootstrap: Annotated[int, Field(ge=100)] = 2000
    hidden_text: Fraction = (
        0.5  # share of evaluation products whose text is hidden in the second table; 0 leaves it out
    )
    examples: Annotated[int, Field(ge=0)] = 6  # queries shown with pictures in the report
    allow_leaks: list[Leak] = []  # these are shown in the report and do not end the evaluation


class Serve(Section):
    """HTTP through Ray Serve."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    max_body_bytes: Positive = 8_000_000
    max_limit: Positive = 100  # largest `limit` of one answer
    max_given: Annotated[int, Field(ge=1, le=1000)] = 200  # products of POST /v1/rank, inputs of POST /v1/embed
    max_batch: Positive = 64  # requests one micro-batch carries down the chain
    queue: Positive = 128  # requests waiting at the gateway before 429
    cache: Annotated[int, Field(ge=0)] = 10_000  # encoded queries a gateway remembers, of each modality; 0: none
    compact_after: Positive = 5000  # live changes a retriever keeps beside its index before it makes the index anew
    spool_folder: str | None = None  # where impressions wait for the store; null: store/spool/ in the run's folder
    spool_bytes: Annotated[int, Field(ge=100_000)] = 64_000_000  # of it, for each gateway replica
    streams: Annotated[int, Field(ge=0)] = 100  # of recommendations that a gateway keeps open
    retention_days: Annotated[float, Field(gt=0)] | None = None  # events and impressions are kept; null: for good
    facet_depth: Positive = 1000  # results each side finds where facets, sort or group_by are asked for
    rules: Rules = Rules()
    deployments: Deployments = Deployments()
    guard: Guard = Guard()
    watch: Watch = Watch()


class Store(Section):
    """The database of events, impressions and live changes."""

    url: str | None = None  # postgresql://…, or sqlite:///… on one node; null: a file in the run's folder


class Policy(Section):
    """What learns from feedback, and when it may go live."""

    kinds: list[PolicyKind] = ["epsilon_greedy", "linucb", "thompson"]
    promote: PolicyKind = "linucb"
    share: Fraction = 0.05  # of the slates that are drawn at random
    ridge: Annotated[float, Field(gt=0)] = 1.0
    alpha: Weight = 0.5  # of LinUCB: how much doubt counts for a candidate
    noise: Weight = 0.3  # of Thompson sampling: standard deviation of a reward
    samples: Annotated[int, Field(ge=2)] = 256  # draws that its propensities are estimated from
    reward: Literal["clicked", "purchased"] = "clicked"
    learn: Annotated[float, Field(gt=0, lt=1)] = 0.5  # share of the answers, the oldest, that policies learn from
    estimator: Literal["ips", "clipped_ips", "snips", "dm", "dr", "switch_dr"] = "dr"  # the gate's
    bound: Literal["bootstrap", "bernstein"] = "bootstrap"  # the gate's
    margin: Weight = 0.0  # the lower bound must beat the incumbent by, in reward a position shown
    effective: Annotated[float, Field(gt=0)] = 1000.0  # effective answers the gate wants
    level: Annotated[float, Field(gt=0, lt=1)] = 0.95  # of all intervals
    bootstrap: Annotated[int, Field(ge=100)] = 1000  # resamples
    canary: Annotated[float, Field(ge=0, lt=1)] = 0.0  # share of visitors a promoted policy answers first; 0: all
    canary_answers: Annotated[int, Field(ge=100)] = 20_000  # of the canary, after which it ends if nothing is proven
    rollback: bool = False  # a generation that earns less than the one before it goes by itself
    fall: Weight = 0.0  # by how much less at least, in reward a position shown
    watch_answers: Annotated[int, Field(ge=100)] = 20_000  # of either generation and kind of answer, at most
    watch_seconds: Annotated[float, Field(gt=0)] = 60.0  # between looks at live answers
    settle_seconds: Weight = 300.0  # after which an answer is judged, by what it earned in that time
    online: Online | None = None  # orders live answers; null: the model's own order
    gradient: Gradient = Gradient()  # of `fuserank policy --reranker`

    @model_validator(mode="after")
    def _provable(self) -> "Policy":
        if self.canary and self.canary_answers < self.effective:
            raise ValueError(
                "canary_answers must not be less than effective, or no canary could ever be promoted;"
                f" raise it to {self.effective:.0f}"
            )
        return self


class Tracking(Section):
    """Where training curves go."""

    tensorboard: bool = True
    mlflow: str | None = None  # tracking server, http://… or sqlite:///…; needs the extra "mlflow"
    wandb: str | None = None  # project at Weights & Biases; needs the extra "wandb"
