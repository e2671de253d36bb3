"""Frames between the service and the recorder: cut out of a stream however it arrives."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bailee.vault.frames import MAX_FRAME_BYTES, FrameBuffer, Part, encode, frame_decoder

SIZES = st.one_of(st.integers(0, 200), st.sampled_from([300_000, 1_048_570, 1_048_576, 3_000_000]))


def read_all(buffer: FrameBuffer, stream: bytes, steps: list[int]) -> list[Part]:
    """Write a stream into a buffer in steps of the given sizes, as a socket would."""
    parts: list[Part] = []
    rest = memoryview(stream)
    step = 0
    while rest:
        room = buffer.room()
        count = min(len(rest), len(room), steps[step % len(steps)])
        room[:count] = rest[:count]
        rest = rest[count:]
        step += 1
        buffer.grow(count)
        parts += map(frame_decoder.decode, buffer.bodies())
    return parts


@settings(deadline=None)
@given(sizes=st.lists(SIZES, max_size=6), steps=st.lists(st.integers(1, 400_000), min_size=1, max_size=5))
def test_frames_come_out_as_they_went_in(sizes: list[int], steps: list[int]) -> None:
    """Whatever their sizes and wherever the stream is split, nothing is lost, added or mixed up."""
    frames = [Part(number, bytes([number]) * size) for number, size in enumerate(sizes)]
    stream = b"".join(map(encode, frames))
    if len(stream) // min(steps) < 5_000:
        assert read_all(FrameBuffer(), stream, steps) == frames
    assert list(map(frame_decoder.decode, FrameBuffer().feed(stream))) == frames


def test_a_buffer_shrinks_again() -> None:
    """The memory that one large frame took is given back."""
    buffer = FrameBuffer()
    small = len(buffer.room())
    assert read_all(buffer, bytes(encode(Part(1, b"x" * 20_000_000))), [4_000_000])
    assert len(buffer.room()) == small


def test_a_frame_beyond_the_limit_is_refused() -> None:
    """A length that no frame has is an error, and no memory is taken for it."""
    with pytest.raises(ValueError, match="a frame of"):
        list(FrameBuffer().feed((MAX_FRAME_BYTES + 1).to_bytes(4, "little")))
