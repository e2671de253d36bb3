"""Characters that a terminal would obey, made visible."""

import unicodedata


def make_visible(text: str) -> str:
    """Return text with characters that do not print written as escapes (Cc, Cf, Co, Cs, Zl, Zp)."""
    return "".join(
        character
        if character == " " or unicodedata.category(character) not in ("Cc", "Cf", "Co", "Cs", "Zl", "Zp")
        else character.encode("unicode_escape").decode()
        for character in text
    )
