"""Masking of secrets: what looks like a credential is replaced before text leaves the vault, and counted.

A scanner in this process looks (kingfisher-secret-scanner, no network); its rules and ours (`secrets.yml`)
say what for. JSON is laid out as text first, `name: value` by line, so that an escape hides nothing and a
rule that looks at a name sees it.
"""

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from bailee.policy.problems import Problem

if TYPE_CHECKING:
    from kingfisher_sdk import Scanner

_RULES = Path(__file__).parent / "secrets.yml"
# A word below this is met by chance, and no credential.
SHORTEST_KNOWN = 8
KNOWN = "own_credential"
_FAMILY = re.compile(r"^(?:betterleaks\.|kingfisher\.|custom\.|veles\.secrets/)")


class Masked(msgspec.Struct, frozen=True):
    """Text without its secrets.

    Attributes:
        kinds: how often each kind of secret was replaced.
    """

    text: str
    kinds: dict[str, int]


class _Span(msgspec.Struct, frozen=True):
    """Where a secret stands, in bytes, and what it is."""

    start: int
    stop: int
    kind: str


class Masker:
    """Replaces secrets by `[masked KIND]`. Build one and keep it: see `open_masker`.

    Args:
        known: secrets that are known for what they are, whatever they look like.
    """

    def __init__(self, scanner: "Scanner", known: Iterable[str] = ()) -> None:
        self._scanner = scanner
        self._known = [one.encode() for one in dict.fromkeys(known) if len(one) >= SHORTEST_KNOWN]

    def mask_json(self, text: bytes) -> Masked:
        """Mask the strings and the names in JSON.

        It is written anew, so that nothing comes through which was not looked at: of two values of one name
        a reader sees the last, and the bytes would still hold the first.

        Raises:
            ValueError: it is no JSON, or nested too deeply.
        """
        try:
            value = msgspec.json.decode(text)
            pieces = list(_lay_out(value))
            masked, kinds = self._mask([piece for piece, _ in pieces], [gap for _, gap in pieces])
            return Masked(msgspec.json.encode(_put_back(value, iter(masked))).decode(), kinds)
        except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
            raise ValueError(f"no JSON that can be masked: {type(error).__name__}") from None

    def mask_text(self, text: str) -> Masked:
        """Mask plain text."""
        (masked,), kinds = self._mask([text], ["\n"])
        return Masked(masked, kinds)

    def _mask(self, pieces: list[str], gaps: list[str]) -> tuple[list[str], dict[str, int]]:
        # The scanner takes bytes with many NULs for UTF-16, and a mark at the very start for a byte order:
        # its offsets would then be another text's.
        encoded = [piece.encode("utf-8", "replace") for piece in pieces]
        laid = b"\n" + b"".join(
            piece.replace(b"\0", b" ") + gap.encode() for piece, gap in zip(encoded, gaps, strict=True)
        )
        spans = self._find(laid)
        if not spans:
            return pieces, {}
        lengths = (len(piece) + len(gap) for piece, gap in zip(encoded, gaps, strict=True))
        starts = list(accumulate(lengths, initial=1))[:-1]
        kinds: Counter[str] = Counter()
        cuts: dict[int, list[_Span]] = {}
        for span in spans:
            # A secret may reach over several strings, such as a key of which each line is one.
            for number in range(max(0, bisect_right(starts, span.start) - 1), len(starts)):
                start = max(0, span.start - starts[number])
                stop = min(len(encoded[number]), span.stop - starts[number])
                if stop <= 0:
                    break
                if start < stop:
                    cuts.setdefault(number, []).append(_Span(start, stop, span.kind))
                    kinds[span.kind] += 1
        masked = list(pieces)
        for number, spans in cuts.items():
            masked[number] = _replace(encoded[number], spans)
        return masked, dict(kinds)

    def _find(self, text: bytes) -> list[_Span]:
        """Return where secrets stand, none of them overlapping another.

        Parts of credentials that are none alone, such as the id beside a secret, are masked as well.
        """
        found = [
            _Span(finding.location["start_offset"], finding.location["end_offset"], _kind(finding.rule_id))
            for finding in self._scanner.scan(text)
        ]
        for secret in self._known:
            at = text.find(secret)
            while at >= 0:
                found.append(_Span(at, at + len(secret), KNOWN))
                at = text.find(secret, at + len(secret))
        merged: list[_Span] = []
        for span in sorted(found, key=lambda span: (span.start, -span.stop, span.kind)):
            if merged and span.start < merged[-1].stop:
                last = merged.pop()
                span = _Span(last.start, max(last.stop, span.stop), last.kind)
            merged.append(span)
        return merged


def open_masker(cache: Path, known: Iterable[str] = ()) -> Masker:
    """Build a masker: some 6 s for the first time, 0.6 s where the compiled rules are in the cache.

    Args:
        cache: a private folder for the compiled rules, which say nothing about what was scanned.
        known: see `Masker`.

    Raises:
        Problem: the scanner is not installed.
    """
    try:
        from kingfisher_sdk import Rules, Scanner
    except ImportError:
        raise Problem(
            "masking secrets takes a library that is not installed",
            where="kingfisher-secret-scanner",
            fix="install it, in a clone: pip install '.[dataset]', or '.[agent]' for the agent",
        ) from None
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    return Masker(Scanner(Rules([_RULES], cache_dir=cache)), known)


def _kind(rule: str) -> str:
    return _FAMILY.sub("", rule)


def _replace(text: bytes, spans: list[_Span]) -> str:
    parts = []
    at = 0
    for span in spans:
        parts += [text[at : span.start], f"[masked {span.kind}]".encode()]
        at = span.stop
    return b"".join([*parts, text[at:]]).decode("utf-8", "replace")


def _lay_out(value: Any) -> Iterator[tuple[str, str]]:
    """Give the strings of a value, names included, each with what stands after it in the laid out text."""
    if isinstance(value, str):
        yield value, "\n"
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield name, ": " if isinstance(inner, str) else ":\n"
            yield from _lay_out(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _lay_out(inner)


def _put_back(value: Any, strings: Iterator[str]) -> Any:
    """Return the value with its strings replaced by others, in the order of `_lay_out`."""
    if isinstance(value, str):
        return next(strings)
    if isinstance(value, list):
        return [_put_back(inner, strings) for inner in value]
    if not isinstance(value, dict):
        return value
    put: dict[str, Any] = {}
    for inner in value.values():
        name = next(strings)
        while name in put:  # two secrets of a kind were two names
            name += "'"
        put[name] = _put_back(inner, strings)
    return put
