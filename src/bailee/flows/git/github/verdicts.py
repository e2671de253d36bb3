"""What was decided of a request to GitHub's API. Pure."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import msgspec

from bailee.flows.git.access import Attached


class Refused(Exception):
    """A request that may not be.

    Attributes:
        rule: a short name for programs and the record.
        reason: for people.
    """

    def __init__(self, rule: str, reason: str, status: int = 403) -> None:
        super().__init__(reason)
        self.rule = rule
        self.reason = reason
        self.status = status


class Needed(StrEnum):
    """What something that is named by an id or a number has to be, which only its host can tell."""

    REPOSITORY = "repository"  # the attached one
    OWN_PULL_REQUEST = "own_pull_request"  # its head is the session's branch, in the attached repository
    TALK = "talk"  # an issue or a pull request of the attached repository
    OWN_BRANCH = "own_branch"  # the session's branch


class Check(msgspec.Struct, frozen=True):
    """A question to the host before a request goes on.

    Attributes:
        id: a node's id, or for REST the number of a pull request.
    """

    id: str
    needed: Needed


class Going(msgspec.Struct, frozen=True):
    """A request that may go on once its checks hold. It is written anew from this: nothing else of it goes.

    Attributes:
        method: of HTTP.
        path: of REST below the API's address, with its query; empty for GraphQL.
        route: what it is for, without names that are content; for the record.
        repository: the attached one it is for; None where none is named.
        refs: what it may write.
        body: the JSON that goes along; None for none.
    """

    method: str
    path: str
    route: str
    repository: Attached | None
    is_write: bool = False
    refs: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    body: Mapping[str, Any] | None = None
