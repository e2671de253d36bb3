"""The `bailee` command. One module per command; a command's module is imported only when it runs."""

import json
import os
import sys
from importlib import import_module
from typing import Any

import click

from bailee import __version__
from bailee.policy.problems import Problem

# name -> (module:attribute, one line of help). The help stands here so that `bailee --help`
# imports no command: all of them together cost 400 ms, click alone 30 ms.
COMMANDS: dict[str, tuple[str, str]] = {
    "accounts": ("bailee.cli.accounts:accounts", "Add and list the accounts whose data is held."),
    "attest": ("bailee.cli.attest:attest", "What an agent really tries to reach, beside what it declares."),
    "backup": ("bailee.cli.backup:backup", "Back a home up, and restore it without what was erased since."),
    "cloud": (
        "bailee.cli.cloud:cloud",
        "Let agents work in machines of their own, on a branch of a repository.",
    ),
    "code": ("bailee.cli.code:code", "Work on a project with a coding agent that keeps these promises."),
    "config": ("bailee.cli.config:config", "The agent's settings, and where each comes from."),
    "console": (
        "bailee.cli.console:console",
        "Who signs in to the console: links, passwords, passkeys, operators.",
    ),
    "copies": ("bailee.cli.copies:copies", "Exports and datasets, and what is still to go from them."),
    "dataset": ("bailee.cli.dataset:dataset", "Write out what may train models, and check it again later."),
    "doctor": ("bailee.cli.doctor:doctor", "Say what is wrong with a home, and what to do about it."),
    "errors": ("bailee.cli.errors:errors", "What agents reported of their own faults, grouped."),
    "explain": ("bailee.cli.explain:explain", "Say what leaves this machine, why, and how to stop it."),
    "feedback": ("bailee.cli.feedback:feedback", "Reports sent with /bug: read, triage, take back."),
    "forwarding": ("bailee.cli.forwarding:forwarding", "Where metrics and errors go on to, and how far."),
    "holds": ("bailee.cli.holds:holds", "Keep what the law wants kept, until it is released."),
    "keys": ("bailee.cli.keys:keys", "Create, list and revoke the keys agents present."),
    "ledger": ("bailee.cli.ledger:ledger", "Show and verify the log of what was decided and erased."),
    "login": ("bailee.cli.login:login", "Let the agent of this machine in to an account of a service."),
    "logins": ("bailee.cli.logins:logins", "Approve, deny and list the logins of agents."),
    "logout": ("bailee.cli.login:logout", "End the login of this machine's agent."),
    "manifests": ("bailee.cli.manifests:manifests", "Draw the data-usage pages from the agents' manifests."),
    "metrics": ("bailee.cli.metrics:metrics", "Latency, reliability and usage, as far as they are held."),
    "org": ("bailee.cli.org:org", "An organization's members, zero data retention, partner program."),
    "privacy": ("bailee.cli.privacy:privacy", "An account holder's own consent to training."),
    "rehearse": (
        "bailee.cli.rehearse:rehearse",
        "Serve the rehearsal model on its own, for tests and demos.",
    ),
    "retention": ("bailee.cli.retention:retention", "Destroy what has expired, and see that it is done."),
    "run": ("bailee.cli.run:run", "Run a coding agent through Bailee and print its receipt."),
    "secrets": ("bailee.cli.secrets:secrets", "Keep credentials for sessions, which never see them."),
    "sessions": ("bailee.cli.sessions:sessions", "List and read the sessions held."),
    "telemetry": ("bailee.cli.telemetry:telemetry", "What the agent counts, what is sent, and the switch."),
    "update": ("bailee.cli.update:update", "Ask the package index whether there is a newer version."),
    "survey": ("bailee.cli.survey:survey", "How sessions were rated, by day and version."),
    "up": ("bailee.cli.up:up", "Start the service."),
}

EXIT_FAILURE = 1
EXIT_USAGE = 2  # click's own code for a wrong call; bad input from files and settings uses it too


class LazyGroup(click.Group):
    """A click group that imports a command's module when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in self.list_commands(ctx)])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="bailee", message="%(prog)s %(version)s")
def group() -> None:
    """Custody for the data of coding agents.

    \b
    Examples:
      bailee run -- claude -p "fix the failing test" --allowedTools Bash,Edit,Write
      bailee explain --as plan=pro --as training=on
      bailee sessions list

    Exit codes: 0 done, 1 the answer is no or the work failed, 2 the call or a setting is wrong;
    `bailee run` ends with the exit code of the command it ran.
    """


def main() -> Any:
    """Run the command line; a Problem becomes one readable line (or JSON with --json) and exit code 2.

    So does what the system refuses: a folder that is a file, a disk that is full.
    """
    try:
        return group()
    except Problem as problem:
        report(problem)
        sys.exit(EXIT_USAGE)
    except BrokenPipeError:
        # Who read our output has gone, as `head` does: no fault, and nobody to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_FAILURE)
    except OSError as error:
        report(Problem(error.strerror or str(error), where=str(error.filename or "")))
        sys.exit(EXIT_FAILURE)
    except Exception as error:
        # Known by name: importing SQLAlchemy to know it would cost every command 100 ms. What the database
        # says follows; the statement and its parameters stay out: they would name sessions.
        if not type(error).__module__.startswith("sqlalchemy."):
            raise
        text = " ".join(str(getattr(error, "orig", None) or type(error).__name__).split())
        report(Problem(f"the database failed: {text}", fix="check that it runs, and try again"))
        sys.exit(EXIT_FAILURE)


def report(problem: Problem) -> None:
    """Write a problem to standard error: one line, or a JSON object when `--json` was asked for."""
    arguments = sys.argv[1 : sys.argv.index("--")] if "--" in sys.argv else sys.argv[1:]
    if "--json" in arguments:
        fault = {"what": problem.what, "where": problem.where, "fix": problem.fix}
        click.echo(json.dumps({"error": fault}), err=True)
        return
    place = f"\n  where: {problem.where}" if problem.where else ""
    remedy = f"\n  fix:   {problem.fix}" if problem.fix else ""
    click.echo(f"bailee: {problem.what}{place}{remedy}", err=True)
