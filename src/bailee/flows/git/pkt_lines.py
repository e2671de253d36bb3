"""Packet lines, Git's framing (gitprotocol-common(5), "pkt-line Format"): read as bytes come, and written."""

FLUSH, DELIMITER, END = 0, 1, 2
FLUSH_LINE = b"0000"
# A line's length counts its own four digits; 65520 is the longest there is.
_DIGITS = 4
LONGEST = 65520
# What a band carries of a message (gitprotocol-pack(5), "side-band-64k"): the band's number takes a byte.
_BAND_BYTES = LONGEST - _DIGITS - 1


class Malformed(ValueError):
    """The bytes are no packet lines."""


class LineReader:
    """Takes lines out of bytes as they come.

    `take` gives the next one; what was not taken stays in `rest`.
    """

    def __init__(self) -> None:
        self._data = bytearray()

    def add(self, data: bytes) -> None:
        """Add the next bytes."""
        self._data += data

    def take(self) -> bytes | int | None:
        """Return the next line, a special packet as its number, or None where it is not whole yet.

        Raises:
            Malformed: no line begins there.
        """
        if len(self._data) < _DIGITS:
            return None
        try:
            length = int(bytes(self._data[:_DIGITS]), 16)
        except ValueError:
            raise Malformed("a length that is no four hexadecimal digits") from None
        if not bytes(self._data[:_DIGITS]).isalnum():  # int() takes blanks and signs
            raise Malformed("a length that is no four hexadecimal digits")
        if length < _DIGITS:
            if length > END:
                raise Malformed("a packet of a kind there is not")
            del self._data[:_DIGITS]
            return length
        if length > LONGEST:
            raise Malformed("a line that is longer than lines are")
        if len(self._data) < length:
            return None
        line = bytes(self._data[_DIGITS:length])
        del self._data[:length]
        return line

    @property
    def rest(self) -> bytes:
        """What was not taken."""
        return bytes(self._data)


def write_line(payload: bytes) -> bytes:
    """Return a line."""
    return b"%04x" % (len(payload) + _DIGITS) + payload


def write_band(band: int, payload: bytes) -> bytes:
    """Return a payload as lines of a side band: 1 is data, 2 is told to the user."""
    pieces = range(0, len(payload), _BAND_BYTES)
    return b"".join(write_line(bytes([band]) + payload[at : at + _BAND_BYTES]) for at in pieces)
