"""`bailee doctor`: what is wrong with a home, and what to do about it."""

from pathlib import Path

import click

from bailee.cli.options import echo_json, with_home, with_json


@click.command(epilog="Exit codes: 0 all is well, 1 somebody has to do something.")
@with_home
@with_json
def doctor(home: Path, as_json: bool) -> None:
    """Look a home over: databases, keys, ledger, retention, holds."""
    from bailee.service.diagnosis import examine

    findings = examine(home)
    if as_json:
        echo_json(findings)
    else:
        for finding in findings:
            click.echo(f"{'ok   ' if finding.is_well else 'ALARM'}  {finding.check}: {finding.told}")
            if finding.fix:
                click.echo(f"       {finding.fix}")
    if not all(finding.is_well for finding in findings):
        raise SystemExit(1)
