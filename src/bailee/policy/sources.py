"""The sentences of the specification that rules rest on, each under the name rules call it by."""

from collections.abc import Mapping

SOURCES: Mapping[str, str] = {
    "training": "We give you the choice to allow your data to be used to improve future Claude "
    "models. We will train new models using data from Free, Pro, and Max accounts "
    "when this setting is on",
    "commercial": "Commercial users: (Team and Enterprise plans, API, 3rd-party platforms, and "
    "Claude Gov) maintain existing policies: Anthropic does not train generative "
    "models using code or prompts sent to Claude Code under commercial terms, unless "
    "the customer has chosen to provide their data to us for model improvement",
    "dpp": "An organization admin can expressly opt-in to the Development Partner Program "
    "for their organization.",
    "dpp_first_party": "Note that this program is available only for Anthropic first-party API, and not "
    "for Bedrock or Vertex users.",
    "feedback": "If you choose to send us feedback about Claude Code using the /bug command, we "
    "may use your feedback to improve our products and services.",
    "survey": "Your responses to this survey do not impact your data training preferences and "
    "cannot be used to train our AI models.",
    "zdr": "Zero data retention: Available with appropriately configured API keys - Claude "
    "Code will not retain chat transcripts on servers",
    "cache": "Claude Code clients may store sessions locally for up to 30 days to enable "
    "session resumption (configurable)",
    "preferences": "Anthropic retains Claude Code data based on your account type and preferences.",
    "provider_default": "By default, we disable all non-essential traffic (including error reporting, "
    "telemetry, and bug reporting functionality) when using Bedrock or Vertex.",
    "nonessential": "You can also opt out of all of these at once by setting the "
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC environment variable.",
    "settings": "All environment variables can be checked into settings.json",
}
