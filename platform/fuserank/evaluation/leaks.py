"""Whether what evaluation asks was seen in training: checks on a run's own records. Tables in, leaks out.

What is a leak, and what only looks like one, is told in docs/EVALUATION.md:

- repeated-products: products are split, and one held out reads the same, in the field that splits, as one trained on;
- repeated-queries: a held-out query reads, looks and sounds like one trained on, over the same products;
- later-events: training saw an event at or after the first one held out, or one of a held-out user;
- label-as-feature: a field that a model reads is the label, for nearly every product.

Training means all that fits a weight: validation queries fit the reranker and choose the epoch.
"""

from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass

import pyarrow as pa
import pyarrow.compute as pc

from fuserank.errors import LeakError
from fuserank.records.splits import EVALUATION

NEARLY = 0.95
"""Share of the products from which a field that equals a label is the label."""
SHOWN = 3

REMEDIES = {
    "repeated-products": "Clean the field so that equal products are equal in the file, or split by another field.",
    "repeated-queries": "Set records.split.key: text, so that equal queries are on one side.",
    "later-events": "Split the events again: fuserank preprocess with records.event_split.",
    "label-as-feature": "Take it out of preprocess.text_fields and word_fields, or set encoders.attributes: null.",
}


@dataclass(frozen=True)
class Leak:
    """One way in which training saw what evaluation asks."""

    name: str
    count: int  # products, queries, events or users concerned
    of: int  # of so many
    detail: str  # what was found, with an example

    def as_dict(self) -> dict:
        return asdict(self)


def refuse(leaks: Collection[Leak], allowed: Collection[str]) -> None:
    """Ends the evaluation where a leak is not allowed.

    Raises:
        LeakError: names every leak, its size and an example.
    """
    fatal = [leak for leak in leaks if leak.name not in allowed]
    if fatal:
        names = ", ".join(dict.fromkeys(leak.name for leak in fatal))
        raise LeakError(
            "training has seen what this evaluation asks. "
            + " ".join(f"{leak.name}: {leak.count} of {leak.of} {leak.detail}." for leak in fatal),
            " ".join(REMEDIES[name] for name in dict.fromkeys(leak.name for leak in fatal))
            + f" If you know better: --set 'evaluate.allow_leaks=[{names}]'; the report will say so.",
        )


def repeated_products(products: pa.Table, key: str) -> list[Leak]:
    """Held-out products that equal one of training in the field that splits: PRODUCT → none or one leak."""
    rows = products.select([key, "split"]).to_pylist()
    seen = {_plain(row[key]) for row in rows if row["split"] not in (None, EVALUATION)} - {""}
    held = [_plain(row[key]) for row in rows if row["split"] == EVALUATION]
    found = [text for text in held if text in seen]
    return _leak("repeated-products", found, len(held), f"held-out products have the {key} of one trained on")


def repeated_queries(queries: pa.Table, products_split: bool, held_out_group: str | None = None) -> list[Leak]:
    """Held-out queries that training asks too: QUERY → none or one leak.

    Args:
        products_split: the products are split, so that only the queries of `held_out_group` must be new.
    """
    rows = queries.select(["text", "image", "audio", "split", "group"]).to_pylist()

    def asked(row: dict) -> tuple:
        return (_plain(row["text"]), row["image"], row["audio"])

    seen = {asked(row) for row in rows if row["split"] not in (None, EVALUATION)}
    held = [row for row in rows if row["split"] == EVALUATION]
    if products_split:
        held = [row for row in held if row["group"] == held_out_group]
    found = [row["text"] or "(asked with a picture or sound)" for row in held if asked(row) in seen]
    return _leak("repeated-queries", found, len(held), "held-out queries are asked in training too")


def later_events(events: pa.Table, by_user: bool) -> list[Leak]:
    """Training events of the evaluation's time, or its users: SPLIT_EVENT → none or one leak.

    Without a split in the table there is nothing to find: training then reads each user's events without the last.
    """
    held = pc.call_function("equal", [events["split"], EVALUATION])
    evaluation, training = events.filter(held), events.filter(pc.call_function("invert", [held]))
    if not evaluation.num_rows:
        return []
    if by_user:
        users = set(evaluation["user_id"].drop_null().to_pylist())
        found = sorted(users & set(training["user_id"].drop_null().to_pylist()))
        return _leak("later-events", found, len(users), "held-out users have events in training")
    first = pc.call_function("min", [evaluation["timestamp"]]).as_py()
    late = training.filter(
        pc.call_function("greater_equal", [training["timestamp"], pa.scalar(first, pa.timestamp("ms"))])
    )
    what = f"events trained on are not earlier than {first}, when the held-out time begins"
    return _leak("later-events", late["event_id"].to_pylist(), training.num_rows, what)


def label_as_feature(products: pa.Table, read: Iterable[str]) -> list[Leak]:
    """Fields that are a label: PRODUCT → a leak for each such pair of label and field.

    Args:
        read: fields that a model reads: of PRODUCT, `attributes.‹name›`, or `attributes` for any of them.
    """
    fields = list(read)
    rows = products.select([*dict.fromkeys(f.partition(".")[0] for f in fields), "labels"]).to_pylist()
    equal: dict[tuple[str, str], int] = {}
    counts: dict[str, int] = {}
    values: dict[str, set[str]] = {}
    for row in rows:
        shown = {field: {_plain(value) for value in _values(row, field)} for field in fields}
        for label, value in row["labels"] or []:
            counts[label] = counts.get(label, 0) + 1
            values.setdefault(label, set()).add(_plain(value))
            for field in fields:
                equal[label, field] = equal.get((label, field), 0) + (_plain(value) in shown[field])
    return [
        Leak("label-as-feature", count, counts[label], f"products have their label {label!r} as {field}, which is read")
        for (label, field), count in equal.items()
        if len(values[label]) > 1 and count >= NEARLY * counts[label]
    ]


def _values(row: dict, field: str) -> list[str]:
    name, _, attribute = field.partition(".")
    found = row[name]
    if attribute:
        return [value for key, value in found or [] if key == attribute]
    if name == "attributes":
        return [value for _, value in found or []]
    return list(found) if isinstance(found, list) else [found] if found else []


def _plain(value: object) -> str:
    """Text as it is compared: without case, spaces in a row as one; a little more than splits.split_of does."""
    words = " ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)
    return " ".join(words.casefold().split())


def _leak(name: str, found: list[str], of: int, what: str) -> list[Leak]:
    examples = ", ".join(repr(text) for text in list(dict.fromkeys(found))[:SHOWN])
    return [Leak(name, len(found), of, f"{what} ({examples})")] if found else []
