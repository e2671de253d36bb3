"""`bailee manifests`: the agents that have one, and the pages drawn from them."""

import json
from pathlib import Path

import click

from bailee.manifests import agents, load_manifest
from bailee.manifests.publishing import drifted, publish
from bailee.policy.problems import Problem

EXIT_DRIFTED = 1


@click.group()
def manifests() -> None:
    """List the agents' manifests and draw the published pages from them."""


@manifests.command("list")
@click.option("--json", "as_json", is_flag=True, help="Write JSON.")
def list_manifests(as_json: bool) -> None:
    """List the agents that have a manifest."""
    found = [load_manifest(agent) for agent in agents()]
    if as_json:
        click.echo(json.dumps([{"agent": one.agent, "title": one.title} for one in found], indent=2))
        return
    for one in found:
        click.echo(f"{one.agent:<14}{one.title}")


@manifests.command()
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("docs"),
    show_default=True,
    help="Where the pages lie.",
)
@click.option(
    "--check", is_flag=True, help="Write nothing; end with 1 if a page is not what its manifest says."
)
@click.option("--json", "as_json", is_flag=True, help="Write JSON.")
def render(folder: Path, check: bool, as_json: bool) -> None:
    """Draw the data-usage pages and diagrams.

    \b
    Examples:
      bailee manifests render
      bailee manifests render --check
    """
    if not folder.is_dir():
        raise Problem(
            "there is no such folder", where=f"--folder {folder}", fix="name the folder of the pages"
        )
    names = drifted(folder) if check else publish(folder)
    if as_json:
        click.echo(json.dumps({"folder": str(folder), "drifted" if check else "written": names}))
    for name in names:
        click.echo(f"{'drifted' if check else 'wrote'} {folder / name}", err=True)
    if check and names:
        click.echo("to mend it: bailee manifests render", err=True)
        raise SystemExit(EXIT_DRIFTED)
