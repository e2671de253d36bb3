"""The type that session content travels in: it can be sealed and measured, but not shown by accident."""

from typing import NoReturn


class Content:
    """Bytes of a session that no representation, log line or format string gives away.

    The bytes come out only through `reveal()`, so that a reader of the code can find every place
    where content is looked at by searching for that one word.
    """

    __slots__ = ("_data",)

    def __init__(self, data: bytes) -> None:
        self._data = data

    def reveal(self) -> bytes:
        """Return the bytes themselves."""
        return self._data

    def __len__(self) -> int:
        return len(self._data)

    def __repr__(self) -> str:
        return f"<content, {len(self._data)} bytes>"

    __str__ = __repr__

    def __format__(self, specification: str) -> str:
        return repr(self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Content) and self._data == other._data

    def __hash__(self) -> int:
        return hash(self._data)

    def __reduce__(self) -> NoReturn:
        raise TypeError("content is not pickled: a pickle is a copy in clear")
