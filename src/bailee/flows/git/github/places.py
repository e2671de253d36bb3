"""Where GitHub's API is for a repository, and what a request below `/git/-/api/` is for. Pure."""

import msgspec

from bailee.flows.git.access import Access, Attached

BASE = "/git/-/api/"
_DOT_COM = "github.com"
# GitHub Enterprise Cloud with data residency.
_RESIDENT = ".ghe.com"
# Where GitHub Enterprise Server has the two (its documentation, "Getting started with the REST API").
_REST, _GRAPHQL = "/api/v3", "/api/graphql"


class Place(msgspec.Struct, frozen=True):
    """The API of one host.

    Attributes:
        host: as in the addresses of repositories, with the port if it is none of HTTP's own.
        rest, graphql: their addresses, without a slash at the end.
    """

    host: str
    rest: str
    graphql: str


class Asked(msgspec.Struct, frozen=True):
    """What a path below BASE names.

    Attributes:
        host: see `Place`.
        path: of REST, from its first slash, as it came; empty for GraphQL.
    """

    host: str
    path: str


def has_own_host(host: str) -> bool:
    """Tell whether the API of a host is at a host of its own."""
    return host == _DOT_COM or host.endswith(_RESIDENT)


def find_place(repository: Attached) -> Place:
    """Return the API that a repository's host has if it is a GitHub."""
    scheme = repository.url.partition("://")[0].lower()
    host = repository.place.partition("/")[0].lower()
    if has_own_host(host):
        base = f"https://api.{host}"
        return Place(host, base, f"{base}/graphql")
    return Place(host, f"{scheme}://{host}{_REST}", f"{scheme}://{host}{_GRAPHQL}")


def list_led(host: str) -> tuple[str, tuple[str, ...]]:
    """Return the host that clients ask for a Git host's API, and the paths that it is there; none for all."""
    return (f"api.{host}", ()) if has_own_host(host) else (host, (f"{_REST}/*", _GRAPHQL))


def read_asked(raw: str) -> Asked | None:
    """Return what a path names as it came, before anything of it was decoded; None where it is no API's."""
    if not raw.startswith(BASE):
        return None
    host, slash, rest = raw.removeprefix(BASE).partition("/")
    path = slash + rest
    if has_own_host(host):
        return Asked(host, "" if path == "/graphql" else path or "/")
    if path == _GRAPHQL:
        return Asked(host, "")
    return Asked(host, path.removeprefix(_REST)) if path.startswith(f"{_REST}/") else None


def list_attached(access: Access, host: str) -> tuple[Attached, ...]:
    """Return the repositories of a session that lie at a host."""
    return tuple(one for one in access.repositories if one.place.lower().startswith(f"{host}/"))


def name_of(repository: Attached) -> str:
    """Return OWNER/NAME; whatever follows the host for hosts that have more or less than two parts."""
    return repository.place.partition("/")[2]


def find_named(access: Access, host: str, name: str) -> Attached | None:
    """Return the attached repository OWNER/NAME of a host; None if there is none."""
    wanted = name.lower()
    return next((one for one in list_attached(access, host) if name_of(one).lower() == wanted), None)
