"""Every error fuserank raises on purpose. Each message says what was wrong, where, and what to do instead.

FuserankError
├── ConfigError          a config file, key or --set value is not valid
├── InputError           a shop's file, column, row or medium cannot be used
│   ├── EmptyCatalogueError   no usable product is left
│   └── MediaError            one picture or sound cannot be decoded (quarantines that modality, never the product)
├── StageError           a stage cannot run
│   └── MissingStageError     an earlier stage has not been run yet
├── ModelError           a checkpoint, encoder or tokenizer cannot be loaded or does not fit
├── EvaluationError       scores, grades or rankings cannot be judged
│   └── LeakError             training has seen what evaluation asks
├── PolicyError          a policy's features, state, log or decision do not fit
├── FilterError          a search filter is malformed or names an unknown field
├── StoreError           the database refused or cannot be reached
└── ServeError           serving cannot start (port in use, no generation)
"""


class FuserankError(Exception):
    """Base of all deliberate errors. `hint` names the remedy and is printed after the message."""

    def __init__(self, message: str, hint: str = ""):
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()

    def __reduce__(self):  # keeps `hint` when Ray carries the error between processes
        return (type(self), (self.message, self.hint))


class ConfigError(FuserankError):
    """A config file, key or --set value is not valid."""


class InputError(FuserankError):
    """A shop's file, column, row or medium cannot be used."""


class EmptyCatalogueError(InputError):
    """No usable product is left."""


class MediaError(InputError):
    """One picture or sound cannot be decoded."""


class StageError(FuserankError):
    """A stage cannot run."""


class MissingStageError(StageError):
    """An earlier stage has not been run yet."""


class ModelError(FuserankError):
    """A checkpoint, encoder or tokenizer cannot be loaded or does not fit."""


class EvaluationError(FuserankError):
    """Scores, grades or rankings cannot be judged."""


class LeakError(EvaluationError):
    """Training has seen what evaluation asks."""


class PolicyError(FuserankError):
    """A policy's features, state, log or decision do not fit."""


class FilterError(FuserankError):
    """A search filter is malformed or names an unknown field."""


class StoreError(FuserankError):
    """The database refused or cannot be reached."""


class ServeError(FuserankError):
    """Serving cannot start."""
