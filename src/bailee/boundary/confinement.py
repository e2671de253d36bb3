"""The file system of a confined command: the project to write to, all else to read, secrets not at all.

bubblewrap does it, in a namespace of its own inside the boundary.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from bailee.boundary.means import Means, tell_step

# Where programs keep what opens other places, under a home.
SECRET_FOLDERS = (
    ".ssh",
    ".gnupg",
    ".aws",
    ".azure",
    ".kube",
    ".docker",
    ".config/gcloud",
    ".config/gh",
    ".config/op",
    ".password-store",
    ".local/share/keyrings",
    ".mozilla",
    ".config/google-chrome",
    ".config/chromium",
)
SECRET_FILES = (".netrc", ".git-credentials", ".npmrc", ".pypirc", ".vault-token", ".config/hub")
# What is run outside the boundary later, by git, for somebody who means no harm.
EXECUTED = (".git/hooks", ".git/config", ".husky")
# Written by what a command starts, and of use to nobody afterwards.
SCRATCH = (".cache",)
TEMPORARY = ("/tmp", "/var/tmp", "/run")  # noqa: S108 - they are made empty


def write_confinement(
    means: Means,
    command: Sequence[str],
    project: Path,
    *,
    readable: Iterable[str] = (),
    writable: Iterable[str] = (),
    environment: Mapping[str, str] = os.environ,
) -> list[str]:
    """Return the command that runs a command confined.

    Args:
        readable: folders below the temporary one that stay.
        writable: files and folders of the agent's own state, `~` for the home.

    Raises:
        Problem: bubblewrap is missing.
    """
    if not means.bwrap:
        raise tell_step("bubblewrap", "bwrap is not installed")
    home = Path(environment.get("HOME") or "/")
    words = [means.bwrap, "--unshare-user", "--cap-drop", "ALL"]
    words += ["--ro-bind", "/", "/", "--dev", "/dev"]
    for name in TEMPORARY:
        if Path(name).is_dir():
            words += ["--tmpfs", name]
    resolved = Path("/etc/resolv.conf").resolve()
    if resolved.is_file() and resolved.is_relative_to("/run"):
        words += ["--ro-bind", str(resolved), str(resolved)]
    for place in SCRATCH:
        if (home / place).is_dir():
            words += ["--tmpfs", str(home / place)]
    for name in writable:
        path = Path(name.replace("~", str(home), 1) if name.startswith("~") else name)
        if path.exists():
            words += ["--bind", str(path), str(path)]
    for place in readable:
        words += ["--ro-bind", place, place]
    words += ["--bind", str(project), str(project)]
    for name in EXECUTED:
        if (project / name).exists():
            words += ["--ro-bind", str(project / name), str(project / name)]
    for name in SECRET_FOLDERS:
        if (home / name).is_dir():
            words += ["--tmpfs", str(home / name)]
    for name in SECRET_FILES:
        if (home / name).is_file():
            words += ["--ro-bind", "/dev/null", str(home / name)]
    return [*words, "--chdir", str(project), "--", *command]
