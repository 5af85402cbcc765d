"""How likely a shown product is clicked and bought: appeal, which features of user, context, query and product tell,
times the chance that its place is looked at.

P(click | x, p) = looked_at(p) · σ(f(x)), the position-based model (Chuklin et al. 2015, Click Models for Web Search,
3.3), so that a place is not taken for a good product. P(purchase) = P(click) · σ(g(x)): purchases are learnt over all
that was shown, not over the clicked alone (ESMM, Ma et al. 2018, https://arxiv.org/abs/1804.07931). f and g are a
linear part and a small network beside it (wide & deep, Cheng et al. 2016, https://arxiv.org/abs/1606.07792).

B shown products · F features · P places.
"""

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from fuserank.errors import ModelError
from fuserank.models.chances import FILE, HEADS, LEAST


class ClickModel(nn.Module):
    """[B, F] and places [B] → probabilities [B, 2] of HEADS."""

    center: Tensor
    spread: Tensor
    slope: Tensor
    offset: Tensor

    def __init__(self, features: int, places: int, inner: int = 16):
        """
        Args:
            features: F. places: P; later ones are looked at as the last. inner: hidden units.
        """
        super().__init__()
        self.register_buffer("center", torch.zeros(features))
        self.register_buffer("spread", torch.ones(features))
        self.register_buffer("slope", torch.ones(len(HEADS)))
        self.register_buffer("offset", torch.zeros(len(HEADS)))
        self.linear = nn.Linear(features, len(HEADS))
        self.network = nn.Sequential(nn.Linear(features, inner), nn.ReLU(), nn.Linear(inner, len(HEADS), bias=False))
        self.places = nn.Parameter(torch.full((max(places - 1, 0),), -1.0))
        for layer in (self.linear, self.network[2]):
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)

    def looked_at(self) -> Tensor:
        """[P]: the first place's is 1, no other is above it."""
        return torch.exp(-F.softplus(F.pad(self.places, (1, 0), value=-torch.inf)))

    def log_chances(self, features: Tensor, places: Tensor) -> Tensor:
        """Logarithms of the uncalibrated probabilities, [B, 2]."""
        scaled = (features - self.center) / self.spread
        appeal = F.logsigmoid(self.linear(scaled) + self.network(scaled))
        looked = -F.softplus(F.pad(self.places, (1, 0), value=-torch.inf))
        click = looked[places.clamp(max=len(looked) - 1)] + appeal[:, 0]
        return torch.stack([click, click + appeal[:, 1]], 1)

    def forward(self, features: Tensor, places: Tensor) -> Tensor:
        """Calibrated: a line through each head's log-odds (Platt 1999), the identity until one was fitted."""
        return torch.sigmoid(log_odds(self.log_chances(features, places)) * self.slope + self.offset)


def log_odds(log_chance: Tensor) -> Tensor:
    """Of probabilities given by their logarithms; finite."""
    log_chance = log_chance.clamp(max=-LEAST)
    return log_chance - torch.log(-torch.expm1(log_chance))


def save_click(model: ClickModel, names: tuple[str, ...], folder: Path) -> None:
    """Write FILE. names: of the F features."""
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(weights, folder / FILE, metadata={"features": "\n".join(names)})


def load_click(folder: Path) -> tuple[ClickModel, tuple[str, ...]]:
    """The model and its features' names.

    Raises:
        ModelError: the file is missing or damaged.
    """
    try:
        with safe_open(folder / FILE, "pt") as file:
            names = tuple(file.metadata()["features"].split("\n"))
            keys = file.keys()  # of a file that is no dict
            weights = {name: file.get_tensor(name) for name in keys}
        model = ClickModel(len(names), len(weights["places"]) + 1, len(weights["network.0.bias"]))
        model.load_state_dict(weights)
    except (OSError, SafetensorError, KeyError, TypeError, RuntimeError) as error:
        raise ModelError(f"{folder / FILE} cannot be read: {error}", "Run `fuserank feedback` again.") from error
    return model.eval(), names
