"""What schemathesis cannot read off the OpenAPI document; loaded by fuzz_service.py.

- Moments lie between 1970 and today: a purchase too far ahead of the clock is refused, and a schema
  has no word for now.
- Whole numbers are written as such: the service refuses 1.0 for 1, which JSON Schema cannot say.
- A lowest price is not above a highest one.
- NDJSON is text made of lines, some of them good; examples of it are bytes.
"""

import json
from datetime import datetime
from typing import Any

import schemathesis
from hypothesis import strategies as st

NDJSON = ("application/x-ndjson", "application/ndjson", "application/jsonl")
MOMENTS = st.datetimes(datetime(1970, 1, 1), datetime(2026, 6, 1)).map(
    lambda moment: moment.isoformat(timespec="microseconds") + "Z"
)

schemathesis.openapi.format("date-time", MOMENTS)

GOOD_LINES = st.fixed_dictionaries(
    {"user_id": st.sampled_from(["u1", "=u2", "u/3"]), "item_id": st.sampled_from(["a", "b"])},
    optional={"timestamp": MOMENTS, "price": st.floats(0, 100), "quantity": st.integers(1, 5)},
).map(json.dumps)
ANY_LINES = st.text(st.characters(blacklist_categories=["Cs"]), max_size=60)
UPLOADS = st.lists(GOOD_LINES | ANY_LINES, min_size=1, max_size=20).map(
    lambda lines: "\n".join(lines).encode()
)

for kind in NDJSON:
    schemathesis.openapi.media_type(kind, UPLOADS)


@schemathesis.serializer(*NDJSON)
def as_bytes(_: Any, value: Any) -> Any:
    return value if isinstance(value, bytes) else json.dumps(value).encode()


def whole(value: Any) -> Any:
    """The same with 1 in place of 1.0."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [whole(part) for part in value]
    if isinstance(value, dict):
        return {name: whole(part) for name, part in value.items()}
    return value


def in_order(rules: Any) -> None:
    """A lowest price above a highest one is refused, and no schema compares two fields."""
    band = [rules.get("lowest_price"), rules.get("highest_price")] if rules else []
    if len(band) == 2 and all(isinstance(price, int | float) for price in band):
        rules["lowest_price"], rules["highest_price"] = sorted(band)


@schemathesis.hook
def map_body(_: Any, body: Any) -> Any:
    body = whole(body)
    if isinstance(body, dict) and isinstance(body.get("rules"), dict):
        in_order(body["rules"])
    return body


@schemathesis.hook
def before_load_schema(_: Any, raw_schema: dict[str, Any]) -> None:
    for operations in raw_schema["paths"].values():
        for operation in operations.values():
            content = operation.get("requestBody", {}).get("content", {})
            for kind in content.keys() & set(NDJSON):
                for example in content[kind].get("examples", {}).values():
                    example["value"] = example["value"].encode()
