"""What a session may do with Git: which repositories it has, and what it may write to them. Pure."""

import re
from urllib.parse import urlsplit

import msgspec

from bailee.flows.git.pushes import Push
from bailee.policy.problems import Problem

# The branches of sessions, so that whoever looks at a repository knows them.
BRANCH_START = "bailee/"
_HEADS = "refs/heads/"
# git-check-ref-format(1), and nothing that a shell, a terminal or a log would read as more than a name.
_PART = r"[A-Za-z0-9_][A-Za-z0-9_.+@-]*"
_REF = re.compile(rf"refs/(?:{_PART}/)*{_PART}")


class Attached(msgspec.Struct, frozen=True):
    """A repository that a session has.

    Attributes:
        url: as `git clone` takes it, without credentials.
        branch: the session's own, below `bailee/`; empty where it may only read.
        targets: other refs that its owner lets it update, in full; a `*` at the end stands for any ending.
        options: push options that its owner lets it give.
    """

    url: str
    branch: str = ""
    targets: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        """Host and path, the form in which a repository is named inside a session."""
        return place_of(self.url)

    @property
    def scope(self) -> str:
        """What its credentials are kept under."""
        return scope_of(self.url)


class Access(msgspec.Struct, frozen=True):
    """What a session may do with Git.

    Attributes:
        session: its name.
        account: the id of the account that it works for.
        repositories: those attached; there are no others for it.
        key: the id of the key that it shows, for the record.
        most_sent: bytes that it may send to each host; 0 for as many as it likes.
    """

    session: str
    account: str
    repositories: tuple[Attached, ...] = ()
    key: str = ""
    most_sent: int = 0

    def find(self, place: str) -> Attached | None:
        """Return the repository named `host/path`, with or without `.git`; None if it is not attached."""
        wanted = place.removesuffix(".git").lower()
        return next((one for one in self.repositories if one.place.lower() == wanted), None)


def place_of(url: str) -> str:
    """Return host, port and path of a repository's address, without `.git` at its end."""
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.hostname}{port}{parts.path}".rstrip("/").removesuffix(".git")


def scope_of(url: str) -> str:
    """Return what credentials of a repository are kept under: place, and scheme unless that is https.

    So what is kept for https never goes out in clear.
    """
    scheme, place = urlsplit(url).scheme, place_of(url)
    return place if scheme == "https" else f"{scheme}://{place}"


def check_url(url: str, *, where: str) -> str:
    """Return a repository's address.

    Raises:
        Problem: it is not of HTTP, has credentials in it, or cannot be read in one way only.
    """
    try:
        parts = urlsplit(url)
        has_port = parts.port is None or parts.port > 0
    except ValueError:
        parts, has_port = urlsplit(""), False
    if (
        parts.scheme not in ("https", "http")
        or not parts.hostname
        or not has_port
        or not parts.path.strip("/")
    ):
        raise Problem(
            f"{_shown(url)} is no address of a repository that goes over HTTP",
            where=where,
            fix="write https://HOST/OWNER/REPOSITORY.git",
        )
    if parts.username is not None or parts.password is not None:
        raise Problem(
            "the address has a credential in it",
            where=where,
            fix="take it out, and keep it with: bailee secrets set GIT_CREDENTIAL --repo URL",
        )
    plain = re.fullmatch(r"(?:/[A-Za-z0-9_~.+-]+)+/?", parts.path)
    if (
        parts.query
        or parts.fragment
        or not plain
        or any(part in (".", "..") for part in parts.path.split("/"))
    ):
        raise Problem(f"{_shown(url)} is no plain address", where=where, fix="write host and path alone")
    return url


def check_branch(branch: str, *, where: str) -> str:
    """Return the name of a session's branch.

    Raises:
        Problem: it is none, or not below `bailee/`.
    """
    if not branch.startswith(BRANCH_START) or not is_ref(_HEADS + branch):
        raise Problem(
            f"{_shown(branch)} is no branch of a session",
            where=where,
            fix=f"write a name that begins with {BRANCH_START}",
        )
    return branch


def is_ref(ref: str) -> bool:
    """Tell whether a ref is well formed and plain."""
    if not _REF.fullmatch(ref) or len(ref) > 250:
        return False
    return not any(part.endswith((".lock", ".")) or ".." in part or "@{" in part for part in ref.split("/"))


def judge_push(push: Push, repository: Attached) -> dict[str, str]:
    """Return why a push may not be: the reason by ref, or for the whole of it under an empty name.

    Nothing comes back for what may go on. One ref that may not be refuses the whole push: some of it done and
    some not is not what anybody asked for.
    """
    if not repository.branch:
        return {"": "this session may read the repository, and write nothing to it"}
    if others := [one for one in push.options if one not in repository.options]:
        return {"": f"the push option {_shown(others[0])} is not declared for this session"}
    own = _HEADS + repository.branch
    refused: dict[str, str] = {}
    for command in push.commands:
        if not is_ref(command.ref):
            refused[command.ref] = "the name of the ref is not plain"
        elif command.is_delete:
            refused[command.ref] = "a session deletes no ref"
        elif command.ref != own and not any(_covers(target, command.ref) for target in repository.targets):
            kind = "no tag" if command.ref.startswith("refs/tags/") else "its own branch alone"
            refused[command.ref] = f"a session pushes {kind}: {repository.branch}"
    return refused


def _covers(target: str, ref: str) -> bool:
    return ref.startswith(target[:-1]) if target.endswith("*") else ref == target


def _shown(text: str) -> str:
    return repr(text) if text.isprintable() and len(text) <= 200 else "that"
