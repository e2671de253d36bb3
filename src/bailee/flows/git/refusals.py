"""Refusals in the form that Git shows to whoever called it: lines that begin with `remote:`."""

from collections.abc import Iterable, Mapping

from starlette.responses import PlainTextResponse, Response

from bailee.flows.git.pkt_lines import FLUSH_LINE, write_band, write_line

_RESULT = "application/x-git-receive-pack-result"
# A host of Git's own that answers so would not have this header: a denial of ours is told from theirs.
DENIED = "x-bailee-denied"


def tell_refused(status: int, rule: str, text: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return an answer whose text Git shows (http.c shows the body of an error that is plain text)."""
    return PlainTextResponse(f"Bailee: {text}\n", status, {DENIED: rule, **(headers or {})})


def tell_push_refused(
    refs: Iterable[str], capabilities: Iterable[str], reasons: Mapping[str, str]
) -> Response:
    """Return the result of a push of which nothing was done.

    Args:
        reasons: why, by ref; an empty name stands for all.
    """
    can = set(capabilities)
    general = reasons.get("", "")
    lines = [write_line(b"unpack ok\n")]
    for ref in refs:
        reason = reasons.get(ref) or general or "refused with the others of this push"
        lines.append(write_line(f"ng {ref} {reason}\n".encode()))
    report = b"".join(lines) + FLUSH_LINE if can & {"report-status", "report-status-v2"} else b""
    told = "\n".join(f"Bailee: {reason}" for reason in dict.fromkeys(reasons.values()))
    if "side-band-64k" in can:
        body = write_band(2, f"{told}\n".encode()) + write_band(1, report) + FLUSH_LINE
    else:
        body = report
    headers = {DENIED: "git_push", "cache-control": "no-cache"}
    return Response(body, 200, headers, media_type=_RESULT)
