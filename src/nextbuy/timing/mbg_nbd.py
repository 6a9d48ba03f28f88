"""MBG/NBD: like BG/NBD, but users may drop out after their first purchase, too."""

from typing import ClassVar

from nextbuy.timing.bg_nbd import BetaGeometric


class MbgNbd(BetaGeometric):
    """Batislam, Denizel and Filiztekin 2007; Hoppe and Wagner 2007."""

    name: ClassVar[str] = "mbg-nbd"
    first: ClassVar[int] = 1
