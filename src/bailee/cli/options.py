"""Options that several commands share."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from bailee.characters import make_visible
from bailee.home import home_directory
from bailee.policy.problems import Problem

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _resolve(context: click.Context, option: click.Parameter, value: Path | None) -> Path:
    try:
        return home_directory() if value is None else value.expanduser().absolute()
    except RuntimeError:
        raise Problem(
            "the home is in the folder of a user who is not there",
            where="BAILEE_HOME" if value is None else f"--home {value}",
            fix="write the path in full",
        ) from None


def with_home(command: _Command) -> _Command:
    """Add `--home DIR`; the command gets an absolute path."""
    return click.option(
        "--home",
        type=click.Path(path_type=Path),
        callback=_resolve,
        help="Where state is kept. [default: BAILEE_HOME, else ~/.local/share/bailee]",
    )(command)


def working_folder() -> Path:
    """Return the working folder.

    Raises:
        Problem: it is gone.
    """
    try:
        return Path.cwd()
    except FileNotFoundError:
        raise Problem("the working folder is gone", fix="change to one that is there") from None


def with_json(command: _Command) -> _Command:
    """Add `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def echo_json(value: object) -> None:
    """Print a value as indented JSON on standard output."""
    import msgspec

    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2))


def echo_table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]], *, empty: str) -> None:
    """Print aligned columns on standard output, or say on standard error that there is nothing.

    Characters in them that a terminal would obey are made visible.
    """
    if not rows:
        if empty:
            click.echo(empty, err=True)
        return
    visible = [heads, *(tuple(make_visible(cell) for cell in row) for row in rows)]
    widths = [max(len(cell) for cell in column) for column in zip(*visible, strict=True)]
    for row in visible:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())
