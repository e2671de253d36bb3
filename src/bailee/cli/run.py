"""`bailee run`: an agent under custody, from its first request to its receipt."""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bailee.cli.accesses import operator
from bailee.cli.options import with_home, working_folder
from bailee.policy.flows import FlowId
from bailee.policy.layers import REPOSITORY
from bailee.policy.plans import Provider
from bailee.policy.problems import Problem

if TYPE_CHECKING:
    from bailee.manifests import Manifest
    from bailee.policy.layers import Layer

# Its manifest leads any client that reads the official SDK's variables.
FALLBACK_AGENT = "bailee"
# Whatever the agent, and whoever it works for: these are the operator's.
OWN_SECRETS = ("BAILEE_UPSTREAM_KEY", "BAILEE_GITHUB_TOKEN", "BAILEE_GITHUB_APP_ID", "BAILEE_GITHUB_APP_KEY")
EXIT_NOT_FOUND = 127  # as a shell says it


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--agent", help="Which manifest declares it; found by the command's name if left out.")
@click.option("--account", help="Whose session it is; the only account, or `me`, if left out.")
@click.option(
    "--upstream",
    help="Start the service with this upstream, where none is running; rehearsal is offline.",
)
@click.option(
    "--nonessential",
    is_flag=True,
    help="Leave the agent's telemetry, error reports and updates as they are, past the service.",
)
@click.option(
    "--allow",
    multiple=True,
    metavar="HOST[:PORT]",
    help="Let the command reach this host as well; http:// or tcp:// before it for what is not TLS.",
)
@click.option("--confine", is_flag=True, help="Let it write to the project alone, and see no secrets.")
@click.option(
    "--unenforced",
    is_flag=True,
    help="Lead the command to the proxy and hold it nowhere; the receipt says so.",
)
@click.option("--receipt", type=click.Path(path_type=Path), help="Write the receipt to this file, as JSON.")
@click.option("--json", "as_json", is_flag=True, help="Print the receipt as JSON, on standard error.")
@with_home
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(
    agent: str | None,
    account: str | None,
    upstream: str | None,
    nonessential: bool,
    allow: tuple[str, ...],
    confine: bool,
    unenforced: bool,
    receipt: Path | None,
    as_json: bool,
    home: Path,
    command: tuple[str, ...],
) -> None:
    """Run a coding agent through Bailee and print its receipt.

    The command runs inside a boundary: its network ends at the security proxy, which lets through what the
    agent's manifest declares and is switched on, and what --allow or boundary.toml in the home add; all else
    is refused and told.

    The command gets an environment that points at the service, with a key made for this run and revoked
    after it; your own credentials are taken out. It does not start an agent whose settings files would lead
    it elsewhere. Everything is passed through: input, output, signals and the exit status. The receipt goes
    to standard error. Exit status: the command's own; 128 + N if signal N ended it; 127 if it is not found;
    2 if Bailee refused to start it.

    \b
    Examples:
      bailee run -- claude
      bailee run --upstream rehearsal -- claude -p "rehearse greet"
      bailee run --account ada --receipt receipt.json -- python my_agent.py
    """
    if not is_there(command[0]):
        from bailee.cli import report

        report(tell_missing(command[0]))
        raise SystemExit(EXIT_NOT_FOUND)
    from bailee.accounts.directory import open_directory
    from bailee.accounts.keys import create_key, revoke_key
    from bailee.accounts.tables import KeyOrigin
    from bailee.boundary.declarations import make_rules
    from bailee.boundary.means import find_means
    from bailee.policy.contexts import Context
    from bailee.service.boundaries import Surroundings
    from bailee.service.launching import running_service
    from bailee.vault.store import open_keys, open_vault

    manifests = find_manifests(agent, command[0])
    if not manifests[0].is_led:
        click.echo(
            f"bailee: {manifests[0].title} cannot be led to the service. Its model traffic goes to the\n"
            "  hosts it declares; Bailee holds the log of its connections, and no conversation.",
            err=True,
        )
    if confine and unenforced:
        raise click.UsageError("--confine needs the boundary that --unenforced goes without")
    means = None if unenforced else find_means()
    if receipt is not None:
        check_receipt(receipt)
    directory = open_directory(home)
    is_new = account is None and not directory.all()
    holder = directory.get(account) if account else directory.ensure_default()
    if is_new:
        click.echo(
            f"bailee: made the account {holder.name}, plan {holder.plan}. For another plan:\n"
            "  bailee accounts add NAME --plan PLAN, then bailee run --account NAME",
            err=True,
        )
    started = datetime.now(UTC)
    hint = "" if len(manifests) == 1 else "; or say which agent the command is, with --agent"
    with running_service(home, upstream) as (service, this):
        provider = Provider(service.upstream) if service.upstream in set(Provider) else Provider.ANTHROPIC
        key, secret = create_key(
            directory,
            holder.name,
            label=f"run {Path(command[0]).name}"[:100],
            origin=KeyOrigin.RUN,
            made_by=operator(),
        )
        this.note_key(key.id)
        try:
            environment = make_environment(
                manifests,
                os.environ,
                url=service.url,
                key=secret,
                account=holder.id,
                provider=provider,
                nonessential=nonessential,
            )
            layers = [
                layer
                for manifest in manifests
                for layer in check_layers(
                    manifest, environment, command[1:], nonessential=nonessential, hint=hint
                )
            ]
            context = Context(plan=holder.plan, provider=provider, layers=tuple(layers))
            passed = (FlowId.MESSAGES,) if manifests[0].is_led else ()
            keys = open_keys(home)
            surroundings = Surroundings(
                home,
                this.name,
                service_url=service.url,
                make_rules=lambda file: make_rules(
                    manifests, context, environment=environment, allow=allow, file=file, passed=passed
                ),
                means=means,
                is_confined=confine,
                account=holder.id,
                key_id=key.id,
                wrapper=keys.wrapper,
                environment=os.environ,
            )
            keys.close()
            enclosed = surroundings.run_unenforced if unenforced else surroundings.run
            ended = enclosed(command, environment, working_folder())
            if ended.fault:
                click.echo(f"bailee: {command[0]}: {ended.fault}", err=True)
            status = ended.status
        finally:
            with suppress(Problem):  # somebody revoked it meanwhile
                revoke_key(directory, key.id)
        seen = surroundings.tell(ended)
        wait_until_ended(home, key.id, this.name)
    from bailee.service.receipts import anchor, make_receipt, tell_receipt

    made = make_receipt(
        open_vault(home),
        key_id=key.id,
        command=Path(command[0]).name,
        manifest=manifests[0] if len(manifests) == 1 else None,
        context=context,
        account=holder.name,
        upstream=service.upstream,
        started=started,
        exit_status=status,
        boundary=seen,
        settings_changed=list_changed(manifests, environment, command[1:], layers),
    )
    import msgspec

    made = anchor(home, holder.id, made)
    encoded = msgspec.json.format(msgspec.json.encode(made), indent=2)
    click.echo(encoded if as_json else "\n".join(["", *tell_receipt(made)]), err=True)
    if receipt is not None:
        try:
            receipt.write_bytes(encoded + b"\n")
        except OSError as error:
            # The command is done, and its status is what the caller asked for.
            click.echo(f"bailee: the receipt could not be written: {error.strerror} ({receipt})", err=True)
    raise SystemExit(status)


def find_manifests(agent: str | None, command: str) -> "tuple[Manifest, ...]":
    """Return the manifest of an agent, found by the command's file name if it is not named.

    A command that nothing declares may be any agent, inside a shell or a wrapper: then the manifests of all
    that keep to the specification, that of an SDK client first. Those of other makers have to be named: their
    switches are other ones, and a project's `.env` counts with them.
    """
    from bailee.manifests import agents, load_manifest

    if agent:
        return (load_manifest(agent),)
    name = Path(command).name
    every = {known: load_manifest(known) for known in agents()}
    for known, manifest in every.items():
        if name == known or name in manifest.launch.commands:
            return (manifest,)
    return every.pop(FALLBACK_AGENT), *(one for one in every.values() if one.is_specified)


def is_there(command: str) -> bool:
    """Tell whether there is a file for a command, as a path or on PATH.

    Whether it can be executed, and is there inside the boundary too, shows only where it is started.
    """
    folders = [""] if "/" in command else os.get_exec_path()
    return any(os.access(Path(folder, command), os.F_OK) for folder in folders)


def tell_missing(command: str) -> Problem:
    """Return the problem of a command that is not there."""
    if "/" in command:
        return Problem("the command is not found", where=command, fix="name a file that is there")
    return Problem(
        f"the command {command!r} is not found",
        where="PATH",
        fix=f"install it, or name its file: bailee run -- /path/to/{command}",
    )


def check_receipt(path: Path) -> None:
    """Find out before the agent starts whether its receipt can be written.

    Raises:
        Problem: it cannot.
    """
    target = path if path.exists() else path.parent
    if path.is_dir() or not path.parent.is_dir() or not os.access(target, os.W_OK):
        raise Problem(
            "the receipt cannot be written there",
            where=f"--receipt {path}",
            fix="name a file in a folder that is there and that you may write in",
        )


def make_environment(
    manifests: "Sequence[Manifest]",
    inherited: Mapping[str, str],
    *,
    url: str,
    key: str,
    account: str,
    provider: Provider,
    nonessential: bool,
) -> dict[str, str]:
    """Return the environment for the command.

    Args:
        account: the id of the account that the key is of.
        manifests: the first says how the command is led to the service; what any takes out is taken out.

    Raises:
        Problem: the agent declares no way to reach this provider through the service.
    """
    from bailee.manifests.loading import fill, is_among

    first = manifests[0]
    if first.is_led and provider not in first.launch.environment:
        raise Problem(
            f"{first.title} cannot be pointed at the service for {provider}",
            where="--agent",
            fix="choose another agent or another upstream",
        )
    removed, set_here = [*OWN_SECRETS], dict(first.launch.environment.get(provider, {}))
    for launch in (manifest.launch for manifest in manifests):
        removed += [*launch.remove, *launch.remove_for.get(provider, ())]
        if not nonessential:
            removed += launch.telemetry_removed
            set_here |= launch.telemetry | launch.essential_only
    environment = {name: value for name, value in inherited.items() if not is_among(name, removed)}
    environment |= {name: fill(value, url=url, key=key, account=account) for name, value in set_here.items()}
    # The service is on this machine or has its own certificate: no proxy stands between.
    exempt = environment.get("NO_PROXY") or environment.get("no_proxy") or ""
    host = url.split("//", 1)[1].rsplit(":", 1)[0].strip("[]")
    environment["NO_PROXY"] = environment["no_proxy"] = f"{exempt},{host}" if exempt else host
    return environment


def check_layers(
    manifest: "Manifest",
    environment: Mapping[str, str],
    arguments: Sequence[str],
    *,
    nonessential: bool,
    hint: str = "",
) -> "tuple[Layer, ...]":
    """Return the layers of the agent's settings, none of which may lead it past the service.

    A settings file overrides the environment, a repository's own file included, so that it could send the
    conversation elsewhere behind the environment's back. So do settings among the agent's own arguments.

    Args:
        hint: what else helps, added to the fix.

    Raises:
        Problem: a settings file names another destination or credential, sets back what is switched off, or
            cannot be read.
    """
    from bailee.manifests.settings import is_key, read_layers, undone

    layers = read_layers(manifest, environment=environment, directory=working_folder(), arguments=arguments)
    obeyed = [layer for layer in layers if manifest.repository_leads or layer.name not in REPOSITORY]
    for layer in obeyed:
        for name in layer.leading:
            if nonessential and manifest.launch.is_telemetry(name):
                continue
            place = "" if is_key(manifest, name) else " of its `env`"
            raise Problem(
                f"{name} is set in {layer.origin} and would lead the agent past Bailee",
                where=layer.origin,
                fix=f"take {name} out{place}{hint}",
            )
    for layer, name in undone(manifest, obeyed):
        raise Problem(
            f"{name} in {layer.origin} sets back what is switched off elsewhere",
            where=layer.origin,
            fix=f"take {name} out of its `env`{hint}",
        )
    return layers


def list_changed(
    manifests: "Sequence[Manifest]",
    environment: Mapping[str, str],
    arguments: Sequence[str],
    before: "Sequence[Layer]",
) -> list[str]:
    """Return the settings files that say something else than before, in what Bailee looks at.

    An agent reads a file again while it runs, and may have written it itself. The boundary held it all the
    same; a person has to know.
    """
    from bailee.manifests.settings import read_layers
    from bailee.policy.layers import Layer

    now: list[Layer] = []
    unreadable = []
    for manifest in manifests:
        try:
            now += read_layers(
                manifest, environment=environment, directory=working_folder(), arguments=arguments
            )
        except Problem as problem:
            unreadable.append(problem.where)
    differing = [layer for layer in (*before, *now) if layer not in before or layer not in now]
    # An agent makes files of its own at its first start: those that ask for nothing change nothing.
    saying = [one.origin for one in differing if one != Layer(name=one.name, origin=one.origin)]
    return sorted({*unreadable} or {*saying})


def wait_until_ended(home: Path, key_id: str, run: str, seconds: float = 5.0) -> None:
    """Wait until the exchanges of a key have ended: a killed agent leaves some for the service to end.

    And until the service has taken the log of the run's connections.
    """
    import time

    from bailee.flows.web.receiver import is_taken
    from bailee.vault.reader import list_exchanges
    from bailee.vault.store import open_vault
    from bailee.vault.tables import State

    engine = open_vault(home)
    deadline = time.monotonic() + seconds
    time.sleep(0.1)  # a request that is being recorded becomes visible within 50 ms
    while time.monotonic() < deadline:
        ended = all(exchange.state != State.OPEN for exchange in list_exchanges(engine, key=key_id))
        if ended and is_taken(home, run):
            break
        time.sleep(0.1)
    engine.dispose()
