"""Names of the columns of a purchase log and of the tables that nextbuy returns."""

from typing import Final

USER: Final = "user_id"
ITEM: Final = "item_id"
TIME: Final = "timestamp"
PLATFORM: Final = "platform"
CATEGORY: Final = "category"
PRICE: Final = "price"
QUANTITY: Final = "quantity"
BASKET: Final = "basket_id"

REQUIRED: Final = (USER, ITEM)
OPTIONAL: Final = (TIME, PLATFORM, CATEGORY, PRICE, QUANTITY, BASKET)
ALL: Final = REQUIRED + OPTIONAL

RANK: Final = "rank"
PROBABILITY: Final = "probability"
REASON: Final = "reason"
