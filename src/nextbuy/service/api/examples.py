"""An example of each request, for the OpenAPI document: what a reader copies, and a fuzzer begins
with."""

from collections.abc import Mapping
from typing import Any, Final

_ROWS: Final = (
    {"user_id": "4711", "item_id": "tea", "timestamp": "2026-03-01T12:00:00Z"},
    {"user_id": "4711", "item_id": "milk", "timestamp": "2026-03-08T18:30:00+05:30",
     "platform": "Zepto", "category": "dairy", "price": 1.2, "quantity": 2, "basket_id": "b-17"},
)  # fmt: skip
_LINES: Final = (
    '{"user_id": "4711", "item_id": "tea", "timestamp": "2026-03-01T12:00:00Z"}\n'
    '{"user_id": "4712", "item_id": "rice", "price": 3.5, "platform": "Zepto"}\n'
)

BODIES: Final[Mapping[str, Mapping[str, Any]]] = {
    "store_purchases": {
        "one purchase, of now": {"purchase": {"user_id": "4711", "item_id": "tea"}},
        "a basket": {"purchases": list(_ROWS)},
    },
    "store_bulk": {"a purchase a line": _LINES},
    "predict": {
        "known users": {"users": ["4711", "4712"], "k": 3, "explain": True},
        "a raw history": {"histories": [{"purchases": [{"item_id": "tea"}, {"item_id": "milk"}]}]},
        "rules of the shop": {
            "users": ["4711"], "k": 5, "as_of": "2026-04-01T00:00:00Z",
            "rules": {"exclude": ["tea"], "highest_price": 20, "boost_items": {"milk": 1.5}},
        },
    },
    "forecast": {"within a month": {"users": ["4711", "4712"], "horizon_days": 30}},
    "begin_audience": {
        "of an item": {"item": "tea", "within_days": 30, "size": 1_000},
        "of a platform": {
            "platform": "Zepto", "within_days": 7, "min_probability": 0.2, "holdout_share": 0.1,
        },
    },
    "swap_model": {"the newest": {"name": "latest"}, "one of them": {"name": "000001"}},
}  # fmt: skip
"""Of bodies, by operation and in words."""

PARAMETERS: Final[Mapping[str, Any]] = {
    "user_id": "4711",
    "limit": 20,
    "before": "0.1772366400000000.0",
    "job_id": "1b4e28ba2fa1",
    "format": "jsonl",
    "Idempotency-Key": "order-4711",
}
"""Of what paths, queries and headers carry, by name."""


def show(operation: dict[str, Any]) -> None:
    """Write the examples into the description of an operation."""
    for parameter in operation.get("parameters", ()):
        parameter["example"] = PARAMETERS[parameter["name"]]
    named = BODIES.get(operation["operationId"], {})
    content = operation.get("requestBody", {}).get("content", {})
    for kind in content:
        content[kind]["examples"] = {
            words.replace(" ", "-").replace(",", ""): {"summary": words, "value": value}
            for words, value in named.items()
        }
