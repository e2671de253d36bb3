"""What happens in a turn, as the terminal draws it and `--output stream` writes it."""

import msgspec


class Event(msgspec.Struct, frozen=True, tag_field="type", tag=str.lower):
    """Something that happened; the tag is the name in small letters."""


class Text(Event, frozen=True):
    """A piece of the answer, as it comes."""

    text: str


class Thinking(Event, frozen=True):
    """A piece of the model's thinking."""

    text: str


class Called(Event, frozen=True):
    """The model called a tool.

    Attributes:
        subject: a path or a command line.
        detail: what it would change, such as a diff.
    """

    id: str
    tool: str
    subject: str
    detail: str = ""


class Result(Event, frozen=True):
    """A call ended."""

    id: str
    tool: str
    text: str
    is_error: bool


class Usage(msgspec.Struct, frozen=True, omit_defaults=False):
    """Tokens, as the model's API counts them."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cache_read_tokens + other.cache_read_tokens,
            self.cache_write_tokens + other.cache_write_tokens,
        )

    @property
    def context_tokens(self) -> int:
        """How many tokens the model had before it, answer included."""
        return self.input_tokens + self.cache_read_tokens + self.cache_write_tokens + self.output_tokens


class Answered(Event, frozen=True):
    """One answer of the model is whole.

    Attributes:
        milliseconds: from the request to the end of the answer.
    """

    model: str
    usage: Usage
    stop_reason: str
    milliseconds: int


class Compacted(Event, frozen=True):
    """The conversation was replaced by its summary."""

    before_tokens: int
    summary: str


class Ended(Event, frozen=True):
    """The turn is over.

    Attributes:
        reason: `done`, `interrupted`, `limit` where the answer or the number of rounds reached its limit, or
            `refused` where the model declined.
    """

    reason: str
    rounds: int
    usage: Usage
