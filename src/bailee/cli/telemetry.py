"""`bailee telemetry`: what the agent counts on this machine, what of it is sent, and the switch."""

import os
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from bailee.cli.options import echo_json, echo_table, with_json, working_folder
from bailee.policy.problems import Problem

if TYPE_CHECKING:
    from bailee.agent.service import Service
    from bailee.agent.settings import Effective
    from bailee.agent.telemetry import Store
    from bailee.manifests import Manifest
    from bailee.policy.contexts import Context

_FLOWS = ("metrics", "errors")
_NOWHERE = "nowhere: no service is known here; the agent has one after bailee login, or in bailee run"


@click.group()
def telemetry() -> None:
    """What the agent counts on this machine, what of it is sent, and the switch.

    Nothing that the agent does depends on it. docs/operational-data.md tells all that may be counted.
    """


@telemetry.command()
@with_json
def status(as_json: bool) -> None:
    """Say what is in force in this folder, who decided it, where it goes, and what was sent last."""
    from bailee.agent.metrics import is_counted
    from bailee.agent.telemetry import LOCAL
    from bailee.moments import tell_minute
    from bailee.policy.decisions import decide
    from bailee.sizes import tell_count, tell_size

    there = _look()
    settings, store, service = there.settings, there.store, there.service
    told: dict[str, Any] = {}
    for name in _FLOWS:
        flow = there.manifest.flow(name)
        decision = decide(flow, there.context)
        # Of errors nothing is kept that is not sent.
        counted = name == "metrics" and is_counted(flow, there.context, settings["telemetry"])
        told[name] = {
            "value": "on" if decision.allowed else "local" if counted else "off",
            "decided_by": decision.decided_by,
            "because": decision.rules[0].text,
            "to": service.place if service and decision.allowed else None,
            "to_by": service.named_by if service and decision.allowed else None,
        }
    uploads = store.list_uploads()
    last = uploads[-1][1] if uploads else None
    waiting = there.waiting()
    kept = len(store.read(LOCAL))
    if as_json:
        import msgspec

        facts = {
            "wire": settings["telemetryWire"],
            "pending": sum(waiting.values()),
            "pending_for": waiting,
            "local": kept,
            "uploads": len(uploads),
        }
        echo_json({**told, **facts, "last": msgspec.to_builtins(last), "folder": str(store.folder)})
        return
    for notice in settings.notices:
        click.echo(f"note: {notice}", err=True)
    for name, one in told.items():
        click.echo(f"{name:<9}{one['value']}, decided by {one['decided_by']}: {one['because']}")
        if one["value"] == "on":
            place = f"{one['to']} ({one['to_by']})" if one["to"] else _NOWHERE
            click.echo(f"{'':<9}to {place}")
    pending = waiting.pop(service.recipient, 0) if service else 0
    click.echo(f"pending  {tell_count(pending, 'event')}, by {settings['telemetryWire']}; {store.folder}")
    for recipient, count in waiting.items():
        click.echo(f"{'':<9}{tell_count(count, 'event')} {_tell_meant(recipient)}")
    if kept:
        click.echo(f"counted  {tell_count(kept, 'event')} that stay here: bailee telemetry log --local")
    if last is None:
        click.echo("sent     nothing so far")
    else:
        how = f"answered {last.status}" if last.status else "not reached"
        click.echo(
            f"sent     {tell_count(len(uploads), 'upload')} in 30 days, the last "
            f"{tell_minute(last.at_ms)} UTC: {tell_size(last.bytes)} to {last.place}{last.path}, {how}"
        )


@telemetry.command()
def preview() -> None:
    """Print exactly what would be sent next, and send nothing.

    What waits for another service than that of now is printed too, a line of its own for each: it goes there
    and nowhere else.
    """
    from bailee.agent.metrics import next_request
    from bailee.flows.metrics.sender import Wire, write_request
    from bailee.policy.decisions import decide
    from bailee.sizes import tell_count

    there = _look()
    waiting = there.waiting()
    decision = decide(there.manifest.flow("metrics"), there.context)
    if not decision.allowed:
        before = tell_count(sum(waiting.values()), "event")
        kept = f"{before} counted before are kept (bailee telemetry clean)" if waiting else "nothing is kept"
        click.echo(f"Nothing would be sent: off by {decision.decided_by}; {kept}.", err=True)
        return
    if not waiting:
        click.echo("Nothing is pending.", err=True)
        return
    events, service = there.store.read(), there.service
    if service is None or service.recipient not in waiting:
        told = f"to {service.place}" if service else "from here: no service is known"
        click.echo(f"Nothing would be sent {told}.", err=True)
    for recipient, count in waiting.items():
        if not recipient:
            click.echo(f"{tell_count(count, 'event')} {_tell_meant(recipient)}.", err=True)
            continue
        request = write_request(
            next_request(events, recipient, there.now_ms), Wire(there.settings["telemetryWire"])
        )
        if service is not None and recipient == service.recipient:
            what = f"POST {service.place}{request.path}, {len(request.body)} bytes; not sent"
        else:
            what = f"POST {request.path}, {len(request.body)} bytes; not sent, {_tell_meant(recipient)}"
        click.echo(what, err=True)
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
        (path.stem, tell_minute(one.at_ms), one.place + one.path, str(one.status), f"{one.bytes:,}")
        for path, one in uploads
    ]
    echo_table(("UPLOAD", "WHEN (UTC)", "TO", "STATUS", "BYTES"), rows, empty="Nothing was sent.")


@telemetry.command()
def on() -> None:
    """Let metrics and errors be sent, unless another layer says otherwise."""
    _switch("on")


@telemetry.command()
def local() -> None:
    """Count on this machine and send nothing. What was counted before stays, unsent, until `clean`."""
    _switch("local")


@telemetry.command()
def off() -> None:
    """Count nothing and send nothing. What was counted stays, unsent, until `clean`."""
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
    from bailee.sizes import tell_count

    path = write_setting(
        LayerName.USER, "telemetry", value, directory=working_folder(), environment=os.environ
    )
    settings, store = _read()
    in_force = settings.values["telemetry"]
    click.echo(f"{path}: telemetry {value}", err=True)
    if in_force.value != value:
        click.echo(
            f"in force: {in_force.value}, by {in_force.origin.layer}: {in_force.origin.place}", err=True
        )
    if value != "on" and (waiting := len(store.read())):
        click.echo(
            f"{tell_count(waiting, 'event')} counted before are kept here and not sent, unless "
            "it is switched on again within 30 days. To delete them: bailee telemetry clean",
            err=True,
        )


class _There(NamedTuple):
    """What is in force on this machine in this folder, and what lies here."""

    settings: "Effective"
    store: "Store"
    manifest: "Manifest"
    context: "Context"
    service: "Service | None"
    now_ms: int

    def waiting(self) -> dict[str, int]:
        """Return how many events are pending for each recipient, that of now first."""
        from bailee.agent.telemetry import is_late

        counts = Counter(one.recipient for one in self.store.read() if not is_late(one, self.now_ms))
        now = self.service.recipient if self.service else ""
        return dict(sorted(counts.items(), key=lambda one: (one[0] != now, one[0])))


def _look() -> _There:
    """Read it as the agent does when it starts."""
    from bailee.agent.account import choose_service, find_account
    from bailee.manifests import load_manifest

    settings, store = _read()
    state, environment = store.folder.parent, {**settings.environment, **os.environ}
    provider = settings.context().provider
    account = find_account(state, environment, provider)
    context = settings.context(account.context() if account else None)
    service = choose_service(state, environment, provider, account)
    return _There(settings, store, load_manifest("bailee"), context, service, time.time_ns() // 1_000_000)


def _tell_meant(recipient: str) -> str:
    """Say who alone gets what was counted."""
    return f"for {recipient}, and nobody else" if recipient else "for nobody: no service was noted with them"


def _read() -> "tuple[Effective, Store]":
    from bailee.agent.settings import read_settings
    from bailee.agent.state import state_folder
    from bailee.agent.telemetry import Store

    folder: Path = working_folder()
    return read_settings(directory=folder), Store(state_folder(os.environ))
