"""The routes of GitHub's REST API that a session may ask, and how a path is read. Pure.

https://docs.github.com/en/rest names them. What does not stand here is refused, reads as well: below a
repository lie its secrets' names, its keys, its hooks and who may do what.
"""

import re
from urllib.parse import parse_qsl, unquote

from bailee.flows.git.github.verdicts import Refused

# A segment as it stands in a path (RFC 3986, "pchar"), without what some server reads as more than a name:
# `;` begins parameters, `:` names another owner's branch, `*` and `'` are of no route.
_SEGMENT = re.compile(r"(?:[A-Za-z0-9_.~!$&()+,=@-]|%[0-9A-Fa-f]{2})+")
_CODED = re.compile(r"%([0-9A-Fa-f]{2})")
# Coded or not, these make another path of one: NUL to US, and " # % . / : ; ? \ DEL.
_MOVING = frozenset({*range(0x20), *b'"#%./:;?\\\x7f'})
LONGEST_PATH = 2000

ANYWHERE = ("/", "/rate_limit", "/meta", "/versions")

_NUMBER, _OBJECT, _NAME, _REST = r"[1-9][0-9]{0,19}", r"[0-9a-f]{40}(?:[0-9a-f]{24})?", r"[^/]+", r".+"
_KINDS = {"n": _NUMBER, "sha": _OBJECT, "name": _NAME, "path": _REST}

READ = (
    *("", "assignees", "contributors", "labels", "labels/{name}", "languages", "license", "readme", "tags"),
    *("topics", "branches", "branches/{path}", "commits", "commits/{path}", "compare/{path}"),
    *("contents", "contents/{path}", "milestones", "milestones/{n}"),
    *("git/ref/{path}", "git/matching-refs/{path}", "git/commits/{sha}", "git/trees/{path}"),
    *("git/blobs/{sha}", "git/tags/{sha}"),
    *("issues", "issues/{n}", "issues/{n}/comments", "issues/{n}/labels", "issues/comments"),
    *("issues/comments/{n}", "pulls", "pulls/{n}", "pulls/{n}/commits", "pulls/{n}/files", "pulls/{n}/merge"),
    *("pulls/{n}/comments", "pulls/{n}/requested_reviewers", "pulls/{n}/reviews", "pulls/{n}/reviews/{n}"),
    *("pulls/{n}/reviews/{n}/comments", "pulls/comments", "pulls/comments/{n}"),
    *("releases", "releases/latest", "releases/{n}", "releases/tags/{path}", "releases/{n}/assets"),
    *("actions/runs", "actions/runs/{n}", "actions/runs/{n}/jobs", "actions/runs/{n}/artifacts"),
    *("actions/jobs/{n}", "actions/workflows", "actions/workflows/{name}", "actions/workflows/{name}/runs"),
    *("check-runs/{n}", "check-runs/{n}/annotations", "check-suites/{n}", "check-suites/{n}/check-runs"),
)
# Of a branch or a release these are settings, whatever the branch is called.
_SETTINGS = frozenset({"protection", "rename"})
WRITE = (
    *(("POST", "pulls"), ("PATCH", "pulls/{n}"), ("POST", "issues/{n}/comments")),
    *(("POST", "pulls/{n}/comments"), ("POST", "pulls/{n}/comments/{n}/replies")),
    *(("POST", "git/refs"), ("PATCH", "git/refs/{path}"), ("PUT", "contents/{path}")),
)
# What reads are narrowed by, and told apart by; `head` and `base` of a list of pull requests are filters.
QUERY = frozenset(
    [
        *(
            "page",
            "per_page",
            "state",
            "sort",
            "direction",
            "since",
            "until",
            "before",
            "after",
            "ref",
            "sha",
        ),
        *(
            "path",
            "author",
            "base",
            "head",
            "labels",
            "milestone",
            "assignee",
            "creator",
            "mentioned",
            "type",
        ),
        *(
            "filter",
            "branch",
            "event",
            "status",
            "actor",
            "created",
            "check_name",
            "check_suite_id",
            "app_id",
        ),
        *("exclude_pull_requests", "head_sha", "protected", "recursive", "all", "anon", "committer"),
    ]
)


def _compile(pattern: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\{(\w+)\}", lambda found: f"({_KINDS[found[1]]})", pattern))


_READ = tuple((pattern, _compile(pattern)) for pattern in READ)
_WRITE = tuple((method, pattern, _compile(pattern)) for method, pattern in WRITE)


def read_path(path: str) -> tuple[str, str, str]:
    """Return OWNER/NAME, and what is asked of it: as it stands in the path, and decoded.

    Raises:
        Refused: it can be read in more ways than one, or is of no repository.
    """
    segments = path.split("/")[1:]
    if len(path) > LONGEST_PATH or not path.startswith("/"):
        raise Refused("path", "the path is too long, or none")
    for segment in segments:
        if not _SEGMENT.fullmatch(segment) or segment in (".", ".."):
            raise Refused("path", "the path is not plain: write it without empty parts, `..`, `;` and `:`")
        if any(int(code, 16) in _MOVING for code in _CODED.findall(segment)):
            raise Refused("path", "the path hides a separator: write `/` and `.` as they are")
    if segments[0] != "repos":
        raise Refused(
            "route", f"/{segments[0][:50]} is not what a session asks: /repos/OWNER/NAME of its repository is"
        )
    if len(segments) < 3 or "%" in segments[1] + segments[2]:
        raise Refused("path", "a repository is named /repos/OWNER/NAME, as it is written")
    rest = "/".join(segments[3:])
    try:
        return f"{segments[1]}/{segments[2]}", rest, unquote(rest, errors="strict")
    except UnicodeDecodeError:
        raise Refused("path", "the path is not UTF-8") from None


def find_read(rest: str) -> str:
    """Return the route of a read.

    Raises:
        Refused: a session may not ask that.
    """
    is_settings = rest.startswith("branches/") and _SETTINGS & set(rest.split("/"))
    route = next((pattern for pattern, found in _READ if found.fullmatch(rest)), None)
    if route is None or is_settings:
        raise Refused("route", "this is not what a session reads of its repository")
    return route


def find_write(method: str, rest: str) -> tuple[str, tuple[str, ...]]:
    """Return the route of a write and what it names.

    Raises:
        Refused: a session may not do that.
    """
    for allowed, pattern, found in _WRITE:
        if allowed == method and (match := found.fullmatch(rest)):
            return pattern, match.groups()
    reason = (
        "a session opens and updates the pull request of its branch, comments, and writes to its branch: "
        f"{method} of this is not among it"
    )
    raise Refused("route", reason)


def read_query(query: str) -> list[tuple[str, str]]:
    """Return the parameters of a read.

    Raises:
        Refused: there is one that is not declared, or the same twice.
    """
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query), errors="strict")
    except ValueError:
        raise Refused("query", "the query cannot be read") from None
    names = [name for name, _ in pairs]
    if len(query) > LONGEST_PATH or len(set(names)) != len(names):
        raise Refused("query", "the query is too long, or says something twice")
    if others := [name for name in names if name not in QUERY]:
        shown = others[0][:50] if others[0].isprintable() else "?"
        raise Refused("query", f"the parameter {shown!r} is not what a session gives")
    return pairs
