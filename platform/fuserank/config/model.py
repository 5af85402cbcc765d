"""Sections on the model: encoders, fusion and the weights of its losses."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from fuserank.config.section import Fraction, Positive, Section, Weight

Adaptation = Literal["frozen", "full", "lora", "adalora", "adapter"]


class Adapter(Section):
    """Small trained parts beside frozen weights, for adaptation lora, adalora and adapter."""

    rank: Positive = 8  # of lora; of adalora on average, once it has shared out its ranks
    alpha: Positive = 16  # lora and adalora: the parts count alpha / rank times
    dropout: Fraction = 0.0  # lora and adalora
    width: Positive = 32  # of a bottleneck adapter
    layers: list[str] = []  # ends of the names of the layers that get parts; none: every one that fits


class TextEncoder(Section):
    """M_LM: a small BERT built from these numbers, or `model`: any Hugging Face text model by name or folder."""

    model: str | None = None
    layers: Positive = 2
    hidden: Positive = 128
    heads: Positive = 4
    pooling: Literal["mean", "cls"] = "mean"
    adaptation: Adaptation = "full"
    adapter: Adapter = Adapter()

    @model_validator(mode="after")
    def _heads_fit(self) -> "TextEncoder":
        if self.model is None and self.hidden % self.heads:
            raise ValueError(f"hidden {self.hidden} must be a multiple of heads {self.heads}")
        return self


class ImageEncoder(Section):
    """M_V: a torchvision classification backbone by name, weights from a local safetensors file if given."""

    model: str = "resnet10"  # resnet10 is ours (one block a stage); else any torchvision name, or a Hugging Face folder
    channels: Positive = 32  # width of resnet10's first stage
    weights: str | None = None
    adaptation: Adaptation = "full"
    adapter: Adapter = Adapter()


class AudioEncoder(Section):
    """M_A: a log-mel convolutional encoder, or `model`: any Hugging Face audio encoder by name or folder."""

    model: str | None = None
    channels: Annotated[int, Field(gt=0, multiple_of=4)] = 48  # normalised in groups of 4
    adaptation: Adaptation = "full"
    adapter: Adapter = Adapter()

    @model_validator(mode="after")
    def _parts_fit(self) -> "AudioEncoder":
        if self.model is None and self.adaptation not in ("frozen", "full"):
            raise ValueError(f"adaptation {self.adaptation} is for a Hugging Face model: set model, or choose full")
        return self


class PriceEncoder(Section):
    """Learned embedding of log-price quantiles plus Fourier features of log-price."""

    frequencies: Positive = 8


class AttributesEncoder(Section):
    """Mean of the embeddings of a product's brand, category and attribute values, and a small network over it."""

    hidden: Positive = 64


class RecommenderModel(Section):
    """M_R: a causal transformer over the user's recent events on fused product vectors and learnt ids."""

    events: Positive = 20  # how far back it looks
    layers: Positive = 2
    heads: Positive = 4
    dropout: Fraction = 0.2
    ids: bool = True  # what is learnt of each product besides its content; new products have content alone


_MODALITIES = ("text", "image", "audio", "price", "attributes")  # as in records/schema.py, which needs pyarrow


class Encoders(Section):
    """The models that see each modality, and the recommender; a null encoder leaves its modality out."""

    text: TextEncoder | None = TextEncoder()
    image: ImageEncoder | None = ImageEncoder()
    audio: AudioEncoder | None = AudioEncoder()
    price: PriceEncoder | None = PriceEncoder()
    attributes: AttributesEncoder | None = AttributesEncoder()
    recommender: RecommenderModel | None = RecommenderModel()

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(m for m in _MODALITIES if getattr(self, m) is not None)

    @model_validator(mode="after")
    def _something(self) -> "Encoders":
        if not self.modalities:
            raise ValueError(f"encoders: at least one of {', '.join(_MODALITIES)} must be configured")
        return self


FusionKind = Literal["concat", "attention", "gated", "ensemble", "joint"]


class Fusion(Section):
    """How one product's modality vectors become one vector."""

    kind: FusionKind = "gated"
    width: Annotated[int, Field(gt=0, multiple_of=4)] = 128  # D: every modality is projected to it; 4 attention heads
    projection_layers: Literal[1, 2] = 1  # of what maps an encoder's output to D; 2 where judged queries are many
    modality_dropout: Fraction = 0.2  # chance that training hides one present modality (never the last)


class LossWeights(Section):
    """L = Σ weight · loss; a weight of 0 leaves the head out. The tuner searches these."""

    text: Weight = 0.5
    image: Weight = 0.5
    audio: Weight = 0.3
    price: Weight = 0.1
    attributes: Weight = 0.3
    recommend: Weight = 0.3
    fused: Weight = 1.0
    align: Weight = 0.2

    @model_validator(mode="after")
    def _something(self) -> "LossWeights":
        if not any(self.model_dump().values()):
            raise ValueError("at least one loss weight must be above 0")
        return self


class Loss(Section):
    """The ranking and alignment losses."""

    weights: LossWeights = LossWeights()
    temperature: Annotated[float, Field(gt=0)] = 0.07  # where it starts
    learn_temperature: bool = True  # of every head on its own; else it stays
    unjudged: float | None = None  # unjudged products that score above a query's best answer less this are no negatives
