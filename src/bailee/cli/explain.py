"""`bailee explain`: what leaves this machine, why, where it goes, how long it is kept, how to stop it."""

import json
import os
import sys
from typing import TYPE_CHECKING

import click

from bailee.cli.options import working_folder
from bailee.manifests import Manifest, agents, load_manifest
from bailee.manifests.answers import block, brief_lines, context_facts, context_line, flow_facts
from bailee.manifests.settings import notices, read_layers
from bailee.moments import tell_moment
from bailee.policy.contexts import Context, check, choose_provider, describe
from bailee.policy.decisions import decide

if TYPE_CHECKING:
    from bailee.agent.account import Account


@click.command(epilog="Exit codes: 0 told, 2 the call or a settings file is wrong.")
@click.argument("flow", required=False)
@click.option("--agent", default="bailee", show_default=True, help=f"One of: {', '.join(agents())}.")
@click.option(
    "--as",
    "assignments",
    multiple=True,
    metavar="K=V",
    help="Describe a context instead of reading this machine's; repeat for more. Keys: plan, training, "
    "provider, dpp, zdr, location, forwarding, env.NAME. What is not described is api, anthropic, local, all "
    "else off.",
)
@click.option("--brief", is_flag=True, help="One line for each flow.")
@click.option("--json", "as_json", is_flag=True, help="Write JSON.")
def explain(flow: str | None, agent: str, assignments: tuple[str, ...], brief: bool, as_json: bool) -> None:
    """Say what leaves this machine, why, and how to stop it.

    Without --as it reads this machine: the environment, the agent's managed, user, project and local settings
    files, and what our own agent was last told of its account. With --as it reads nothing of this machine, so
    the answer is the same everywhere.

    \b
    FLOW is one of: messages metrics errors feedback survey update local_cache git web forwarding.
    Examples:
      bailee explain
      bailee explain --brief
      bailee explain metrics --agent claude-code
      bailee explain --as plan=pro --as training=on --json
      bailee explain --as provider=bedrock --as env.DISABLE_TELEMETRY=1
    """
    manifest = load_manifest(agent)
    flows = (manifest.flow(flow),) if flow else manifest.flows
    told: tuple[str, ...] = ()
    account: Account | None = None
    if assignments:
        context = describe(assignments)
    else:
        context, told, account = present_context(manifest)
    answers = [(declared, decide(declared, context)) for declared in flows]
    told += notices(manifest, context.layers)
    for notice in told:
        click.echo(f"note: {notice}", err=True)
    if as_json:
        report = {
            "context": {**context_facts(manifest, context), "account": _facts(account), "notices": told},
            "flows": [flow_facts(manifest, declared, decision, context) for declared, decision in answers],
        }
        click.echo(json.dumps(report, indent=2, ensure_ascii=False))
        return
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    whose = account.told() if account else ""
    click.echo(context_line(manifest, context, described=bool(assignments), account=whose))
    if brief:
        click.echo()
        click.echo("\n".join(brief_lines(answers, colour=colour)))
        return
    for declared, decision in answers:
        click.echo()
        click.echo("\n".join(block(manifest, declared, decision, context, colour=colour)))


def present_context(manifest: Manifest) -> "tuple[Context, tuple[str, ...], Account | None]":
    """Read this machine's environment and settings files, and what our own agent knows of its account.

    Returns:
        The context, what was read and does not count, and the account; of other agents nothing here tells the
        plan, which is assumed to be api.
    """
    from bailee.agent.settings import AGENT, read_settings

    directory = working_folder()
    if manifest.agent != AGENT:
        layers = read_layers(manifest, environment=os.environ, directory=directory)
        return check(Context(provider=choose_provider(layers), layers=layers)), (), None
    from bailee.agent.account import find_account
    from bailee.agent.state import state_folder

    settings = read_settings(directory=directory)
    environment = {**settings.environment, **os.environ}
    account = find_account(state_folder(), environment, settings.context().provider)
    return settings.context(account.context() if account else None), settings.notices, account


def _facts(account: "Account | None") -> dict[str, object] | None:
    if account is None:
        return None
    return {"name": account.name, "service": account.service, "as_of": tell_moment(account.as_of)}
