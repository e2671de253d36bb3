"""What is kept of connections, and what is kept from the agent."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bailee.flows.web.log import ConnectionLog, LogBroken, Refused, Row, Way, read_log
from bailee.flows.web.placeholders import Secrets, make_secret
from bailee.flows.web.targets import read_target

KEY = bytes(range(32))
VALUE = "secret-value-0123456789"
SECRETS = Secrets([make_secret("TOKEN", VALUE, ["api.example"])])
(SECRET,) = SECRETS


def write(path: Path, count: int) -> tuple[bytes, list[Row]]:
    """Write rows, and return the file with them."""
    log = ConnectionLog(path, KEY, "run")
    rows: list[Row] = [
        Refused(
            number=at,
            at_ms=at,
            way=Way.CONNECT,
            host=f"{at}.example",
            port=443,
            rule="undeclared",
            reason="no",
        )
        for at in range(count)
    ]
    for row in rows:
        log.append(row)
    log.close()
    return path.read_bytes(), rows


def test_rows_read_back(tmp_path: Path) -> None:
    """What was written is read, in its order; under another name or key nothing is."""
    data, rows = write(tmp_path / "log", 5)
    assert list(read_log(data, KEY, "run")) == rows
    for key, name in ((KEY, "other"), (bytes(32), "run")):
        with pytest.raises(LogBroken):
            list(read_log(data, key, name))


def test_any_change_is_told(tmp_path: Path) -> None:
    """A changed byte, a row taken out, two that changed places; a cut at the end loses that row alone."""
    data, rows = write(tmp_path / "log", 4)
    size = len(data) // 4
    pieces = [data[at * size : (at + 1) * size] for at in range(4)]
    assert b"".join(pieces) == data
    for at in range(0, len(data), 7):
        changed = bytearray(data)
        changed[at] ^= 1
        try:
            assert list(read_log(bytes(changed), KEY, "run")) != rows
        except LogBroken:
            continue
    for order in ((0, 2, 3), (1, 0, 2, 3), (0, 1, 1, 2, 3)):
        with pytest.raises(LogBroken):
            list(read_log(b"".join(pieces[at] for at in order), KEY, "run"))
    for cut in range(1, size):
        assert list(read_log(data[:-cut], KEY, "run")) == rows[:-1]


@given(
    before=st.binary(max_size=40),
    after=st.binary(max_size=40),
    cuts=st.lists(st.integers(0, 120), max_size=6),
)
def test_a_value_never_gets_back_whatever_its_pieces(before: bytes, after: bytes, cuts: list[int]) -> None:
    """An answer that holds the value has the placeholder in its place, in whatever pieces it comes."""
    body = before + VALUE.encode() + after
    taking = SECRETS.taking_out()
    told, at = b"", 0
    for cut in [*sorted(cuts), len(body)]:
        told += taking.feed(body[at:cut])
        at = max(at, min(cut, len(body)))
    told += taking.finish()
    assert VALUE.encode() not in told
    assert told == body.replace(VALUE.encode(), SECRET.placeholder.encode())


def test_a_value_goes_to_its_host_alone() -> None:
    """The placeholder becomes the value for the bound host, in Basic credentials too, and for no other."""
    header = (b"authorization", b"Bearer " + SECRET.placeholder.encode())
    bound = SECRETS.for_host(read_target("api.example:443"))
    assert bound.put_in([header]) == [(b"authorization", b"Bearer " + VALUE.encode())]
    other = SECRETS.for_host(read_target("elsewhere.example:443"))
    assert other.put_in([header]) == [header]
    assert VALUE not in repr(SECRET)
