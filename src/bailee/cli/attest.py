"""`bailee attest`: what an agent really tries to reach, beside what it declares."""

import os
import sys
from pathlib import Path

import click

from bailee.cli.options import echo_json
from bailee.policy.plans import Provider
from bailee.policy.problems import Problem

EXIT_NOT_CONSISTENT = 1


@click.command(
    context_settings={"ignore_unknown_options": True},
    epilog="Exit codes: 0 all is declared, 1 something is not, 2 the call is wrong or there is no boundary.",
)
@click.option("--agent", help="Which manifest declares it; found by the command's name if left out.")
@click.option("--env", "variables", multiple=True, metavar="NAME=VALUE", help="Set for every run.")
@click.option("--matrix", is_flag=True, help="Run it once without a switch, and once with each that it has.")
@click.option("--live", is_flag=True, help="Let it reach the real network; by default it gets a stand-in.")
@click.option(
    "--own-home", is_flag=True, help="Let it have your home; by default it gets a new one each time."
)
@click.option(
    "--provider",
    type=click.Choice([one.value for one in Provider]),
    default="anthropic",
    show_default=True,
    help="Where the model is reached.",
)
@click.option(
    "--markdown", type=click.Path(path_type=Path), metavar="FILE", help="Write the page to this file."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def attest(
    agent: str | None,
    variables: tuple[str, ...],
    matrix: bool,
    live: bool,
    own_home: bool,
    provider: str,
    markdown: Path | None,
    as_json: bool,
    command: tuple[str, ...],
) -> None:
    """Run an agent where all that it tries is seen, and compare that with what it declares.

    It runs in a boundary with a stand-in internet: every name leads there, every host answers, nothing leaves
    the machine. The rehearsal model plays the model. What it says itself goes to standard error.

    \b
    Examples:
      bailee attest -- claude -p "rehearse greet"
      bailee attest --matrix --markdown docs/attestations/claude-code.md -- claude -p "rehearse greet"
    """
    from bailee.accounts.directory import open_directory
    from bailee.accounts.keys import create_key
    from bailee.accounts.tables import KeyOrigin
    from bailee.boundary.means import find_means
    from bailee.cli.accesses import operator
    from bailee.cli.progress import draw_progress
    from bailee.cli.run import find_manifests
    from bailee.service.attesting import (
        BASELINE,
        Attestation,
        Attesting,
        Setting,
        list_settings,
        tell_markdown,
    )
    from bailee.service.launching import running_service
    from bailee.service.scratch import Scratch

    manifest = find_manifests(agent, command[0])[0]
    given = dict(_read_variable(text) for text in variables)
    means = find_means()
    with Scratch() as scratch:
        home = scratch.path / "home"
        with running_service(home, "rehearsal") as (service, run):
            directory = open_directory(home)
            holder = directory.ensure_default()
            key, secret = create_key(
                directory, holder.name, label="attestation", origin=KeyOrigin.RUN, made_by=operator()
            )
            directory.close()
            run.note_key(key.id)
            attesting = Attesting(
                manifest,
                means,
                service_url=service.url,
                key=secret,
                provider=Provider(provider),
                output=sys.stderr.buffer,
                is_live=live,
                own_home=own_home,
            )
            version = attesting.ask_version(command[0])
            settings = [Setting(BASELINE)]
            if matrix:
                settings += list_settings(manifest, own_home=own_home)
            trials = []
            with draw_progress("Attesting") as report:
                for done, setting in enumerate(settings):
                    report(done, len(settings))
                    trials.append(attesting.run(command, setting, {**os.environ, **given}))
    made = Attestation(
        agent=manifest.agent,
        version=version,
        command=[Path(command[0]).name, *command[1:]],
        provider=provider,
        network="live" if live else "stand-in",
        trials=trials,
    )
    page = tell_markdown(made)
    if markdown is not None:
        try:
            markdown.write_text(page, encoding="utf-8")
        except OSError as error:
            raise Problem(
                f"the page cannot be written: {error.strerror}",
                where=f"--markdown {markdown}",
                fix="name a file in a folder that is there",
            ) from None
    if as_json:
        echo_json(made)
    else:
        click.echo(page, nl=False)
    raise SystemExit(0 if made.is_consistent else EXIT_NOT_CONSISTENT)


def _read_variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise Problem("this is no NAME=VALUE", where=f"--env {text}", fix="write --env NAME=VALUE")
    return name, value
