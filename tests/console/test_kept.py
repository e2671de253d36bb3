"""What takes long to add up is kept a while: how old it may be for whoever decides by it."""

from bailee.pages import OLDEST_SECONDS, Kept


def test_what_is_kept_is_never_very_old() -> None:
    """Fresh, it is given out as it is; older, it is given out and renewed beside; very old, it is made anew
    for whoever asks. Control: a second earlier it was given out as it was.
    """
    now, made = 0.0, 0

    def make() -> int:
        nonlocal made
        made += 1
        return made

    kept = Kept(lambda: now)
    assert kept.get("count", make) == 1
    now = 5
    assert kept.get("count", make) == 1
    assert made == 1
    now = OLDEST_SECONDS
    assert kept.get("count", make) == 1  # and renewed beside
    kept.close()
    assert made == 2
    other = Kept(lambda: now)
    assert other.get("count", make) == 3
    now += OLDEST_SECONDS + 1
    assert other.get("count", make) == 4
    other.close()
