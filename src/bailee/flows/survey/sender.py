"""Sends a rating. It is given the rating, the version and a way to send, and can see no conversation."""

from collections.abc import Callable

import msgspec

from bailee.flows.survey.ratings import PATH, Answer, Rating

# Path and JSON in, status out.
Post = Callable[[str, bytes], int]


def send_rating(rating: Rating, version: str, post: Post) -> bool:
    """Send a rating once and tell whether it was taken. One that was not is lost: no copy is kept."""
    try:
        return post(PATH, msgspec.json.encode(Answer(rating, version))) == 204
    except OSError:
        return False
