"""A coding agent of one page, on the official `anthropic` SDK: the demo's stand-in for a real one.

It runs what the model asks for, in the present folder, without asking anybody: for demonstrations only.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

from anthropic import Anthropic

MODEL = "claude-rehearsal-1"
TURNS = 20
OUTPUT_CHARACTERS = 20_000


def tool(name: str, description: str, **properties: str) -> dict[str, Any]:
    """Describe a tool whose parameters are all strings."""
    schema = {
        "type": "object",
        "properties": {key: {"type": "string", "description": text} for key, text in properties.items()},
        "required": list(properties),
    }
    return {"name": name, "description": description, "input_schema": schema}


TOOLS = [
    tool("bash", "Run a shell command.", command="The command line."),
    tool("read_file", "Read a file.", path="Where it is."),
    tool("write_file", "Write a file.", path="Where it goes.", content="The whole text."),
    tool(
        "edit_file",
        "Replace text in a file.",
        path="Where it is.",
        old_text="Once in it.",
        new_text="Instead.",
    ),
]


def use(name: str, arguments: dict[str, str]) -> tuple[str, bool]:
    """Use a tool; return its output and whether it failed."""
    try:
        match name:
            case "bash":
                done = subprocess.run(
                    ["/bin/sh", "-c", arguments["command"]],
                    capture_output=True,
                    text=True,
                    timeout=120,
                    check=False,
                )
                return (done.stdout + done.stderr)[:OUTPUT_CHARACTERS] or "(no output)", done.returncode != 0
            case "read_file":
                return Path(arguments["path"]).read_text()[:OUTPUT_CHARACTERS], False
            case "write_file":
                Path(arguments["path"]).write_text(arguments["content"])
                return "written", False
            case "edit_file":
                path = Path(arguments["path"])
                text = path.read_text()
                if text.count(arguments["old_text"]) != 1:
                    return "the text to replace is not there exactly once", True
                path.write_text(text.replace(arguments["old_text"], arguments["new_text"]))
                return "edited", False
    except (OSError, KeyError, subprocess.TimeoutExpired) as error:
        return f"{type(error).__name__}: {error}", True
    return f"there is no tool {name}", True


def main() -> int:
    """Talk to the model until it has nothing more to do."""
    client = Anthropic()
    messages: list[Any] = [{"role": "user", "content": sys.argv[1]}]
    for _ in range(TURNS):
        with client.messages.stream(
            model=MODEL,
            max_tokens=4096,
            system=f"You are a coding agent. Working directory: {Path.cwd()}",
            tools=TOOLS,  # type: ignore[arg-type]
            messages=messages,
        ) as stream:
            answer = stream.get_final_message()
        messages.append({"role": "assistant", "content": answer.content})
        results = []
        for block in answer.content:
            if block.type == "text":
                print(block.text)
            elif block.type == "tool_use":
                output, failed = use(block.name, dict(block.input))  # type: ignore[call-overload]
                results.append(
                    {"type": "tool_result", "tool_use_id": block.id, "content": output, "is_error": failed}
                )
        if not results:
            return 0
        messages.append({"role": "user", "content": results})
    return 1


if __name__ == "__main__":
    sys.exit(main())
