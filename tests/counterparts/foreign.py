"""Coding agents of other makers, the real ones, each with the words that let it work without a terminal."""

import json
import os
from pathlib import Path

import msgspec

ROOT = Path(__file__).resolve().parents[2]
MODULES = ROOT / "node_modules"
MODEL = "anthropic/claude-sonnet-4-5"
PROMPT = "rehearse greet"
ANSWER = "I am the rehearsal model"

# The built-in provider takes no number of tries: the same one by another name, which does.
_CODEX = """
model_provider = "plain"
[model_providers.plain]
name = "OpenAI"
base_url = "https://api.openai.com/v1"
env_key = "OPENAI_API_KEY"
wire_api = "responses"
request_max_retries = 0
stream_max_retries = 0
"""


class Foreign(msgspec.Struct, frozen=True):
    """A coding agent.

    Attributes:
        program: where set-up puts it.
        words: what lets it work on a prompt and end.
        variables: what it needs to begin at all.
        files: what its home has, by path: fewer tries where nobody answers.
        host: where its model is, for one that cannot be led to the service.
    """

    program: Path
    words: tuple[str, ...]
    variables: dict[str, str] = {}
    files: dict[str, str] = {}
    host: str = ""

    @property
    def command(self) -> list[str]:
        """The command; fails where set-up did not bring the agent."""
        assert self.program.exists(), f"{self.program} is missing: run `make setup`"
        return [str(self.program), *self.words]

    def make_environment(self, home: Path) -> dict[str, str]:
        """Return an environment with a home of its own and nothing else of the caller's."""
        for name, text in self.files.items():
            path = home / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "TERM": "dumb",
            **self.variables,
        }


AGENTS = {
    "aider": Foreign(
        ROOT / ".venv-aider" / "bin" / "aider",
        ("--model", MODEL, "--message", PROMPT, "--yes-always", "--no-git"),
    ),
    "opencode": Foreign(
        MODULES / "opencode-linux-x64-baseline" / "bin" / "opencode", ("run", "-m", MODEL, PROMPT)
    ),
    "codex": Foreign(
        MODULES / ".bin" / "codex",
        ("exec", "--skip-git-repo-check", PROMPT),
        variables={"OPENAI_API_KEY": "none"},
        files={".codex/config.toml": _CODEX},
        host="api.openai.com",
    ),
    "gemini-cli": Foreign(
        MODULES / ".bin" / "gemini",
        ("--skip-trust", "-m", "gemini-2.5-flash", "-p", PROMPT),
        variables={"GEMINI_API_KEY": "none"},
        files={".gemini/settings.json": json.dumps({"general": {"maxAttempts": 1}})},
        host="generativelanguage.googleapis.com",
    ),
}
