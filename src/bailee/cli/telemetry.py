"""`bailee telemetry`: what the agent counts on this machine, what of it is sent, and the switch."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bailee.cli.options import echo_json, echo_table, with_json, working_folder
from bailee.policy.problems import Problem

if TYPE_CHECKING:
    from bailee.agent.settings import Effective
    from bailee.agent.telemetry import Store

_FLOWS = ("metrics", "errors")


@click.group()
def telemetry() -> None:
    """What the agent counts on this machine, what of it is sent, and the switch.

    Nothing that the agent does depends on it. docs/operational-data.md tells all that may be counted.
    """


@telemetry.command()
@with_json
def status(as_json: bool) -> None:
    """Say what is in force in this folder, who decided it, and what was sent last."""
    from bailee.agent.account import find_account
    from bailee.agent.metrics import is_counted
    from bailee.agent.service import find_service
    from bailee.agent.state import state_folder
    from bailee.agent.telemetry import LOCAL
    from bailee.manifests import load_manifest
    from bailee.moments import tell_minute
    from bailee.policy.decisions import decide
    from bailee.sizes import tell_count, tell_size

    settings, store = _read()
    manifest = load_manifest("bailee")
    account = find_account(
        state_folder(), {**settings.environment, **os.environ}, settings.context().provider
    )
    context = settings.context(account.context() if account else None)
    service = find_service({**settings.environment, **os.environ})
    told: dict[str, Any] = {}
    for name in _FLOWS:
        flow = manifest.flow(name)
        decision = decide(flow, context)
        # Of errors nothing is kept that is not sent.
        counted = name == "metrics" and is_counted(flow, context, settings["telemetry"])
        told[name] = {
            "value": "on" if decision.allowed else "local" if counted else "off",
            "decided_by": decision.decided_by,
            "because": decision.rules[0].text,
            "to": service.url if service and decision.allowed else None,
        }
    uploads = store.list_uploads()
    last = uploads[-1][1] if uploads else None
    pending, kept = len(store.read()), len(store.read(LOCAL))
    if as_json:
        import msgspec

        facts = {
            "wire": settings["telemetryWire"],
            "pending": pending,
            "local": kept,
            "uploads": len(uploads),
        }
        echo_json({**told, **facts, "last": msgspec.to_builtins(last), "folder": str(store.folder)})
        return
    for name, one in told.items():
        click.echo(f"{name:<9}{one['value']}, decided by {one['decided_by']}: {one['because']}")
        if one["value"] == "on":
            click.echo(f"{'':<9}to {one['to'] or 'nowhere: the agent was started without a service'}")
    click.echo(f"pending  {tell_count(pending, 'event')}, by {settings['telemetryWire']}; {store.folder}")
    if kept:
        click.echo(f"counted  {tell_count(kept, 'event')} that stay here: bailee telemetry log --local")
    if last is None:
        click.echo("sent     nothing so far")
    else:
        how = f"answered {last.status}" if last.status else "not reached"
        click.echo(
            f"sent     {tell_count(len(uploads), 'upload')} in 30 days, the last "
            f"{tell_minute(last.at_ms)} UTC: {tell_size(last.bytes)} to {last.path}, {how}"
        )


@telemetry.command()
def preview() -> None:
    """Print exactly what would be sent next, and send nothing."""
    from bailee.agent.telemetry import MOST_IN_A_REQUEST
    from bailee.flows.metrics.sender import Wire, write_request

    settings, store = _read()
    events = store.read()[:MOST_IN_A_REQUEST]
    if not events:
        click.echo("Nothing is pending.", err=True)
        return
    request = write_request(events, Wire(settings["telemetryWire"]))
    click.echo(f"POST {request.path}, {len(request.body)} bytes; not sent", err=True)
    click.echo(request.body.decode())


@telemetry.command()
@click.argument("upload", required=False)
@click.option("--local", "is_local", is_flag=True, help="Print what was counted here and is never sent.")
@with_json
def log(upload: str | None, is_local: bool, as_json: bool) -> None:
    """List what was sent in the last 30 days; with UPLOAD, print it exactly as it was sent."""
    import msgspec

    from bailee.agent.telemetry import LOCAL
    from bailee.moments import tell_minute

    _, store = _read()
    if is_local:
        for event in store.read(LOCAL):
            click.echo(msgspec.json.encode(event).decode())
        return
    uploads = store.list_uploads()
    if upload is not None:
        found = [path for path, _ in uploads if path.stem == upload]
        if not found:
            raise Problem(f"there is no upload {upload!r}", where="UPLOAD", fix="see: bailee telemetry log")
        click.echo(found[0].read_bytes().decode())
        return
    if as_json:
        echo_json([{"id": path.stem, **msgspec.to_builtins(one)} for path, one in uploads])
        return
    rows = [
        (path.stem, tell_minute(one.at_ms), one.path, str(one.status), f"{one.bytes:,}")
        for path, one in uploads
    ]
    echo_table(("UPLOAD", "WHEN (UTC)", "TO", "STATUS", "BYTES"), rows, empty="Nothing was sent.")


@telemetry.command()
def on() -> None:
    """Let metrics and errors be sent, unless another layer says otherwise."""
    _switch("on")


@telemetry.command()
def local() -> None:
    """Count on this machine and send nothing."""
    _switch("local")


@telemetry.command()
def off() -> None:
    """Count nothing and send nothing. What was counted stays until `clean`."""
    _switch("off")


@telemetry.command()
def clean() -> None:
    """Delete what was counted and the copies of what was sent, on this machine."""
    from bailee.agent.state import state_folder
    from bailee.agent.telemetry import Store
    from bailee.sizes import tell_count

    gone = Store(state_folder(os.environ)).clean()
    click.echo(f"{tell_count(gone, 'file')} deleted.", err=True)


def _switch(value: str) -> None:
    from bailee.agent.editing import write_setting
    from bailee.policy.layers import LayerName

    path = write_setting(
        LayerName.USER, "telemetry", value, directory=working_folder(), environment=os.environ
    )
    settings, _ = _read()
    in_force = settings.values["telemetry"]
    click.echo(f"{path}: telemetry {value}", err=True)
    if in_force.value != value:
        click.echo(
            f"in force: {in_force.value}, by {in_force.origin.layer}: {in_force.origin.place}", err=True
        )


def _read() -> "tuple[Effective, Store]":
    from bailee.agent.settings import read_settings
    from bailee.agent.state import state_folder
    from bailee.agent.telemetry import Store

    folder: Path = working_folder()
    return read_settings(directory=folder), Store(state_folder(os.environ))
