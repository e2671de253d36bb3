"""`bailee up`: start the service."""

from pathlib import Path

import click

from bailee.cli.options import with_home


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port", default=8787, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one."
)
@with_home
@click.option(
    "--tls-certificate", type=click.Path(path_type=Path), help="PEM certificate chain to serve TLS with."
)
@click.option("--tls-key", type=click.Path(path_type=Path), help="PEM key of that certificate.")
@click.option(
    "--upstream",
    default="anthropic",
    show_default=True,
    metavar="KIND[=URL]",
    help="Where the model is reached: anthropic, bedrock, vertex, compatible=URL, rehearsal.",
)
@click.option(
    "--upstream-credential",
    type=click.Choice(["x-api-key", "bearer", "none"]),
    default="x-api-key",
    show_default=True,
    help="How a compatible upstream is given BAILEE_UPSTREAM_KEY.",
)
@click.option("--upstream-ca", type=click.Path(path_type=Path), help="PEM file of CAs to trust as well.")
@click.option("--upstream-certificate", type=click.Path(path_type=Path), help="PEM client certificate.")
@click.option("--upstream-certificate-key", type=click.Path(path_type=Path), help="PEM key of it.")
@click.option(
    "--upstream-zero-data-retention",
    is_flag=True,
    help="Declare that the upstream, by your agreement with it, retains nothing.",
)
@click.option(
    "--otlp-grpc",
    type=click.IntRange(0, 65535),
    is_flag=False,
    flag_value=4317,
    metavar="[PORT]",
    help="Take OpenTelemetry's metrics and logs over gRPC too, on its usual port 4317 if none is named.",
)
@click.option(
    "--forward",
    multiple=True,
    metavar="KIND[=URL]",
    help="Where metrics or errors go on to: otlp=URL, statsig=URL, sentry. May be given for each.",
)
@click.option(
    "--intake-rate",
    type=click.FloatRange(min=0, min_open=True),
    default=100.0,
    show_default=True,
    help="How many requests of metrics a second a key may send, and as many of errors.",
)
@click.option(
    "--while-used", is_flag=True, help="End once no `bailee run` uses it; so `bailee run` starts it."
)
def up(home: Path, upstream: str, upstream_zero_data_retention: bool, **options: object) -> None:
    """Start the service and serve until interrupted.

    The only line on standard output is the URL, once requests are answered; on standard error is a link that
    signs whoever runs this in to the console, once (`bailee console link` makes another). Credentials for the
    upstream come from the environment: BAILEE_UPSTREAM_KEY or ANTHROPIC_API_KEY; AWS_REGION and the AWS
    credential chain; CLOUD_ML_REGION and Google's application default credentials. HTTPS_PROXY and NO_PROXY
    hold. With BAILEE_GITHUB_REPOSITORY it opens the issues that people ask for with their reports.

    With --forward what is held of metrics and errors goes on to a next hop, without whoever sent it. Its
    credentials are BAILEE_FORWARD_OTLP_HEADERS (name=value,...), BAILEE_FORWARD_STATSIG_KEY and
    BAILEE_FORWARD_SENTRY_DSN. BAILEE_DISABLE_FORWARDING=1 stops it; see: bailee forwarding

    \b
    Examples:
      ANTHROPIC_API_KEY=... bailee up
      bailee up --upstream rehearsal --port 0 --otlp-grpc
      bailee up --host 0.0.0.0 --tls-certificate chain.pem --tls-key key.pem
    """
    from bailee.service.configuration import Configuration
    from bailee.service.serving import run

    kind, _, url = upstream.partition("=")
    configuration = Configuration(
        home=home,
        upstream=kind,
        upstream_url=url,
        zero_data_retention=upstream_zero_data_retention,
        **options,  # type: ignore[arg-type]
    )

    def announce(address: str, link: str) -> None:
        click.echo(address)
        click.echo(
            f"Bailee serves {kind} on {address}; state in {configuration.home}. Ctrl-C ends it.", err=True
        )
        if link:
            click.echo(f"The console, once and within ten minutes: {link}", err=True)

    run(configuration, announce, lambda text: click.echo(f"bailee: {text}", err=True))
