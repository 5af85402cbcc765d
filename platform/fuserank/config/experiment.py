"""The whole experiment, and every key it may set."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, model_validator

from fuserank.config.data import Preprocess, Records, Storage
from fuserank.config.iterate import Iterate
from fuserank.config.model import Encoders, Fusion, Loss
from fuserank.config.runs import Evaluate, Index, Policy, Pretrain, Serve, Store, Tracking, Train, Tune
from fuserank.config.section import Section


class Experiment(Section):
    """A whole experiment; see each section's own docstring."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")] = "shop"
    seed: int = 0
    storage: Storage = Storage()
    records: Records = Records()
    preprocess: Preprocess = Preprocess()
    pretrain: Pretrain = Pretrain()
    encoders: Encoders = Encoders()
    fusion: Fusion = Fusion()
    loss: Loss = Loss()
    train: Train = Train()
    tune: Tune = Tune()
    index: Index = Index()
    evaluate: Evaluate = Evaluate()
    serve: Serve = Serve()
    policy: Policy = Policy()
    iterate: Iterate = Iterate()
    store: Store = Store()
    tracking: Tracking = Tracking()

    @model_validator(mode="after")
    def _heads_fit(self) -> "Experiment":
        if (recommender := self.encoders.recommender) is not None and self.fusion.width % recommender.heads:
            raise ValueError(
                f"fusion.width {self.fusion.width} must be a multiple of encoders.recommender.heads {recommender.heads}"
            )
        return self

    @model_validator(mode="after")
    def _ranks_stay_whole(self) -> "Experiment":
        """AdaLoRA prunes ranks in whole weights, which sharding takes apart."""
        kinds = [getattr(encoder, "adaptation", None) for _, encoder in self.encoders]
        if self.train.strategy == "fsdp" and "adalora" in kinds:
            raise ValueError("train.strategy fsdp cannot shard adaptation adalora; choose ddp, or lora")
        return self

    @model_validator(mode="after")
    def _spectrograms_are_ours(self) -> "Experiment":
        """A borrowed audio model reads its own features, of which no bands can be hidden."""
        if self.pretrain.audio.epochs and self.encoders.audio is not None and self.encoders.audio.model is not None:
            raise ValueError(
                "pretrain.audio hides parts of log-mel spectrograms, which encoders.audio.model does not read;"
                " set pretrain.audio.epochs to 0, or encoders.audio.model to null"
            )
        return self

    @model_validator(mode="after")
    def _weight_counts(self) -> "Experiment":
        kinds = {self.index.hybrid, *self.tune.space.hybrids}
        if self.tune.space.hybrid_weight is not None and not kinds & {"linear", "rrf"}:
            raise ValueError(
                "tune.space.hybrid_weight counts for linear and rrf alone;"
                " name one of them in tune.space.hybrids, or in index.hybrid"
            )
        return self

    @model_validator(mode="after")
    def _chances_stay_true(self) -> "Experiment":
        """What a policy did not draw has no chance that its estimates could be weighed by."""
        online = self.policy.online
        if self.serve.rules.pins and online is not None and "recommend" in online.scenarios:
            raise ValueError(
                "serve.rules.pins and policy.online for recommend do not go together: a pinned product is nobody's"
                " choice to learn from; use serve.rules.boost, or take recommend out of policy.online.scenarios"
            )
        return self

    @property
    def run(self) -> Path:
        """The run's folder."""
        return Path(self.storage.root) / self.name


def keys(model: type[BaseModel] = Experiment, prefix: str = "") -> list[str]:
    """Every dotted path a config may set, leaves and sections both."""
    found = []
    for name, field in model.model_fields.items():
        path = f"{prefix}{name}"
        found.append(path)
        for kind in sections_in(field.annotation):
            found += keys(kind, f"{path}.")
    return found


def sections_in(annotation: Any) -> list[type[BaseModel]]:
    """The sections a field's type may hold: none for a leaf."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [kind for part in getattr(annotation, "__args__", ()) for kind in sections_in(part)]
