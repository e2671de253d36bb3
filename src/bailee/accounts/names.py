"""Names of accounts and organizations."""

import re

from bailee.policy.problems import Problem

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
# What accounts are called where a name would tell (`Directory.add`).
_ID = re.compile(r"[0-9a-f]{32}")


def check_name(name: str, *, where: str) -> str:
    """Return a name of an account or an organization unchanged.

    Raises:
        Problem: it is empty, longer than 64 characters, holds others than letters, digits and `._@-`, or may
            be an account's id: consents and pseudonyms know accounts by their ids and organizations by their
            names, so that one of them would be taken for the other.
    """
    if not _NAME.fullmatch(name):
        raise Problem(
            f"{name!r} is not a name",
            where=where,
            fix="use up to 64 letters, digits and . _ @ -, starting with a letter or digit",
        )
    if _ID.fullmatch(name):
        raise Problem(
            f"{name!r} looks like the id of an account", where=where, fix="choose a name that people know"
        )
    return name
