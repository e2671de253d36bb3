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
_BEDROCK = re.compile(rb"/model/[^/]+/(invoke|invoke-with-response-stream|count-tokens)")
_VERTEX = re.compile(
    rb"(/v1|/v1beta1)?/projects/[^/]+/locations/[^/]+/publishers/[^/]+/models/[^/]+:(rawPredict|streamRawPredict)"
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
