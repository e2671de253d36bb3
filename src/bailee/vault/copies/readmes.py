"""What an export says of itself in words: `README.txt`."""

from collections.abc import Mapping

from bailee.vault.copies.exports import KINDS


def tell_readme(name: str, begun_at: str, lines: Mapping[str, int], *, is_holders: bool) -> str:
    """Write what the files of an export are, and what becomes of them.

    Args:
        name: the account's.
        lines: of each kind.
        is_holders: whether the account holder made it.
    """
    kinds = [*KINDS, *(lines.keys() - set(KINDS))]
    counts = "\n".join(f"  {kind + '.jsonl':16} {_MEANING[kind]} ({lines[kind]})" for kind in kinds)
    return f"""What is held about {name}

Exported on {begun_at}. Each file holds one JSON object a line; times are UTC. Of a download from the console
what is long goes on in files with a number: `content-0002.jsonl` after `content.jsonl`.

{counts}

Terms. `purpose` says what it may be used for, `retention` for how long it is held and `expires_on` the day
on which it is destroyed (null: nothing is held, or it has no end), `trainable` whether it may train models.
`decision` is what the policy said when it came, with every rule that had a part. With `legal_hold` it is
kept beyond that day until the hold is released. Where `is_kept` is false the content was never held, or is
destroyed already. `segment` is what the ledger calls the day's part of a session that it is in.

Content is as it crossed the gateway, with compression taken off. What is no text is in base64, under a name
that ends so.

{_HOLDERS if is_holders else _OPERATORS} What is held is erased in the console under *My data*,
or together with the account itself: `bailee accounts erase {name}`.
"""


_HOLDERS = """These files are yours, and no longer under custody: they do not expire, are not encrypted, and
stay as they are when what is held is erased."""
_OPERATORS = """These files are not encrypted. As long as they lie here as they were written, lines of what is
erased or expires are taken out of them (`export.json` says when), and all of them go with the account; the
counts above are those of the day. Bailee knows nothing of copies that somebody makes of them."""


_MEANING = {
    "account": "the account: plan, organization, limits, what is in force",
    "consents": "consents given and ended: when, and by whom",
    "keys": "keys, by their facts; the secrets are not kept",
    "holds": "legal holds, placed and released",
    "accesses": "who else read your content, when and why",
    "sessions": "conversations, by their facts",
    "exchanges": "requests and answers, by their facts, with terms and decision",
    "content": "what was said: requests and answers in full",
    "cloud": "cloud sessions: what was asked, set-up, log. Of their disks only size and digest: take the\n"
    "                   files with `bailee code --from-cloud ID`",
}
