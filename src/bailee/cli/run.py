"""`bailee run`: an agent under custody, from its first request to its receipt."""

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bailee.cli.options import with_home
from bailee.policy.plans import Provider
from bailee.policy.problems import Problem

if TYPE_CHECKING:
    from bailee.manifests import Manifest
    from bailee.policy.layers import Layer

FALLBACK_AGENT = "bailee"
# A shell's own words for a command that is not there, or cannot be run (POSIX, "Exit Status for Commands").
EXIT_NOT_FOUND, EXIT_NOT_EXECUTABLE = 127, 126
FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
FROM_TERMINAL = (signal.SIGINT, signal.SIGQUIT)


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--agent", help="Which manifest declares it; found by the command's name if left out.")
@click.option("--account", help="Whose session it is; the only account, or `me`, if left out.")
@click.option("--upstream", help="Start the service with this upstream, where none is running.")
@click.option(
    "--nonessential",
    is_flag=True,
    help="Leave the agent's telemetry, error reports and updates as they are, past the service.",
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
    receipt: Path | None,
    as_json: bool,
    home: Path,
    command: tuple[str, ...],
) -> None:
    """Run a coding agent through Bailee and print its receipt.

    The command gets an environment that points at the service, with a key made for this run and revoked
    after it; your own credentials are taken out. Everything is passed through: input, output, signals and
    the exit status. The receipt goes to standard error. Exit status: the command's own; 128 + N if signal
    N ended it; 127 if it is not found; 2 if Bailee refused to start it.

    \b
    Examples:
      bailee run -- claude
      bailee run --upstream rehearsal -- claude -p "rehearse greet"
      bailee run --account ada --receipt receipt.json -- python my_agent.py
    """
    from bailee.accounts.directory import open_directory
    from bailee.accounts.keys import create_key, revoke_key
    from bailee.manifests import load_manifest
    from bailee.service.launching import running_service
    from bailee.vault.store import open_vault

    name = agent or find_agent(command[0])
    manifest = load_manifest(name)
    directory = open_directory(home)
    holder = directory.get(account) if account else directory.ensure_default()
    started = datetime.now(UTC)
    with running_service(home, upstream) as (service, _):
        provider = Provider(service.upstream) if service.upstream in set(Provider) else Provider.ANTHROPIC
        key, secret = create_key(directory, holder.name, label=f"run {Path(command[0]).name}"[:100])
        try:
            environment = make_environment(
                manifest,
                os.environ,
                url=service.url,
                key=secret,
                provider=provider,
                nonessential=nonessential,
            )
            layers = check_layers(manifest, environment)
            status = run_command(command, environment)
        finally:
            revoke_key(directory, key.id)
        wait_until_ended(home, key.id)
    from bailee.policy.contexts import Context
    from bailee.service.receipts import make_receipt, tell_receipt

    made = make_receipt(
        open_vault(home),
        key_id=key.id,
        agent=name,
        manifest=manifest,
        context=Context(plan=holder.plan, provider=provider, layers=layers),
        account=holder.name,
        upstream=service.upstream,
        started=started,
        exit_status=status,
    )
    import msgspec

    encoded = msgspec.json.format(msgspec.json.encode(made), indent=2)
    if receipt is not None:
        receipt.write_bytes(encoded + b"\n")
    if as_json:
        click.echo(encoded, err=True)
    else:
        click.echo("\n".join(["", *tell_receipt(made)]), err=True)
    raise SystemExit(status)


def find_agent(command: str) -> str:
    """Return the agent that a command is, by its file name; one that is not known counts as an SDK client."""
    from bailee.manifests import agents, load_manifest

    name = Path(command).name
    for agent in agents():
        if name == agent or name in load_manifest(agent).launch.commands:
            return agent
    return FALLBACK_AGENT


def make_environment(
    manifest: "Manifest",
    inherited: Mapping[str, str],
    *,
    url: str,
    key: str,
    provider: Provider,
    nonessential: bool,
) -> dict[str, str]:
    """Return the environment for the command.

    Raises:
        Problem: the agent declares no way to reach this provider through the service.
    """
    launch = manifest.launch
    if provider not in launch.environment:
        raise Problem(
            f"{manifest.title} cannot be pointed at the service for {provider}",
            where="--agent",
            fix="choose another agent or another upstream",
        )
    removed, set_here = {*launch.remove}, dict(launch.environment[provider])
    if not nonessential:
        removed |= {*launch.telemetry_removed}
        set_here |= launch.telemetry | launch.essential_only
    environment = {name: value for name, value in inherited.items() if name not in removed}
    environment |= {
        name: value.replace("{url}", url).replace("{key}", key) for name, value in set_here.items()
    }
    # The service is on this machine or has its own certificate: no proxy stands between.
    exempt = environment.get("NO_PROXY") or environment.get("no_proxy") or ""
    host = url.split("//", 1)[1].rsplit(":", 1)[0].strip("[]")
    environment["NO_PROXY"] = environment["no_proxy"] = f"{exempt},{host}" if exempt else host
    return environment


def check_layers(manifest: "Manifest", environment: Mapping[str, str]) -> "tuple[Layer, ...]":
    """Return the layers of the agent's settings, none of which may lead it past the service.

    A settings file overrides the environment, a repository's own file included, so that it could send the
    conversation elsewhere behind the environment's back.

    Raises:
        Problem: a settings file names another destination, or cannot be read.
    """
    from bailee.manifests.settings import read_layers

    layers = read_layers(manifest, environment=environment, directory=Path.cwd())
    for layer in layers:
        for name in sorted(manifest.destination_variables & layer.variables.keys()):
            if layer.variables[name] != environment.get(name):
                raise Problem(
                    f"{name} is set in {layer.origin} and would lead the agent past Bailee",
                    where=layer.origin,
                    fix=f"take {name} out of its `env`",
                )
    return layers


def run_command(command: tuple[str, ...], environment: Mapping[str, str]) -> int:
    """Run the command to its end and return its exit status as a shell would tell it."""
    try:
        process = subprocess.Popen(command, env=environment)
    except FileNotFoundError:
        click.echo(f"bailee: {command[0]}: not found", err=True)
        return EXIT_NOT_FOUND
    except OSError as error:
        click.echo(f"bailee: {command[0]}: {error.strerror}", err=True)
        return EXIT_NOT_EXECUTABLE
    with forwarding(process):
        status = process.wait()
    return 128 - status if status < 0 else status


@contextmanager
def forwarding(process: "subprocess.Popen[bytes]") -> Iterator[None]:
    """Pass signals on; a terminal's Ctrl-C and Ctrl-\\ have reached the command already."""

    def forward(number: int, frame: object) -> None:
        if process.poll() is None:
            process.send_signal(number)

    before = {number: signal.signal(number, forward) for number in FORWARDED}
    shared = signal.SIG_IGN if os.isatty(0) else forward
    before |= {number: signal.signal(number, shared) for number in FROM_TERMINAL}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def wait_until_ended(home: Path, key_id: str, seconds: float = 5.0) -> None:
    """Wait until the exchanges of a key have ended: a killed agent leaves some for the service to end."""
    import time

    from bailee.vault.reader import list_exchanges
    from bailee.vault.store import open_vault
    from bailee.vault.tables import State

    engine = open_vault(home)
    deadline = time.monotonic() + seconds
    time.sleep(0.1)  # a request that is being recorded becomes visible within 50 ms
    while time.monotonic() < deadline:
        if all(exchange.state != State.OPEN for exchange in list_exchanges(engine, key=key_id)):
            break
        time.sleep(0.1)
    engine.dispose()
