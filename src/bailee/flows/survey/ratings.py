"""A rating as it is sent and held.

Source: specification, "Session quality surveys": "only your numeric rating (1, 2, 3, or dismiss) is
recorded."
"""

from enum import StrEnum
from typing import Annotated

import msgspec

PATH = "/api/survey"
_VERSION = r"^[0-9A-Za-z][0-9A-Za-z.+-]{0,31}$"


class Rating(StrEnum):
    """What can be answered. Dismissing is an answer, and is recorded as that."""

    BAD = "1"
    FINE = "2"
    GOOD = "3"
    DISMISS = "dismiss"


class Answer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that is sent: there is no field for anything else.

    Attributes:
        version: of the product.
    """

    rating: Rating
    version: Annotated[str, msgspec.Meta(pattern=_VERSION)]
