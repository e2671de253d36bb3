"""GitHub's API as a machine finds it: where it always is, and led to the service on the way."""

from urllib.parse import urlsplit

from bailee.flows.git.access import Attached
from bailee.flows.git.github.places import BASE, find_place, has_own_host, list_led, name_of
from bailee.flows.web.rules import Led, Rule, Wire
from bailee.flows.web.targets import read_target

# A client asks for one before it asks anything; what it sends is taken away on the way.
_PLACEHOLDER = "proxy-injected"


def lead_api(repository: str, service_url: str, token: str, most_bytes: int | None = None) -> tuple[Led, ...]:
    """Return what leads requests for the API of a repository's host to the service; none without TLS.

    Args:
        token: the session's own, for the service alone.
        most_bytes: how much may be sent.
    """
    attached = Attached(repository)
    if urlsplit(repository).scheme != "https":
        return ()
    host = find_place(attached).host
    asked, paths = list_led(host)
    target = read_target(asked, 443)
    parts = urlsplit(service_url)
    rule = Rule(
        host=target.host,
        ports=(target.port,),
        wire=Wire.TLS,
        flow="git",
        origin="the repository",
        paths=paths,
        bytes=most_bytes,
        opens=True,
    )
    listens = (parts.hostname or "127.0.0.1", parts.port or 80)
    # Whoever allows a host that has more than this API, with a key of its own, means that host: it may be no
    # GitHub. The repository's credential does not go there.
    yields = not has_own_host(host)
    return (Led(rule, *listens, f"{BASE.rstrip('/')}/{host}", f"Bearer {token}", yields),)


def write_api_environment(repository: str) -> dict[str, str]:
    """Return what GitHub's command and the libraries read to find a repository and its API."""
    attached = Attached(repository)
    place = find_place(attached)
    found = {
        "GH_TOKEN": _PLACEHOLDER,
        "GH_REPO": f"{place.host}/{name_of(attached)}",
        # Git's addresses inside lead to the service, so that it would ask for where to push.
        "GH_PROMPT_DISABLED": "1",
        "GH_NO_UPDATE_NOTIFIER": "1",
        "GITHUB_API_URL": place.rest,
        "GITHUB_GRAPHQL_URL": place.graphql,
    }
    if not has_own_host(place.host):
        found |= {"GH_HOST": place.host, "GH_ENTERPRISE_TOKEN": _PLACEHOLDER}
    return found
