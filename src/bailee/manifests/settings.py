"""The settings files of an agent and the environment, read into layers.

A file that is not there says nothing. A file that is there and cannot be understood is an error and never a
default: nobody can know what it meant to forbid.
"""

import json
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from bailee.manifests.formats import Format, find_key, understand
from bailee.manifests.loading import Launch, Manifest, SettingsFile
from bailee.policy.flows import FlowId
from bailee.policy.layers import OWNER, REPOSITORY, Layer, LayerName
from bailee.policy.periods import LONGEST_DAYS, Period
from bailee.policy.problems import Problem
from bailee.policy.switches import FALSE, SELECTORS
from bailee.sizes import tell_size

CACHE_KEY = "cleanupPeriodDays"
SURVEY_KEY = "feedbackSurveyRate"
TELEMETRY_KEY = "telemetry"
LARGEST = (
    16_000_000  # bytes; settings have a few thousand, the state that Claude Code writes itself up to millions
)


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """One place that settings were read from.

    Attributes:
        settings: what stands there, as it stands; None of the environment.
        decided: what of it the policy looks at.
    """

    layer: LayerName
    origin: str
    settings: dict[str, Any] | None
    decided: Layer


def read_layers(
    manifest: Manifest,
    *,
    environment: Mapping[str, str],
    directory: Path,
    arguments: Sequence[str] = (),
    root: Path = Path("/"),
) -> tuple[Layer, ...]:
    """Read the environment, every settings file of an agent, and the settings on its command line.

    Args:
        manifest: the agent's manifest; it says where the files lie and which names count.
        environment: the environment variables of the process.
        directory: the working folder, where a project's files lie.
        arguments: the agent's own arguments.
        root: what absolute paths are below; `/` but in tests.

    Raises:
        Problem: naming file, key and fix, for the first file that cannot be understood.
    """
    sources = read_sources(
        manifest, environment=environment, directory=directory, arguments=arguments, root=root
    )
    return tuple(source.decided for source in sources)


def read_sources(
    manifest: Manifest,
    *,
    environment: Mapping[str, str],
    directory: Path,
    above: Sequence[Path] = (),
    arguments: Sequence[str] = (),
    root: Path = Path("/"),
) -> tuple[Source, ...]:
    """Read what `read_layers` reads, and keep beside each layer all that stands in its file.

    Args:
        above: further folders where a project's files lie, for an agent that looks there.
    """
    known = {name: value for name, value in environment.items() if name in manifest.variables and value}
    layer = Layer(name=LayerName.ENVIRONMENT, origin="the environment", variables=known)
    sources = [_source(layer, None)] if known else []
    places = [
        (path, file)
        for file in manifest.settings_files
        for place in (directory, *(above if file.layer in REPOSITORY else ()))
        for path in locate(file, environment=environment, directory=place, root=root)
    ]
    # Started in the home folder, the user's own file lies where a project's would.
    owned = {path.absolute() for path, file in places if file.layer in OWNER}
    for path, file in places:
        if file.layer in REPOSITORY and path.absolute() in owned:
            continue
        if (source := read_source(path, file.layer, manifest, environment, form=file.format)) is not None:
            sources.append(source)
    for option, value in _settings_given(arguments, manifest.launch):
        settings = understand(value, option) if value.lstrip().startswith("{") else _parse(directory / value)
        if settings is not None:
            layer = _layer(settings, LayerName.COMMAND_LINE, option, manifest, environment)
            sources.append(_source(layer, settings))
    return tuple(sources)


def read_source(
    path: Path,
    name: LayerName,
    manifest: Manifest,
    environment: Mapping[str, str],
    *,
    data: bytes | None = None,
    form: Format = Format.JSON,
) -> Source | None:
    """Read one settings file; None if it is not there.

    Args:
        data: what would stand in it, to be checked before it is written.
        form: how it is written.

    Raises:
        Problem: when it is there but is not a UTF-8 JSON object, or a key that counts has a value that
            cannot be understood.
    """
    settings = _parse(path, form) if data is None else understand(data.decode(), str(path), form)
    return (
        None
        if settings is None
        else _source(_layer(settings, name, str(path), manifest, environment), settings)
    )


def _source(layer: Layer, settings: dict[str, Any] | None) -> Source:
    return Source(layer=layer.name, origin=layer.origin, settings=settings, decided=layer)


def _settings_given(arguments: Sequence[str], launch: Launch) -> Iterator[tuple[str, str]]:
    for place, argument in enumerate(arguments):
        option, equals, value = argument.partition("=")
        if option in launch.settings_options:
            following = arguments[place + 1] if place + 1 < len(arguments) else ""
            if found := value if equals else following:
                yield option, found


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


def _layer(
    settings: dict[str, Any],
    name: LayerName,
    origin: str,
    manifest: Manifest,
    environment: Mapping[str, str],
) -> Layer:
    off: dict[str, str] = {}
    cache = None
    if CACHE_KEY in settings and CACHE_KEY in manifest.setting_keys:
        cache = _cache_period(settings[CACHE_KEY], f"{origin}: {CACHE_KEY}")
    if SURVEY_KEY in settings and SURVEY_KEY in manifest.setting_keys:
        rate = _survey_rate(settings[SURVEY_KEY], f"{origin}: {SURVEY_KEY}")
        off = {} if rate else {str(FlowId.SURVEY): SURVEY_KEY}
    if TELEMETRY_KEY in settings and TELEMETRY_KEY in manifest.setting_keys:
        off |= _telemetry(settings[TELEMETRY_KEY], manifest, f"{origin}: {TELEMETRY_KEY}")
    for flow in manifest.flows:
        for key, value in flow.settings_off.items():
            found = find_key(settings, key)
            if found == value and type(found) is type(value):
                off.setdefault(str(flow.id), key)
    variables = _variables(settings.get("env", {}), manifest, f"{origin}: env")
    launch = manifest.launch
    leading = [
        variable
        for variable, value in variables.items()
        if launch.is_leading(variable)
        and _meaning(variable, value) != _meaning(variable, environment.get(variable))
    ]
    leading += [key for key in (*launch.leading_keys, *launch.telemetry_keys) if settings.get(key)]
    return Layer(
        name=name,
        origin=origin,
        variables={
            variable: value for variable, value in variables.items() if variable in manifest.variables
        },
        off=off,
        cache=cache,
        leading=tuple(sorted(leading)),
    )


def _meaning(name: str, value: str | None) -> str:
    """Return a value as it is compared: a selector that is false selects as little as one that is unset."""
    return "" if value is None or (name in SELECTORS and value.strip().lower() in FALSE) else value


def _parse(path: Path, form: Format = Format.JSON) -> dict[str, Any] | None:
    try:
        # A pipe without a writer would hold us for ever; opened like this it is there at once, and refused.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            is_regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
            content = file.read(LARGEST + 1) if is_regular else b""
    except FileNotFoundError:
        if (broken := _find_broken_link(path)) is None:
            return None
        # Somebody wrote settings and they are gone: that is not the same as none.
        raise Problem(
            "the settings cannot be read: a link leads nowhere",
            where=str(broken),
            fix="put back what it leads to, or remove it",
        ) from None
    except OSError as fault:
        raise Problem(
            f"the settings file cannot be read: {fault.strerror}",
            where=str(path),
            fix="let this user read it, or remove it",
        ) from fault
    if not is_regular:
        raise Problem("the settings file is no regular file", where=str(path), fix="remove it")
    if len(content) > LARGEST:
        raise Problem(
            f"the settings file is larger than {tell_size(LARGEST)}",
            where=str(path),
            fix="mend it, or remove it",
        )
    try:
        return understand(content.decode("utf-8-sig"), str(path), form)
    except UnicodeDecodeError as fault:
        raise Problem(
            f"the settings file is not UTF-8 text (byte {fault.start})",
            where=str(path),
            fix="save it as UTF-8, or remove it",
        ) from fault


def _find_broken_link(path: Path) -> Path | None:
    return next((one for one in (path, *path.parents) if one.is_symlink() and not one.exists()), None)


def _variables(env: object, manifest: Manifest, where: str) -> dict[str, str]:
    if not isinstance(env, dict):
        raise Problem("env is not an object", where=where, fix='write "env": {"NAME": "value"}')
    variables = {}
    for name, value in env.items():
        if not (name in manifest.variables or manifest.launch.is_leading(name)):
            continue
        if isinstance(value, bool):
            value = "true" if value else "false"  # as text, so `false` switches off like any other value
        elif isinstance(value, int | float):
            value = str(value)
        if not isinstance(value, str):
            raise Problem(f"{name} is not text", where=f"{where}.{name}", fix=f'write "{name}": "1"')
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


def _telemetry(value: object, manifest: Manifest, where: str) -> dict[str, str]:
    """Return the flows that are not sent: `local` counts on the machine only, `off` does not even count."""
    if value not in ("on", "local", "off"):
        raise Problem(f"{json.dumps(value)} is not on, local or off", where=where, fix='write "off"')
    stopped = [flow.id for flow in manifest.flows if TELEMETRY_KEY in flow.settings]
    return {} if value == "on" else dict.fromkeys(map(str, stopped), TELEMETRY_KEY)


def undone(manifest: Manifest, layers: Sequence[Layer]) -> tuple[tuple[Layer, str], ...]:
    """Return the switches that another layer has thrown and a settings file sets back, with its layer.

    The policy does not loosen for it, but the agent reads the file last and sends again.
    """
    switches = {switch.name: switch for flow in manifest.flows for switch in flow.switches}
    found = []
    for layer in layers:
        for name in sorted(switches.keys() & layer.variables.keys()):
            others = [other for other in layers if switches[name].is_thrown(other.variables)]
            if layer.name is not LayerName.ENVIRONMENT and others and layer not in others:
                found.append((layer, name))
    return tuple(found)


def notices(manifest: Manifest, layers: Sequence[Layer]) -> tuple[str, ...]:
    """Return, in words, where settings files would lead the data, and whether the agent lets them.

    Of the owner's own files only what the answer does not follow anyway.
    """
    refusal = "take it out, or start the agent with `bailee run`, which refuses such a file"
    followed = frozenset(SELECTORS) | manifest.destination_variables
    found = []
    for layer in layers:
        is_repository = layer.name in REPOSITORY
        for name in layer.leading:
            place = f"{layer.origin}: {name if is_key(manifest, name) else f'env.{name}'}"
            if is_repository and not manifest.repository_leads:
                found.append(f"{place} is ignored: a repository's file may not choose a destination")
            elif is_repository or name not in followed:
                found.append(f"{place} leads {manifest.title} elsewhere: {refusal}")
    for layer, name in undone(manifest, layers):
        if layer.name not in REPOSITORY or manifest.repository_leads:
            found.append(f"{layer.origin}: env.{name} sets back what is switched off elsewhere: {refusal}")
    return tuple(found)


def is_key(manifest: Manifest, name: str) -> bool:
    """Tell whether what leads is a settings key, not a variable under `env`."""
    return name in (*manifest.launch.leading_keys, *manifest.launch.telemetry_keys)
