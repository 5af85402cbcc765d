"""How deep and how bushy a JSON value is, found without recursion.

JSON that Python can parse may still be too deep to be sent on: pickling a list in a list in a list … fails some hundred
levels down, and then a whole batch fails with it. And every condition of a filter is a pass over the catalogue.
"""

from typing import Any

from serve.envelope import Failure, RequestError

LEVELS = 32  # of lists and objects in one another
CONDITIONS = 1000  # objects in one filter


def refuse_deep(value: Any, what: str) -> None:
    """Raises RequestError (422) for a value of more than LEVELS levels."""
    if _measure(value)[0] > LEVELS:
        raise RequestError(
            Failure(422, "too_deep", f"{what}: more than {LEVELS} levels in one another.", "Flatten it.")
        )


def refuse_large_filter(condition: dict[str, Any] | None) -> None:
    """Raises RequestError (422) for a filter that is too deep or has too many conditions."""
    if condition is None:
        return
    refuse_deep(condition, "filter")
    if _measure(condition)[1] > CONDITIONS:
        hint = 'Name several values in one condition: {"brand": ["a", "b"]}.'
        raise RequestError(Failure(422, "filter_too_large", f"filter: more than {CONDITIONS} conditions.", hint))


def _measure(value: Any) -> tuple[int, int]:
    """Levels (counted up to one more than LEVELS) and objects."""
    level, depth, objects = [value], 0, 0
    while level and depth <= LEVELS:
        inner: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                objects += 1
                inner.extend(part for part in one.values() if isinstance(part, dict | list))
            elif isinstance(one, list):
                inner.extend(part for part in one if isinstance(part, dict | list))
        depth += 1
        level = inner
    return depth, objects
