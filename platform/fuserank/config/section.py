"""What every section of the config is made of."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]


class Section(BaseModel):
    """A frozen part of the config; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")
