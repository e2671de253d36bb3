"""The formats of settings files: text to an object, or a problem that names the place."""

import json
import tomllib
from enum import StrEnum
from typing import Any

from bailee.policy.problems import Problem


class Format(StrEnum):
    """How a settings file is written."""

    JSON = "json"
    JSONC = "jsonc"  # JSON with comments and trailing commas
    TOML = "toml"
    YAML = "yaml"
    DOTENV = "dotenv"


def understand(text: str, where: str, form: Format = Format.JSON) -> dict[str, Any]:
    """Return what a settings file says.

    Args:
        where: what a problem names.

    Raises:
        Problem: it is not of that format, says a key twice, or is no object.
    """
    try:
        match form:
            case Format.JSON:
                settings: object = json.loads(text, object_pairs_hook=_once)
            case Format.JSONC:
                settings = _read_jsonc(text)
            case Format.TOML:
                settings = tomllib.loads(text)
            case Format.YAML:
                settings = _read_yaml(text)
            case Format.DOTENV:
                settings = {"env": _read_dotenv(text)}
    except _RepeatedKeyError as fault:
        raise Problem(f"the key {fault} stands twice", where=f"{where}: {fault}", fix="keep one") from None
    except json.JSONDecodeError as fault:
        raise Problem(
            f"the settings are not JSON: {fault.msg}",
            where=f"{where}: line {fault.lineno}, column {fault.colno}",
            fix="mend them, or remove them",
        ) from None
    except (ValueError, RecursionError) as fault:  # a number of thousands of digits; brackets without end
        raise Problem(
            f"the settings cannot be understood: {fault}", where=where, fix="mend them, or remove them"
        ) from None
    if settings is None and form is Format.YAML:
        return {}  # comments alone
    if not isinstance(settings, dict):
        raise Problem(
            f"the settings are not a {form.upper()} object",
            where=f"{where}: top level",
            fix='write {"env": {...}}' if form is Format.JSON else "write keys with their values",
        )
    return settings


def find_key(settings: object, key: str) -> object:
    """Return the value at a key with dots between its parts; None where there is none."""
    for part in key.split("."):
        if not isinstance(settings, dict):
            return None
        settings = settings.get(part)
    return settings


def write_key(key: str, value: bool | str, form: Format) -> str:
    """Return a settings file that says one key."""
    if form is Format.TOML:
        return f"{key} = {json.dumps(value)}\n"
    if form is Format.YAML:
        return f"{key}: {json.dumps(value)}\n"
    if form is Format.DOTENV:
        return f"{key}={value}\n"
    whole: object = value
    for part in reversed(key.split(".")):
        whole = {part: whole}
    return json.dumps(whole) + "\n"


class _RepeatedKeyError(Exception):
    pass


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _RepeatedKeyError(json.dumps(key))
        found[key] = value
    return found


def _read_jsonc(text: str) -> object:
    try:
        return json.loads(
            text, object_pairs_hook=_once
        )  # most have no comment, and this is 500 times as fast
    except json.JSONDecodeError:
        import json5

        return json5.loads(text, allow_duplicate_keys=False)


def _read_yaml(text: str) -> object:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as fault:
        raise ValueError(" ".join(str(fault).split())) from None


def _read_dotenv(text: str) -> dict[str, str]:
    from io import StringIO

    from dotenv import dotenv_values

    return {
        name: value or "" for name, value in dotenv_values(stream=StringIO(text), interpolate=False).items()
    }
