"""The one exception that a user may see: what was wrong, where, and the fix."""


class Problem(Exception):
    """An input, setting or state that Bailee refuses, told so that a person can mend it.

    Args:
        what: the fault in one sentence, without a full stop.
        where: the file, key, option or table it was found in; empty if `what` already says it.
        fix: what to do about it, as an instruction; empty if nothing can be done by the reader.
    """

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.fix = fix

    def __str__(self) -> str:
        place = f" ({self.where})" if self.where else ""
        remedy = f"; {self.fix}" if self.fix else ""
        return f"{self.what}{place}{remedy}"
