"""Flags for what looks wrong but may be right, which take nothing away; sessions for events without one.

Reads and writes nothing.
"""

from collections import defaultdict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fuserank.records.schema import EVENT, FLAG

HOUR = 3_600_000  # milliseconds
SPREAD = 6.0  # robust standard deviations of log-price from the median
LEAST = 30  # prices in one currency below which none is called an outlier


def price_outliers(products: pa.Table) -> pa.Table:
    """Products whose price is far from the others' in its currency: a slipped decimal point, cents for euros.

    Far is more than six robust standard deviations (1.4826 × median absolute deviation, Hampel 1974) of the log-price.

    Args:
        products: product_id, price and currency.

    Returns:
        FLAG.
    """
    groups: dict[str | None, list[tuple[str, float]]] = defaultdict(list)
    columns = (products[name].to_pylist() for name in ("product_id", "price", "currency"))
    for identity, price, currency in zip(*columns, strict=True):
        if price is not None and price > 0:
            groups[currency].append((identity, float(price)))
    found = []
    for currency, rows in groups.items():
        logs = np.log([price for _, price in rows])
        middle = float(np.median(logs))
        spread = max(1.4826 * float(np.median(np.abs(logs - middle))), 0.1)  # prices nearly all alike
        if len(rows) < LEAST:
            continue
        for place in np.flatnonzero(np.abs(logs - middle) > SPREAD * spread):
            identity, price = rows[place]
            detail = f"{price:g} {currency or ''}".strip() + f", median {np.exp(middle):.2f}"
            found.append({"record": "product", "id": identity, "flag": "price outlier", "detail": detail})
    return pa.Table.from_pylist(sorted(found, key=lambda flag: flag["id"]), schema=FLAG)


def bot_like(events: pa.Table, per_hour: int) -> pa.Table:
    """Users with more than `per_hour` events within any hour: no person shops like that.

    Args:
        events: EVENT, in time order.

    Returns:
        FLAG.
    """
    times: dict[str, list[int]] = defaultdict(list)
    stamps = events["timestamp"].cast(pa.int64()).to_pylist()
    for user, stamp in zip(events["user_id"].to_pylist(), stamps, strict=True):
        if user is not None:
            times[user].append(stamp)
    found = []
    for user in sorted(times):
        moments = np.array(times[user])
        until = np.searchsorted(moments, moments + HOUR, side="right")
        most = int((until - np.arange(len(moments))).max())
        if most > per_hour:
            found.append({"record": "user", "id": user, "flag": "bot-like", "detail": f"{most} events within an hour"})
    return pa.Table.from_pylist(found, schema=FLAG)


def with_sessions(events: pa.Table, gap_minutes: float) -> pa.Table:
    """Events of known users without a session get one: a pause longer than the gap begins the next.

    Args:
        events: EVENT, in time order.

    Returns:
        EVENT with session ids `<user>#<number>` where there were none.
    """
    last: dict[str, tuple[int, int]] = {}
    sessions: list[str | None] = []
    columns = (events["user_id"].to_pylist(), events["timestamp"].cast(pa.int64()).to_pylist())
    for user, stamp in zip(*columns, strict=True):
        if user is None:
            sessions.append(None)
            continue
        number, before = last.get(user, (0, stamp))
        number += stamp - before > gap_minutes * 60_000
        last[user] = number, stamp
        sessions.append(f"{user}#{number}")
    made = pa.chunked_array([pa.array(sessions, pa.string())])
    place = EVENT.get_field_index("session_id")
    return events.set_column(place, EVENT.field(place), pc.call_function("coalesce", [events["session_id"], made]))
