"""Experiments as YAML files: read with overrides, checked, written, changed."""

import difflib
import os
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from fuserank.config.experiment import Experiment, keys
from fuserank.errors import ConfigError


def _nearest(path: str) -> str:
    """Which key was meant: the nearest sibling, the same name in another section, or else what the section has."""
    known = [key for key in keys() if key != path]
    parent, _, leaf = path.rpartition(".")
    siblings = [key for key in known if key.rpartition(".")[0] == parent]
    alike = difflib.get_close_matches(leaf, [key.rpartition(".")[2] for key in siblings], n=1, cutoff=0.6)
    elsewhere = [key for key in known if key.rpartition(".")[2] == leaf]
    if alike:
        return f"Did you mean `{f'{parent}.{alike[0]}'.lstrip('.')}`?"
    if match := difflib.get_close_matches(path, elsewhere, n=1, cutoff=0.0):
        return f"Did you mean `{match[0]}`?"
    names = ", ".join(key.rpartition(".")[2] for key in siblings)
    return f"{f'`{parent}`' if parent else 'An experiment'} has {names}." if names else "See docs/CONFIG.md."


def validate(values: dict) -> Experiment:
    """A dict of values → Experiment.

    Raises:
        ConfigError: naming the key, what was wrong and the nearest valid key.
    """
    try:
        return Experiment.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise ConfigError(f"unknown config key `{path}`.", _nearest(path)) from None
        detail = first["msg"].removeprefix("Value error, ")
        got = "" if isinstance(first["input"], dict) else f" (got {first['input']!r:.80})"
        raise ConfigError(f"config key `{path or 'experiment'}`: {detail}{got}.") from None


def load(path: str | os.PathLike, sets: list[str] | None = None) -> Experiment:
    """Read an experiment file and apply `key=value` overrides (values are YAML).

    Raises:
        ConfigError: missing file, malformed YAML, unknown key or invalid value.
    """
    file = Path(path)
    if not file.is_file():
        raise ConfigError(
            f"config file {file} does not exist.", "Give -c a YAML file, e.g. workloads/configs/demo.yaml."
        )
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"{file} is not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{file} must hold a mapping of sections, not a {type(values).__name__}.")
    for item in sets or []:
        _apply(values, item)
    return validate(values)


def _apply(values: dict, item: str) -> None:
    path, equals, text = item.partition("=")
    path = path.strip()
    if not equals or not path:
        raise ConfigError(f"--set {item!r} is not key=value.", "Write e.g. --set fusion.kind=concat.")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {path}: the value is not valid YAML: {error}") from None
    _put(values, path, value)


def _put(values: dict, path: str, value: Any) -> None:
    *parents, leaf = path.split(".")
    node = values
    for part in parents:
        if node.get(part) is None:
            node[part] = {}
        node = node[part]
        if not isinstance(node, dict):
            raise ConfigError(f"cannot set `{path}`: `{part}` is a value, not a section.", _nearest(path))
    node[leaf] = value


def dump(experiment: Experiment, path: str | os.PathLike) -> None:
    """Write an experiment as YAML that `load` reads back to the same experiment."""
    text = yaml.safe_dump(experiment.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    Path(path).write_text(text, encoding="utf-8")


def update(experiment: Experiment, sets: dict[str, Any]) -> Experiment:
    """A copy with dotted paths replaced, validated anew."""
    values = experiment.model_dump(mode="json")
    for path, value in sets.items():
        _put(values, path, value)
    return validate(values)
