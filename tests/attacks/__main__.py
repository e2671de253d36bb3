"""Runs every attack and writes the table: `PYTHONPATH=tests python -m attacks docs/attacks.md`.

The boundary is a parameter: Bailee's, and Anthropic's sandbox-runtime beside it, with the same hosts allowed
and the same stand-in internet. What it has no rule for (methods, headers, secrets) it cannot be asked for.
"""

import sys
import tempfile
from pathlib import Path

from attacks.holding import SANDBOX_RUNTIME
from attacks.probes.tools import ATTACKS
from attacks.promises import tell
from attacks.test_attacks import USERS, Network

# What needs a rule that sandbox-runtime does not have, or is another's promise: not counted for it.
OURS = ("requests.", "secrets.", "lifetime.without_a_log", "kernel.keys", "tunnels.too_much", "addresses.own")

WRITES = """\
What a session tries to write to Git (other refs, REST, GraphQL, large files, submodules, redirects,
disguised pushes) is attacked where it is decided: `test_write_attacks.py` and `test_disguised_pushes.py` of
`src/bailee/flows/git/tests`. Each is refused with nothing done at the host, and done by the host when it is
asked straight (control).
"""


def run_all(network: Network) -> dict[str, dict[tuple[str, str], str]]:
    """Run every attack on both boundaries by both users, and return what came of it."""
    results: dict[str, dict[tuple[str, str], str]] = {}
    for probe, attack in ATTACKS.items():
        results[probe] = {}
        for user in USERS:
            for boundary in ("", SANDBOX_RUNTIME):
                if (user == "user" and attack.needs_root) or (boundary and probe.startswith(OURS)):
                    results[probe][boundary, user] = "-"
                    continue
                result, canary = network.run(probe, user, off=boundary, patience=max(attack.patience, 0.1))
                breaches = result.breaches(attack, canary)
                results[probe][boundary, user] = "**got out**" if breaches else "held"
                if "fault" in result.told:
                    results[probe][boundary, user] = "did not run"
        sys.stderr.write(f"{probe}: {results[probe]}\n")
    return results


def write_table(results: dict[str, dict[tuple[str, str], str]], version: str) -> str:
    """Return the page."""
    lines = [
        "# Attacks on the boundary",
        "",
        f"{len(results)} attacks, each by an ordinary user and by root, each with a control in which it",
        "succeeds (`tests/attacks`, part of `make test`). Beside Bailee the same attacks on Anthropic's",
        f"sandbox-runtime {version} with the same hosts allowed, one run each; `-` where it has no such rule",
        "to ask for, or where only root could try. It is made for less: it lets a command reach hosts, and",
        "looks into what is said there only if told to. Both let through what is allowed.",
        "",
        "Made by `PYTHONPATH=tests .venv/bin/python -m attacks docs/attacks.md`.",
        "",
        "| attack | what it attacks | Bailee, user | root | sandbox-runtime, user | root |",
        "|---|---|---|---|---|---|",
    ]
    for probe, result in results.items():
        promise = tell(probe)
        columns = [result[boundary, user] for boundary in ("", SANDBOX_RUNTIME) for user in USERS]
        lines.append(f"| {probe.replace('_', ' ')} | {promise} | {' | '.join(columns)} |")
    sums = []
    for boundary, name in (("", "Bailee"), (SANDBOX_RUNTIME, "sandbox-runtime")):
        ran = [one for result in results.values() for (which, _), one in result.items() if which == boundary]
        held, out = ran.count("held"), ran.count("**got out**")
        sums.append(f"{name}: {held} held, {out} got out")
    return "\n".join([*lines, "", "; ".join(sums) + ".", "", WRITES])


def main() -> None:
    """Write the table to the file that is named."""
    import json

    package = Path(__file__).parents[2] / "node_modules/@anthropic-ai/sandbox-runtime/package.json"
    version = json.loads(package.read_text())["version"]
    with tempfile.TemporaryDirectory() as folder:
        network = Network(Path(folder))
        results = run_all(network)
        network.end()
    Path(sys.argv[1]).write_text(write_table(results, version))


if __name__ == "__main__":
    main()
