"""The file that a receipt goes to: made before the act that it proves, as no receipt is made twice."""

import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from os import fstat
from pathlib import Path

import click

from bailee.policy.problems import Problem


@contextmanager
def claiming(path: Path | None) -> Iterator[None]:
    """Make the file before the act begins; where the act does not come about, take it away again.

    An empty file that is there already is taken: a command that was killed leaves one.

    Raises:
        Problem: it cannot be written, or holds something, such as the receipt of an earlier act.
    """
    if path is None:
        yield
        return
    is_new = not path.exists()
    try:
        with path.open("ab") as file:
            facts = fstat(file.fileno())
    except OSError as error:
        raise Problem(
            f"the receipt cannot be written there: {error.strerror}",
            where=f"--receipt {path}",
            fix="name a file in a folder that is there and that you may write in",
        ) from None
    if stat.S_ISREG(facts.st_mode) and facts.st_size:
        raise Problem(
            "the file holds something already, and may be the only copy of a receipt",
            where=f"--receipt {path}",
            fix="name a new file",
        )
    try:
        yield
    except BaseException:
        if is_new:
            with suppress(OSError):
                if not path.stat().st_size:
                    path.unlink()
        raise


def write_proof(path: Path | None, proof: bytes) -> None:
    """Write a receipt to the file that was claimed for it, and to standard output where that fails.

    Raises:
        OSError: it failed, as on a full disk.
    """
    if path is None:
        return
    try:
        path.write_bytes(proof)
    except OSError:
        click.echo("The receipt is on standard output, as its file cannot be written. Keep it:", err=True)
        click.echo(proof, nl=False)
        raise
