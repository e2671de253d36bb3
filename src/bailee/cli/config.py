"""`bailee config`: what the agent's settings are, where each comes from, and how to change one."""

import os
from typing import TYPE_CHECKING, Any

import click

from bailee.cli.options import echo_json, echo_table, with_json, working_folder
from bailee.policy.layers import LayerName
from bailee.policy.problems import Problem

if TYPE_CHECKING:
    from bailee.agent.settings import Effective

LAYERS = {"user": LayerName.USER, "project": LayerName.PROJECT, "local": LayerName.LOCAL}


@click.group()
def config() -> None:
    """The agent's settings: what is in force, and where it comes from."""


with_origin = click.option("--show-origin", is_flag=True, help="Tell the layer and the file that decided.")


@config.command(name="list")
@with_origin
@with_json
def list_(show_origin: bool, as_json: bool) -> None:
    """List every setting as it is in force in this folder."""
    from bailee.agent.settings import read_settings

    settings = read_settings(directory=working_folder())
    tell_notices(settings)
    if as_json:
        echo_json([_fact(settings, key) for key in settings.values])
        return
    rows = []
    for key in settings.values:
        fact = _fact(settings, key)
        row = (key, _written(fact["value"]), *((fact["layer"], fact["origin"]) if show_origin else ()))
        rows.append(row)
    for name, value, layer, place in _variables(settings):
        rows.append((f"env.{name}", value, *((layer, place) if show_origin else ())))
    echo_table(("KEY", "VALUE", *(("LAYER", "FROM") if show_origin else ())), rows, empty="")


@config.command()
@click.argument("key")
@with_origin
@with_json
def get(key: str, show_origin: bool, as_json: bool) -> None:
    """Print one setting as it is in force in this folder."""
    from bailee.agent.settings import read_settings

    settings = read_settings(directory=working_folder())
    tell_notices(settings)
    if key.startswith("env."):
        found = [one for one in _variables(settings) if f"env.{one[0]}" == key]
        if not found:
            raise Problem(f"{key} is not set", fix="see: bailee config list")
        _, value, layer, place = found[0]
        fact: dict[str, Any] = {"key": key, "value": value, "layer": layer, "origin": place}
    else:
        fact = _fact(settings, _known(settings, key))
    if as_json:
        echo_json(fact)
        return
    click.echo(_written(fact["value"]) + (f"  ({fact['layer']}: {fact['origin']})" if show_origin else ""))


@config.command(name="set")
@click.argument("key")
@click.argument("value")
@click.option(
    "--layer",
    type=click.Choice(list(LAYERS)),
    default="user",
    show_default=True,
    help="Your own file, the project's, or the project's that is not checked in.",
)
def set_(key: str, value: str, layer: str) -> None:
    """Write one setting into a settings file; what is wrong is not written.

    VALUE is JSON, or else taken as text. A dot leads into an object.

    \b
    Examples:
      bailee config set cleanupPeriodDays 7
      bailee config set telemetry off
      bailee config set env.DISABLE_TELEMETRY 1
      bailee config set permissions.deny '["bash(git push*)"]'
    """
    from bailee.agent.editing import write_setting
    from bailee.agent.settings import read_settings

    folder = working_folder()
    path = write_setting(LAYERS[layer], key, value, directory=folder, environment=os.environ)
    settings = read_settings(directory=folder)
    tell_notices(settings)
    click.echo(f"{path}: {key}", err=True)
    if key in settings.values:
        fact = _fact(settings, key)
        click.echo(f"in force: {_written(fact['value'])} ({fact['layer']}: {fact['origin']})", err=True)


@config.command()
@click.argument("key")
@click.option(
    "--layer",
    type=click.Choice(list(LAYERS)),
    default="user",
    show_default=True,
    help="Which file: your own, or one of the project's.",
)
def unset(key: str, layer: str) -> None:
    """Take one setting out of a settings file."""
    from bailee.agent.editing import write_setting

    path = write_setting(LAYERS[layer], key, None, directory=working_folder(), environment=os.environ)
    click.echo(f"{path}: {key} taken out", err=True)


@config.command()
def schema() -> None:
    """Print the JSON Schema of a settings file, for editors."""
    from bailee.agent.settings import make_schema

    echo_json(make_schema())


def tell_notices(settings: "Effective") -> None:
    """Tell what was read and does not count."""
    for notice in settings.notices:
        click.echo(f"note: {notice}", err=True)


def _known(settings: "Effective", key: str) -> str:
    import difflib

    if key in settings.values:
        return key
    near = difflib.get_close_matches(key, list(settings.values), 1)
    raise Problem(
        f"there is no setting {key!r}", fix=f"did you mean {near[0]}?" if near else "see: bailee config list"
    )


def _fact(settings: "Effective", key: str) -> dict[str, Any]:
    value = settings.values[key]
    return {"key": key, "value": value.value, "layer": value.origin.layer, "origin": value.origin.place}


def _variables(settings: "Effective") -> list[tuple[str, str, str, str]]:
    """Return the variables of every layer that the policy looks at, and those of the owner's own files."""
    found = [
        (name, value, str(layer.name), layer.origin)
        for layer in settings.layers
        for name, value in layer.variables.items()
    ]
    known = {name for name, *_ in found}
    found += [
        (name, value, "", "your settings")
        for name, value in settings.environment.items()
        if name not in known
    ]
    return sorted(found)


def _written(value: object) -> str:
    import msgspec

    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
