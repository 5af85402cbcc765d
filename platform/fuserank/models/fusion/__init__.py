"""One file a fusion: modality vectors to one vector."""

from fuserank.errors import ConfigError
from fuserank.models.fusion.attention import AttentionFusion
from fuserank.models.fusion.base import Fusion
from fuserank.models.fusion.concat import ConcatFusion
from fuserank.models.fusion.ensemble import EnsembleFusion
from fuserank.models.fusion.gated import GatedFusion
from fuserank.models.fusion.joint import JointFusion

FUSIONS: dict[str, type] = {
    "concat": ConcatFusion,
    "attention": AttentionFusion,
    "gated": GatedFusion,
    "ensemble": EnsembleFusion,
    "joint": JointFusion,
}


def build_fusion(kind: str, modalities: int, width: int) -> Fusion:
    """The fusion of that name over `modalities` vectors of `width`.

    Raises:
        ConfigError: no such fusion.
    """
    if kind not in FUSIONS:
        raise ConfigError(f"unknown fusion {kind!r}.", f"Choose one of {', '.join(FUSIONS)}.")
    return FUSIONS[kind](modalities, width)
