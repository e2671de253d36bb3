"""`bailee keys`: what agents present."""

from pathlib import Path

import click

from bailee.cli.options import echo_json, echo_table, with_home, with_json
from bailee.moments import tell_minute


@click.group()
def keys() -> None:
    """Create, list and revoke the keys agents present."""


@keys.command()
@click.option("--account", required=True, help="Whose key it is.")
@click.option("--label", default="", help="What it is for, in a few words.")
@with_home
@with_json
def create(account: str, label: str, home: Path, as_json: bool) -> None:
    """Create a key. It is shown this once: Bailee keeps only its digest.

    The key alone is on standard output, so that it can be piped into a secrets store.
    """
    from bailee.accounts.directory import open_directory
    from bailee.accounts.keys import create_key

    key, secret = create_key(open_directory(home), account, label=label)
    if as_json:
        echo_json({"id": key.id, "account": key.account, "label": key.label, "key": secret})
        return
    click.echo(secret)
    click.echo(
        f"Key {key.id} of {key.account}. Shown this once. Revoke: bailee keys revoke {key.id}", err=True
    )


@keys.command(name="list")
@click.option("--all", "with_revoked", is_flag=True, help="Revoked keys as well.")
@with_home
@with_json
def list_(with_revoked: bool, home: Path, as_json: bool) -> None:
    """List the keys in force, the newest first."""
    from bailee.accounts.directory import open_directory
    from bailee.accounts.keys import list_keys

    known = list_keys(open_directory(home))
    found = [key for key in known if with_revoked or key.revoked_ms is None]
    if as_json:
        echo_json(found)
        return
    rows = [
        (
            key.id,
            key.account,
            tell_minute(key.created_ms),
            "revoked" if key.revoked_ms else "in force",
            key.label,
        )
        for key in found
    ]
    heads = ("ID", "ACCOUNT", "CREATED (UTC)", "STATE", "LABEL")
    echo_table(heads, rows, empty="No keys in force. Create one: bailee keys create --account NAME")
    if len(found) < len(known):
        click.echo(f"{len(known) - len(found)} revoked, not shown (--all shows them)", err=True)


@keys.command()
@click.argument("key_id")
@with_home
@with_json
def revoke(key_id: str, home: Path, as_json: bool) -> None:
    """Revoke a key at once. A running service refuses the next request that presents it."""
    from bailee.accounts.keys import revoke_key
    from bailee.vault.custody import open_custody

    custody = open_custody(home)
    revoke_key(custody.directory, key_id)
    custody.settle()
    custody.close()
    if as_json:
        echo_json({"id": key_id, "revoked": True})
    else:
        click.echo(f"Revoked {key_id}.")
