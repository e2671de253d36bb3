"""`bailee sessions --local`: the sessions that the agent keeps on this machine."""

import os
import sys
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bailee.cli.options import echo_json, echo_table, with_json, working_folder
from bailee.moments import tell_minute, tell_moment
from bailee.policy.problems import Problem
from bailee.sizes import tell_count, tell_size

if TYPE_CHECKING:
    from bailee.agent.conversations import Message
    from bailee.agent.sessions.cache import Cache, Kept, Session
    from bailee.agent.sessions.periods import Limits


@click.group()
def local() -> None:
    """The sessions that the agent keeps on this machine."""


@local.command(name="list")
@click.option("--here", is_flag=True, help="Only those of this folder.")
@with_json
def list_(here: bool, as_json: bool) -> None:
    """List the sessions kept on this machine, the one used last first, and when each goes.

    Ends with 1 where some cannot be read.
    """
    cache, limits = open_cache()
    found, problems = cache.list(folder=working_folder() if here else None)
    # One key opens all: where it is missing each session says the same.
    for told in dict.fromkeys(map(str, problems)):
        click.echo(f"bailee: {told}", err=True)
    if as_json:
        echo_json([describe(session, limits) for session in found])
        sys.exit(1 if problems else 0)
    rows = [
        (
            session.id[:8],
            tell_minute(session.used),
            str(session.messages),
            tell_size(session.size),
            tell_end(session, limits),
            _fitted(session.title, 40),
            session.folder,
        )
        for session in found
    ]
    heads = ("SESSION", "LAST USED (UTC)", "MESSAGES", "SIZE", "GOES ON", "NAME", "FOLDER")
    echo_table(heads, rows, empty="" if problems else "No session is kept on this machine.")
    sys.exit(1 if problems else 0)


@local.command()
@click.argument("session_id")
@with_json
def show(session_id: str, as_json: bool) -> None:
    """Show what was said in a session. The beginning of its id, or its name, will do."""
    cache, limits = open_cache()
    kept = cache.read(cache.find(session_id).id)
    if as_json:
        echo_json({**describe(kept.session, limits), "said": kept.said})
        return
    click.echo(write_text(kept, limits))


@local.command()
@click.argument("session_id")
def pin(session_id: str) -> None:
    """Keep a session past its time. What a managed file asks ends it all the same."""
    _set_pin(session_id, is_pinned=True)


@local.command()
@click.argument("session_id")
def unpin(session_id: str) -> None:
    """Let a session go when its time is over."""
    _set_pin(session_id, is_pinned=False)


@local.command()
@click.argument("session_ids", nargs=-1)
@click.option("--all", "is_all", is_flag=True, help="Every session of this machine.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Only tell what would be deleted.")
@with_json
def delete(session_ids: tuple[str, ...], is_all: bool, yes: bool, dry_run: bool, as_json: bool) -> None:
    """Delete sessions: the key first, then all of the rest, the name included."""
    from bailee.cli.erasures import require_confirmation

    cache, _ = open_cache()
    if is_all == bool(session_ids):
        raise Problem("no session is named", where="SESSION_IDS, --all", fix="name some, or give --all")
    paths = cache.paths()
    chosen = [path.stem for path in paths] if is_all else [cache.locate(one) for one in session_ids]
    chosen = list(dict.fromkeys(chosen))
    what = tell_count(len(chosen), "session")
    if dry_run:
        if as_json:
            echo_json({"deleted": [], "would_delete": chosen})
        else:
            click.echo("\n".join([f"would delete {what}", *chosen]))
        return
    require_confirmation(f"Delete {what} from this machine?", yes=yes)
    for id in chosen:
        cache.delete(id)
    if as_json:
        echo_json({"deleted": chosen})
    else:
        click.echo(f"deleted {what}", err=True)


@local.command()
@click.argument("session_id")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write to this file, new.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Text to read, or JSON as the model's API has it.",
)
def export(session_id: str, out: Path | None, form: str) -> None:
    """Write a session out, in clear. Secrets were masked when it was kept."""
    import msgspec

    from bailee.files import write_private

    cache, limits = open_cache()
    kept = cache.read(cache.find(session_id).id)
    if form == "json":
        facts = {**describe(kept.session, limits), "said": kept.said}
        text = msgspec.json.format(msgspec.json.encode(facts), indent=2).decode()
    else:
        text = write_text(kept, limits)
    if out is None:
        click.echo(text)
        return
    try:
        write_private(out, text.encode() + b"\n")
    except OSError as fault:
        raise Problem(
            f"the session cannot be written there: {fault.strerror}", where=str(out), fix="name a new file"
        ) from None
    click.echo(f"{out}: in clear, and Bailee does not know of it any more", err=True)


@local.command()
@click.option("--dry-run", is_flag=True, help="Only tell which sessions would go.")
@with_json
def sweep(dry_run: bool, as_json: bool) -> None:
    """Delete the sessions whose time is over, as the agent does when it starts."""
    from bailee.agent.sessions.periods import Swept, plan, sweep

    cache, limits = open_cache()
    today = datetime.now(UTC).date()
    if dry_run:
        found, problems = cache.list()
        planned = plan(found, limits, today)
        swept = Swept(planned.due, planned.soon, tuple(problems))
    else:
        swept = sweep(cache, limits, today)
    for problem in swept.problems:
        click.echo(f"bailee: {problem}", err=True)
    if as_json:
        echo_json(
            {
                "would_delete" if dry_run else "deleted": [one.id for one in swept.deleted],
                "soon": [{"id": one.id, "goes_on": day.isoformat()} for one, day in swept.soon],
                "problems": [str(problem) for problem in swept.problems],
            }
        )
        return
    for session in swept.deleted:
        click.echo(f"{'would delete' if dry_run else 'deleted'} {session.id[:8]} {session.title}")
    for session, day in swept.soon:
        click.echo(f"goes on {day}: {session.id[:8]} {session.title}")
    if not (swept.deleted or swept.soon):
        click.echo("No session is due, and none goes within a week.", err=True)


def open_cache() -> "tuple[Cache, Limits]":
    """Return this machine's sessions, and how long they stay."""
    from bailee.agent.sessions.cache import Cache
    from bailee.agent.sessions.periods import Limits
    from bailee.agent.settings import AGENT, read_settings
    from bailee.agent.state import state_folder
    from bailee.manifests import load_manifest
    from bailee.policy.flows import FlowId

    folder = working_folder()
    state = state_folder()
    settings = read_settings(directory=folder)
    context = settings.context()
    flow = load_manifest(AGENT).flow(FlowId.LOCAL_CACHE)
    return Cache(state, environment=os.environ), Limits.of(flow, context, str(folder))


def describe(session: "Session", limits: "Limits") -> dict[str, Any]:
    """Return a session as JSON data."""
    import msgspec

    facts: dict[str, Any] = msgspec.to_builtins(session)
    day: date | None = limits.of_session(session)
    return facts | {
        "created": tell_moment(session.created),
        "used": tell_moment(session.used),
        "goes_on": day.isoformat() if day else None,
    }


def tell_end(session: "Session", limits: "Limits") -> str:
    """Return when a session goes, in words."""
    day = limits.of_session(session)
    return (day.isoformat() if day else "never") + (" (pinned)" if session.is_pinned else "")


def write_text(kept: "Kept", limits: "Limits") -> str:
    """Return a session as text to read."""
    from bailee.agent.conversations import texts

    session = kept.session
    lines = [
        f"Session {session.id}: {session.title}",
        f"In {session.folder}, last used {tell_minute(session.used)} UTC.",
        f"It goes on {tell_end(session, limits)}.",
    ]
    for message in kept.said:
        content = message["content"]
        lines += ["", _head(message)]
        lines += list(texts(message))
        for block in content if isinstance(content, list) else ():
            if block.get("type") == "tool_use":
                lines.append(f"[{block['name']}] {_fitted(str(block.get('input', '')), 400)}")
            elif block.get("type") == "tool_result":
                lines.append(f"[result] {_fitted(str(block.get('content', '')), 400)}")
    return "\n".join(_visible(line) for line in lines)


def _head(message: "Message") -> str:
    """Say whose words a message is: results of tools come back under the user's name in the model's API."""
    content = message["content"]
    kinds = {block.get("type") for block in content} if isinstance(content, list) else set()
    if message["role"] != "user":
        return "Agent:"
    return "Tools:" if kinds == {"tool_result"} else "You:"


def _visible(text: str) -> str:
    from bailee.characters import make_visible

    # Line ends and tabs are what they are: no terminal obeys more in them, and code has them.
    return "\n".join("\t".join(make_visible(part) for part in line.split("\t")) for line in text.split("\n"))


def _fitted(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."


def _set_pin(session_id: str, *, is_pinned: bool) -> None:
    cache, limits = open_cache()
    session = cache.find(session_id)
    cache.note(session.id, {"pinned": is_pinned})
    after = cache.describe(cache.path(session.id))
    click.echo(f"{session.id[:8]} {session.title}: goes on {tell_end(after, limits)}", err=True)
