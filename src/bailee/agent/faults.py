"""What goes wrong between the agent and the model, told so that a person can mend it."""

import contextlib
from collections.abc import Iterator

from bailee.policy.problems import Problem

_FIXES = {
    401: "the key is not known there: check ANTHROPIC_API_KEY or ANTHROPIC_AUTH_TOKEN, or: bailee login",
    403: "the account may not do this: the message tells why",
    404: "is it the right model, and the right address?",
    413: "the conversation is too long: /compact",
    429: "wait, then say `go on`",
    529: "the model is overloaded: wait, then say `go on`",
}


@contextlib.contextmanager
def told_as_problem() -> Iterator[None]:
    """Turn the SDK's errors into Problems. What was said so far stays in the conversation."""
    import anthropic

    try:
        yield
    except anthropic.APIStatusError as fault:
        body = fault.body
        error = body.get("error") if isinstance(body, dict) else None
        message = error.get("message") if isinstance(error, dict) else None
        raise Problem(
            f"the model's API answered {fault.status_code}: {message or fault.message}",
            where=str(fault.request.url.host),
            fix=_FIXES.get(fault.status_code, "say `go on` to try again"),
        ) from None
    except anthropic.APIConnectionError as fault:
        cause = fault.__cause__ or fault
        raise Problem(
            f"the model cannot be reached: {cause}",
            where=str(fault.request.url.host),
            fix="check the network, HTTPS_PROXY and certificates, then say `go on`",
        ) from None
    except anthropic.AnthropicError as fault:
        raise Problem(f"the model's answer cannot be understood: {fault}", fix="say `go on`") from None
    except Exception as fault:
        # Known by name: neither library is loaded where another provider is used.
        if type(fault).__module__.partition(".")[0] not in ("botocore", "google"):
            raise
        raise Problem(
            f"the model's credentials cannot be used: {fault}",
            where=type(fault).__module__.partition(".")[0],
            fix="check AWS's or Google's own configuration; docs/agent.md tells what each provider takes",
        ) from None
