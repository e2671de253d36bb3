"""Sizes and counts for people to read."""


def tell_count(count: int, thing: str) -> str:
    """Write a number of things: `1 exchange`, `7 exchanges`."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def tell_size(count: int) -> str:
    """Write a number of bytes with a unit of 1,000: `0 B`, `999 B`, `1.5 kB`, `204 kB`, `3.1 MB`."""
    if count < 1000:
        return f"{count} B"
    size = float(count)
    for unit in ("kB", "MB", "GB", "TB"):
        size /= 1000
        if size < 999.5:
            return f"{size:.1f} {unit}" if size < 9.95 else f"{size:.0f} {unit}"
    return f"{size:.0f} PB"
