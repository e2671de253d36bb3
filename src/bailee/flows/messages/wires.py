"""The request formats in which agents speak to a model, told apart by path alone.

Sources: the Messages API reference (`/v1/messages`); Amazon Bedrock Runtime `InvokeModel` and
`InvokeModelWithResponseStream`; Vertex AI `rawPredict` and `streamRawPredict`.
"""

import re
from enum import StrEnum


class Wire(StrEnum):
    """A request format of the model's API."""

    MESSAGES = "messages"
    BEDROCK = "bedrock"
    VERTEX = "vertex"


_MESSAGES = re.compile(rb"/v1/messages(/count_tokens)?/?")
# One segment of a path, and no dot segment, encoded or not: what it stands for would be another path there
# (RFC 3986 section 6.2.2).
_SEGMENT = rb"(?!(?:\.|%2[eE]){1,2}/)[^/]+"
_BEDROCK = re.compile(rb"/model/" + _SEGMENT + rb"/(invoke|invoke-with-response-stream|count-tokens)")
_VERTEX = re.compile(
    rb"(/v1|/v1beta1)?/projects/"
    + _SEGMENT
    + rb"/locations/"
    + _SEGMENT
    + rb"/publishers/"
    + _SEGMENT
    + rb"/models/[^/]+:(rawPredict|streamRawPredict)"
)


def recognize_wire(path: bytes) -> Wire | None:
    """Return the format that a path (without query) belongs to, or None if it carries no model traffic."""
    if _MESSAGES.fullmatch(path):
        return Wire.MESSAGES
    if _BEDROCK.fullmatch(path):
        return Wire.BEDROCK
    if _VERTEX.fullmatch(path):
        return Wire.VERTEX
    return None
