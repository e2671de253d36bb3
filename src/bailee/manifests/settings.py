"""The settings files of an agent and the environment, read into layers.

A file that is not there says nothing. A file that is there and cannot be understood is an error and never a
default: nobody can know what it meant to forbid.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bailee.manifests.loading import Manifest, SettingsFile
from bailee.policy.flows import FlowId
from bailee.policy.layers import OWNER, REPOSITORY, Layer, LayerName
from bailee.policy.periods import LONGEST_DAYS, Period
from bailee.policy.problems import Problem
from bailee.policy.switches import SELECTORS

CACHE_KEY = "cleanupPeriodDays"
SURVEY_KEY = "feedbackSurveyRate"


def read_layers(
    manifest: Manifest,
    *,
    environment: Mapping[str, str],
    directory: Path,
    root: Path = Path("/"),
) -> tuple[Layer, ...]:
    """Read the environment and every settings file of an agent.

    Args:
        manifest: the agent's manifest; it says where the files lie and which names count.
        environment: the environment variables of the process.
        directory: the working folder, where a project's files lie.
        root: what absolute paths are below; `/` but in tests.

    Raises:
        Problem: naming file, key and fix, for the first file that cannot be understood.
    """
    known = {name: value for name, value in environment.items() if name in manifest.variables and value}
    layers = [Layer(name=LayerName.ENVIRONMENT, origin="the environment", variables=known)] if known else []
    places = [
        (path, file.layer)
        for file in manifest.settings_files
        for path in locate(file, environment=environment, directory=directory, root=root)
    ]
    # Started in the home folder, the user's own file lies where a project's would.
    owned = {path.absolute() for path, name in places if name in OWNER}
    for path, name in places:
        if name in REPOSITORY and path.absolute() in owned:
            continue
        layer = read_layer(path, name, manifest)
        if layer is not None:
            layers.append(layer)
    return tuple(layers)


def locate(
    file: SettingsFile, *, environment: Mapping[str, str], directory: Path, root: Path = Path("/")
) -> Sequence[Path]:
    """Return the path or, for a pattern, the paths there are, in the order in which they are read."""
    name = file.path
    if file.folder and (moved := environment.get(file.folder_variable)):
        name = moved + name.removeprefix(file.folder)
    if name.startswith("~/"):
        name = str(_home(environment)) + name[1:]
    path = Path(name)
    if path.is_absolute():
        path = root / path.relative_to("/") if file.layer is LayerName.MANAGED else path
    else:
        path = directory / path
    if "*" not in path.name:
        return [path]
    try:
        return sorted(found for found in path.parent.iterdir() if found.match(path.name))
    except FileNotFoundError:
        return []
    except OSError as fault:
        raise Problem(
            f"the settings folder cannot be read: {fault.strerror}",
            where=str(path.parent),
            fix="let this user read it, or remove it",
        ) from fault


def _home(environment: Mapping[str, str]) -> Path:
    return Path(environment["HOME"]) if environment.get("HOME") else Path.home()


def read_layer(path: Path, name: LayerName, manifest: Manifest) -> Layer | None:
    """Read one settings file; None if it is not there.

    Raises:
        Problem: when it is there but is not a UTF-8 JSON object, or a key that counts has a value that
            cannot be understood.
    """
    settings = _parse(path)
    if settings is None:
        return None
    off: dict[str, str] = {}
    cache = None
    if CACHE_KEY in settings and CACHE_KEY in manifest.setting_keys:
        cache = _cache_period(settings[CACHE_KEY], f"{path}: {CACHE_KEY}")
    if SURVEY_KEY in settings and SURVEY_KEY in manifest.setting_keys:
        rate = _survey_rate(settings[SURVEY_KEY], f"{path}: {SURVEY_KEY}")
        off = {} if rate else {str(FlowId.SURVEY): SURVEY_KEY}
    return Layer(
        name=name,
        origin=str(path),
        variables=_variables(settings.get("env", {}), manifest, f"{path}: env"),
        off=off,
        cache=cache,
    )


def _parse(path: Path) -> dict[str, Any] | None:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as fault:
        raise Problem(
            f"the settings file cannot be read: {fault.strerror}",
            where=str(path),
            fix="let this user read it, or remove it",
        ) from fault
    except UnicodeDecodeError as fault:
        raise Problem(
            f"the settings file is not UTF-8 text (byte {fault.start})",
            where=str(path),
            fix="save it as UTF-8, or remove it",
        ) from fault
    try:
        settings = json.loads(text, object_pairs_hook=_once)
    except _RepeatedKeyError as fault:
        raise Problem(f"the key {fault} stands twice", where=f"{path}: {fault}", fix="keep one") from None
    except json.JSONDecodeError as fault:
        raise Problem(
            f"the settings file is not JSON: {fault.msg}",
            where=f"{path}: line {fault.lineno}, column {fault.colno}",
            fix="mend it, or remove it",
        ) from None
    except (ValueError, RecursionError) as fault:  # a number of thousands of digits; brackets without end
        raise Problem(
            f"the settings file cannot be understood: {fault}", where=str(path), fix="mend it, or remove it"
        ) from None
    if not isinstance(settings, dict):
        raise Problem(
            "the settings file is not a JSON object", where=f"{path}: top level", fix='write {"env": {...}}'
        )
    return settings


class _RepeatedKeyError(Exception):
    pass


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _RepeatedKeyError(json.dumps(key))
        found[key] = value
    return found


def _variables(env: object, manifest: Manifest, where: str) -> dict[str, str]:
    if not isinstance(env, dict):
        raise Problem("env is not an object", where=where, fix='write "env": {"NAME": "value"}')
    variables = {}
    for name in manifest.variables & env.keys():
        value = env[name]
        if isinstance(value, bool):
            value = "true" if value else "false"  # as text, so `false` switches off like any other value
        elif isinstance(value, int | float):
            value = str(value)
        if not isinstance(value, str):
            raise Problem(f"{name} is not text", where=f"{where}.{name}", fix=f'write "{name}": "1"')
        if value:
            variables[name] = value
    return variables


def _cache_period(value: object, where: str) -> Period:
    if value in ("unlimited", "none"):
        return Period.parse(str(value))
    if type(value) is int and 1 <= value <= LONGEST_DAYS:
        return Period.days(value)
    raise Problem(
        f"{json.dumps(value)} is not a number of days from 1 to {LONGEST_DAYS}, and not one of the words",
        where=where,
        fix='give a number of days of at least 1, "none" to keep nothing, or "unlimited" to delete nothing',
    )


def _survey_rate(value: object, where: str) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1:
        return value
    raise Problem(f"{json.dumps(value)} is not a rate", where=where, fix="give a number from 0 to 1")


def notices(manifest: Manifest, layers: Sequence[Layer]) -> tuple[str, ...]:
    """Return, in words, where a repository's files would lead the data, and whether the agent lets them."""
    found = []
    for layer in layers:
        if layer.name not in REPOSITORY:
            continue
        for name in sorted(layer.variables):
            if name in SELECTORS or name in manifest.destination_variables:
                outcome = (
                    f"leads {manifest.title} elsewhere: take it out, or start the agent with `bailee run`, "
                    "which refuses such a file"
                    if manifest.repository_leads
                    else "is ignored: a repository's file may not choose a destination"
                )
                found.append(f"{layer.origin}: env.{name} {outcome}")
    return tuple(found)
