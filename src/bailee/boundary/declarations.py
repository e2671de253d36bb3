"""From what an agent declares to what may leave: rules for flows that are on, none for those that are off."""

import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from bailee.flows.update.indexes import DEFAULT_INDEX
from bailee.flows.web.files import RulesFile
from bailee.flows.web.rules import Rule, Rules, read_rule
from bailee.manifests import Manifest
from bailee.policy.contexts import Context
from bailee.policy.decisions import decide
from bailee.policy.flows import FlowId

NPM_DEFAULT = "https://registry.npmjs.org"
_SECONDS = 10
INDEXES = ("{npm}", "{pip}")


def make_rules(
    manifests: Sequence[Manifest],
    context: Context,
    *,
    environment: Mapping[str, str],
    allow: Iterable[str] = (),
    file: RulesFile | None = None,
    passed: Iterable[FlowId] = (FlowId.MESSAGES,),
    find: Callable[[str, Mapping[str, str]], str] | None = None,
) -> Rules:
    """Return the rules of a run.

    Args:
        manifests: those of the agent; of several, one that stops a flow stops it.
        environment: the agent's.
        allow: hosts that the person who starts it allows, as `read_rule` reads them.
        passed: flows that go through the service, so that their own hosts are not needed.
        find: says from where packages come; by default `find_index`.

    Raises:
        Problem: a host cannot be meant.
    """
    allowed: list[Rule] = []
    stopped: list[tuple[Rule, str]] = []
    for manifest in manifests:
        for flow in manifest.flows:
            if flow.id in passed:
                continue
            decision = decide(flow, context)
            for written in flow.hosts.get(context.provider, ()):
                if not decision.allowed and written in INDEXES:
                    continue  # to ask a package manager takes half a second, and its host is refused anyway
                host = resolve(written, environment, find or find_index)
                if not host:
                    continue
                rule = read_rule(host, f"{manifest.agent}.{flow.id}")
                rule = msgspec.structs.replace(rule, flow=flow.id.value)
                if decision.allowed:
                    allowed.append(rule)
                else:
                    stopped.append((rule, decision.decided_by))
    asked = [read_rule(text, "--allow") for text in allow]
    read = file or RulesFile()
    return Rules(
        allowed=(*read.allow, *asked, *allowed),
        forbidden=read.forbid,
        stopped=tuple(stopped),
    )


def resolve(
    written: str, environment: Mapping[str, str], find: Callable[[str, Mapping[str, str]], str]
) -> str:
    """Put in what is only known here: `{npm}` and `{pip}` are package indexes, all else variables.

    Returns:
        A host as `read_rule` reads it; empty where it is not known here.
    """
    if "{" not in written:
        return written
    before, _, rest = written.partition("{")
    name, _, after = rest.partition("}")
    value = find(name, environment) if name in ("npm", "pip") else environment.get(name, "")
    return f"{before}{value}{after}" if value else ""


def find_index(name: str, environment: Mapping[str, str]) -> str:
    """Return host and port of the package index that is configured here.

    Args:
        name: "npm" or "pip".
    """
    if name == "npm":
        url = environment.get("NPM_CONFIG_REGISTRY") or environment.get("npm_config_registry")
        url = url or _ask(["npm", "config", "get", "registry"], environment) or NPM_DEFAULT
    else:
        url = environment.get("PIP_INDEX_URL") or _ask(
            ["pip", "config", "get", "global.index-url"], environment
        )
        url = url or DEFAULT_INDEX
    scheme, _, rest = url.strip().partition("://")
    host = rest.partition("/")[0].rpartition("@")[2]
    if not host:
        return ""
    return f"http://{host}" if scheme == "http" else host


def _ask(command: Sequence[str], environment: Mapping[str, str]) -> str:
    try:
        done = subprocess.run(
            command,
            env=dict(environment),
            cwd="/",  # in a project its own file would name the index, and let itself be reached by that
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
