"""Sentry's Python SDK as it is, with all that it sends by default: inside `bailee run`."""

import os
from urllib.parse import urlsplit

import sentry_sdk

CANARY = "canary/in/a/path"


def main() -> None:
    """Report an error that has a path in its message, its variables and its tags."""
    place = urlsplit(os.environ["BAILEE_SERVICE"])
    key = os.environ["ANTHROPIC_AUTH_TOKEN"]
    sentry_sdk.init(
        f"http://{key}@{place.hostname}:{place.port}/1",
        release="bailee@1.2.3",
        send_default_pii=True,
        traces_sample_rate=1.0,
        server_name=CANARY,
    )
    sentry_sdk.set_tag("tag", CANARY)
    sentry_sdk.set_user({"email": CANARY})
    with sentry_sdk.start_transaction(name=CANARY):
        try:
            secret = CANARY
            open(secret)  # noqa: SIM115, PTH123
        except OSError as error:
            sentry_sdk.capture_exception(error)
        try:
            import json

            json.loads("{" + CANARY)
        except ValueError as error:
            sentry_sdk.capture_exception(error)
    sentry_sdk.capture_message(CANARY)
    sentry_sdk.flush(10)


if __name__ == "__main__":
    main()
