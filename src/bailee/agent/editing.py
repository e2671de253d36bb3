"""Changing a settings file: one key at a time, checked before it is written, the rest left as it is."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bailee.agent.settings import AGENT, understand
from bailee.files import replace_file
from bailee.manifests import load_manifest
from bailee.manifests.settings import locate, read_source
from bailee.policy.layers import REPOSITORY, LayerName
from bailee.policy.problems import Problem


def locate_file(layer: LayerName, *, directory: Path, environment: Mapping[str, str]) -> Path:
    """Return where the file of a layer lies."""
    file = next(file for file in load_manifest(AGENT).settings_files if file.layer is layer)
    return locate(file, environment=environment, directory=directory)[0]


def write_setting(
    layer: LayerName, key: str, value: str | None, *, directory: Path, environment: Mapping[str, str]
) -> Path:
    """Write one setting, or take it out, and return the file.

    Args:
        key: with dots where it leads into an object: `permissions.mode`, `env.DISABLE_TELEMETRY`.
        value: JSON, or else text; None takes it out.

    Raises:
        Problem: the file cannot be understood, or could not be with this value in it: nothing is written.
    """
    path = locate_file(layer, directory=directory, environment=environment)
    manifest = load_manifest(AGENT)
    source = read_source(path, layer, manifest, environment)
    settings: dict[str, Any] = dict(source.settings or {}) if source else {}
    changed = _changed(settings, key.split("."), _value(key, value), where=f"{path}: {key}")
    data = (json.dumps(changed, indent=2, ensure_ascii=False) + "\n").encode()
    checked = read_source(path, layer, manifest, environment, data=data)
    assert checked is not None
    understand(checked)
    try:
        path.parent.mkdir(mode=0o700 if layer is LayerName.USER else 0o755, parents=True, exist_ok=True)
        target = path.resolve()
        if layer in REPOSITORY and not target.is_relative_to(directory.resolve()):
            raise Problem(
                "the project's settings lead out of the project",
                where=str(path),
                fix="take the link away, or change what it leads to yourself",
            )
        mode = target.stat().st_mode & 0o777 if target.exists() else 0o600
        replace_file(target, data)
        target.chmod(mode)
    except OSError as fault:
        raise Problem(
            f"the settings cannot be written: {fault.strerror}", where=str(path), fix="let this user write it"
        ) from None
    return path


def _value(key: str, value: str | None) -> Any:
    if value is None:
        return None
    try:
        read = json.loads(value)
    except ValueError:
        return value
    # What a variable holds is text, whatever it looks like.
    return value if key.startswith("env.") or read is None else read


def _changed(settings: dict[str, Any], path: list[str], value: Any, *, where: str) -> dict[str, Any]:
    name, rest = path[0], path[1:]
    if name == "env" and len(rest) > 1:
        rest = [".".join(rest)]
    changed = dict(settings)
    if not rest:
        changed.pop(name, None)
        return changed if value is None else changed | {name: value}
    inner = changed.get(name, {})
    if not isinstance(inner, dict):
        raise Problem(f"{name} is no object", where=where, fix="mend the file first")
    if below := _changed(inner, rest, value, where=where):
        return changed | {name: below}
    changed.pop(name, None)
    return changed
