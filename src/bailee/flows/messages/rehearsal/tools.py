"""From what a script intends to a tool that the agent offers, whatever the agent calls it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from bailee.flows.messages.rehearsal.scenarios import Edit, Intent, Read, Run, Write

Json = Mapping[str, Any]


class Offer(msgspec.Struct, frozen=True):
    """A shape in which agents offer a tool.

    Attributes:
        names: of the tool, in small letters.
        parameters: for each part of the intent the names the parameter goes by, the likeliest first.
        constants: parameters that are the same in every call.
    """

    names: frozenset[str]
    parameters: Mapping[str, Sequence[str]]
    constants: Mapping[str, str] = {}


_PATH = ("file_path", "path", "filename", "file")
_OLD = ("old_string", "old_str", "old_text", "old")
_NEW = ("new_string", "new_str", "new_text", "new")
_TEXT_EDITOR = frozenset({"str_replace_based_edit_tool", "str_replace_editor"})

_OFFERS: Mapping[type[Intent], tuple[Offer, ...]] = {
    Run: (
        Offer(
            frozenset({"bash", "shell", "run", "run_command", "execute_command"}),
            {"command": ("command", "cmd"), "why": ("description",)},
        ),
    ),
    Read: (
        Offer(frozenset({"read", "read_file", "view"}), {"path": _PATH}),
        Offer(_TEXT_EDITOR, {"path": _PATH[1:]}, {"command": "view"}),
    ),
    Write: (
        Offer(
            frozenset({"write", "write_file", "create_file"}),
            {"path": _PATH, "content": ("content", "contents", "text")},
        ),
        Offer(_TEXT_EDITOR, {"path": _PATH[1:], "content": ("file_text",)}, {"command": "create"}),
    ),
    Edit: (
        Offer(
            frozenset({"edit", "edit_file", "str_replace", "replace_in_file"}),
            {"path": _PATH, "old": _OLD, "new": _NEW},
        ),
        Offer(
            _TEXT_EDITOR,
            {"path": _PATH[1:], "old": ("old_str",), "new": ("new_str",)},
            {"command": "str_replace"},
        ),
    ),
}
_OPTIONAL = frozenset({"why"})


def choose_tool(intent: Intent, tools: Mapping[str, Json]) -> tuple[str, dict[str, Any]] | None:
    """Return the tool to use and its input, or None if no tool offered can do it."""
    for offer in _OFFERS[type(intent)]:
        for name, schema in tools.items():
            if name.lower() in offer.names and (arguments := _fill(intent, offer, schema)) is not None:
                return name, arguments
    return None


def describe(intent: Intent) -> str:
    """Tell in words what would have been done, for an agent that offers no tool for it."""
    match intent:
        case Run(command=command):
            return f"I would run `{command}`, but I was offered no tool for that."
        case Read(path=path):
            return f"I would read {path}, but I was offered no tool for that."
        case Write(path=path):
            return f"I would write {path}, but I was offered no tool for that."
        case Edit(path=path, old=old, new=new):
            return f"I would replace `{old}` with `{new}` in {path}, but I was offered no tool for that."


def _fill(intent: Intent, offer: Offer, schema: Json) -> dict[str, Any] | None:
    # A tool that the API itself defines (its `type` names a version) comes without a schema.
    properties = schema.get("properties")
    known = properties if isinstance(properties, Mapping) else None
    arguments: dict[str, Any] = dict(offer.constants)
    for part, names in offer.parameters.items():
        name = names[0] if known is None else _first(names, known)
        if part in _OPTIONAL and (name is None or known is None):
            continue
        if name is None:
            return None
        arguments[name] = getattr(intent, part)
    return arguments


def _first(names: Sequence[str], known: Iterable[str]) -> str | None:
    return next((name for name in names if name in known), None)


def invent(schema: Json, text: str) -> Any:
    """Return the plainest value that satisfies a JSON schema, with `text` for every free string."""
    if "const" in schema:
        return schema["const"]
    if choices := schema.get("enum"):
        return choices[0]
    for key in ("anyOf", "oneOf", "allOf"):
        if schema.get(key):
            return invent(schema[key][0], text)
    kind = schema.get("type")
    match kind[0] if isinstance(kind, list) and kind else kind:
        case "object":
            properties = schema.get("properties", {})
            wanted = schema.get("required", list(properties))
            return {name: invent(properties.get(name, {}), text) for name in wanted}
        case "array":
            return [invent(schema.get("items", {}), text)] * int(schema.get("minItems", 0))
        case "integer" | "number":
            return schema.get("minimum", 0)
        case "boolean":
            return False
        case "null":
            return None
        case _:
            return text
