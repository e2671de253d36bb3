"""`bailee rehearse`: the rehearsal model on its own."""

from pathlib import Path

import click


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port", default=0, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free port."
)
@click.option(
    "--record",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write each request received into DIR, in clear.",
)
def rehearse(host: str, port: int, record: Path | None) -> None:
    """Serve a deterministic model that plays scripts, for tests and demos. Nothing leaves the machine.

    The only line on standard output is the URL. Stop it with Ctrl-C.

    \b
    Examples:
      bailee rehearse --port 9000
      ANTHROPIC_BASE_URL=http://127.0.0.1:9000 ANTHROPIC_API_KEY=none claude -p "rehearse greet"
    """
    from bailee.flows.messages.rehearsal.serving import open_listener, serve

    listener = open_listener(host, port)
    address, taken = listener.getsockname()[:2]
    shown = f"[{address}]" if ":" in address else address
    click.echo(f"http://{shown}:{taken}")
    serve(listener, record=record)
