"""Writes the reference of all commands, `docs/cli.md`, from the commands themselves."""

import sys
from collections.abc import Iterator
from pathlib import Path

import click

WIDTH = 100
_HEAD = """# Commands

Written from the commands themselves: `python -m bailee.cli.reference docs/cli.md`. Data goes to standard
output, all else to standard error. `--json` is on everything that reports. Exit codes: 0 done, 1 the answer
is no or the work failed, 2 the call or a setting is wrong; `bailee run` ends with the exit code of the
command it ran.
"""


def write_reference(group: click.Group) -> str:
    """Return the reference as Markdown."""
    return _HEAD + "".join(_sections(group, "bailee", None))


def _sections(command: click.Command, path: str, parent: click.Context | None) -> Iterator[str]:
    context = click.Context(
        command,
        info_name=path.rpartition(" ")[2],
        parent=parent,
        terminal_width=WIDTH,
        max_content_width=WIDTH,
        help_option_names=["-h", "--help"],
    )
    yield f"\n## {path}\n\n```text\n{command.get_help(context)}\n```\n"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from _sections(found, f"{path} {name}", context)
        # A group whose option stands for another set of commands.
        if variant := getattr(command, "variant", ""):
            context.params = {
                parameter.name: True for parameter in command.params if variant in parameter.opts
            }
            for name in command.list_commands(context):
                found = command.get_command(context, name)
                assert found is not None
                yield from _sections(found, f"{path} {variant} {name}", context)


def main(arguments: list[str]) -> int:
    """Write the reference to a file; with `--check` compare only, and return 1 where it has drifted."""
    from bailee.cli import group

    *options, name = arguments
    path, text = Path(name), write_reference(group)
    if options == ["--check"]:
        if path.read_text() == text:
            return 0
        click.echo(f"{path} has drifted from the commands: python -m bailee.cli.reference {path}", err=True)
        return 1
    path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
