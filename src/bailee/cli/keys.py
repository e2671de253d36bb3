"""`bailee keys`: what agents present."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bailee.cli.accesses import operator, this_operator
from bailee.cli.options import echo_json, echo_table, with_home, with_json
from bailee.moments import tell_minute

if TYPE_CHECKING:
    from bailee.accounts.keys import Key

_PROVES = {True: "it proves the account holder", False: "for agents, it proves nobody"}


@click.group()
def keys() -> None:
    """Create, list and revoke the keys agents present."""


@keys.command()
@click.option("--account", required=True, help="Whose key it is.")
@click.option("--label", default="", help="What it is for, in a few words.")
@click.option(
    "--for-holder",
    is_flag=True,
    help="It is handed over to the account holder, and proves who they are. They see who made it.",
)
@with_home
@with_json
def create(account: str, label: str, for_holder: bool, home: Path, as_json: bool) -> None:
    """Create a key. It is shown this once: Bailee keeps only its digest. It is ledgered who made it.

    The key alone is on standard output, so that it can be piped into a secrets store.

    A key that the account holder makes, as the user whose account it is or with such a key in BAILEE_KEY,
    proves the account holder: it opens content and allows training. One that anybody else makes is for
    agents and proves nobody, unless it is made to be handed over: the first one for a person who is no user
    of this machine.
    """
    from bailee.accounts.choices import choose_origin
    from bailee.accounts.keys import create_key
    from bailee.vault.custody import open_custody

    custody = open_custody(home)
    maker = this_operator()
    try:
        origin = choose_origin(custody.directory, account, maker, for_holder=for_holder)
        key, secret = create_key(custody.directory, account, label=label, origin=origin, made_by=maker.name)
    finally:
        custody.settle()
        custody.close()
    if as_json:
        echo_json({**describe_key(key), "key": secret})
        return
    click.echo(secret)
    click.echo(
        f"Key {key.id} of {key.account}: {_PROVES[key.is_proof]}. Shown this once. "
        f"Revoke: bailee keys revoke {key.id}",
        err=True,
    )


@keys.command(name="list")
@click.option("--all", "with_revoked", is_flag=True, help="Revoked and expired keys as well.")
@with_home
@with_json
def list_(with_revoked: bool, home: Path, as_json: bool) -> None:
    """List the keys in force, the newest first."""
    from bailee.accounts.directory import open_directory
    from bailee.accounts.keys import list_keys

    known = list_keys(open_directory(home))
    now_ms = time.time_ns() // 1_000_000
    found = [key for key in known if with_revoked or key.is_in_force(now_ms)]
    if as_json:
        echo_json([describe_key(key) for key in found])
        return
    rows = [
        (
            key.id,
            key.account,
            tell_minute(key.created_ms),
            key.made_by or "?",
            "holder" if key.is_proof else "-",
            _tell_state(key, now_ms),
            key.label,
        )
        for key in found
    ]
    heads = ("ID", "ACCOUNT", "CREATED (UTC)", "BY", "PROVES", "STATE", "LABEL")
    echo_table(heads, rows, empty="No keys in force. Create one: bailee keys create --account NAME")
    if len(found) < len(known):
        click.echo(f"{len(known) - len(found)} revoked or expired, not shown (--all shows them)", err=True)


@keys.command()
@click.argument("key_id")
@with_home
@with_json
def revoke(key_id: str, home: Path, as_json: bool) -> None:
    """Revoke a key at once. A running service refuses the next request that presents it.

    Nothing is asked: whoever finds a key where it should not be has no time, and another is made at once. It
    is ledgered who revoked it.
    """
    from bailee.accounts.keys import list_keys, revoke_key
    from bailee.vault.custody import open_custody

    custody = open_custody(home)
    revoke_key(custody.directory, key_id, by=operator())
    (key,) = [one for one in list_keys(custody.directory) if one.id == key_id]
    custody.settle()
    custody.close()
    if as_json:
        echo_json({"id": key_id, "account": key.account, "label": key.label, "revoked": True})
    else:
        click.echo(f"Revoked {key_id} of {key.account}{f' ({key.label})' if key.label else ''}.")


def _tell_state(key: "Key", now_ms: int) -> str:
    if key.revoked_ms:
        return "revoked"
    if key.expires_ms is None:
        return "in force"
    return f"until {tell_minute(key.expires_ms)}" if key.is_in_force(now_ms) else "expired"


def tell_maker(key: "Key") -> str:
    """Say who made a key and what it proves."""
    who = {
        "holder": "the account holder",
        "handed_over": f"{key.made_by} for the account holder",
        "other": str(key.made_by),
        "run": f"a run of {key.made_by}",
        "login": f"a login that {key.made_by} approved as the account holder",
    }
    made_by = who[key.origin] if key.origin else "an earlier program"
    return f"made by {made_by}, {_PROVES[key.is_proof]}"


def describe_key(key: "Key") -> dict[str, object]:
    """Return a key by its facts."""
    import msgspec

    return {**msgspec.to_builtins(key), "is_proof": key.is_proof, "expires_ms": key.expires_ms}
