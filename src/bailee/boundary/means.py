"""What this system has to make a boundary with, and what to do where it has too little."""

import os
import shutil
import sys
from pathlib import Path

import msgspec

from bailee.boundary.filters import write_filter
from bailee.policy.problems import Problem

PROGRAMS = "/usr/sbin:/sbin:/usr/bin:/bin"
SYSTEM: str = sys.platform
UNENFORCED = "or run it with --unenforced: the proxy then sees only what goes to it by choice"
# Which switches of the kernel keep ordinary users from making namespaces, the forbidding value, the mending.
_SWITCHES = (
    ("/proc/sys/kernel/unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone=1"),
    (
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "sysctl kernel.apparmor_restrict_unprivileged_userns=0",
    ),
    ("/proc/sys/user/max_user_namespaces", "0", "sysctl user.max_user_namespaces=15000"),
)


class Means(msgspec.Struct, frozen=True):
    """What a boundary is made with.

    Attributes:
        nft, ip, bwrap: paths of programs; bwrap is empty where it is missing, as not every boundary needs it.
        filter: the filter of system calls for this machine.
    """

    nft: str
    ip: str
    bwrap: str
    filter: bytes


def find_means() -> Means:
    """Return what there is.

    Raises:
        Problem: no boundary can be made here; it names what is missing and how to get it.
    """
    if not SYSTEM.startswith("linux"):
        raise Problem(
            "a boundary is made with Linux namespaces, which this system does not have",
            where="bailee run",
            fix=f"run it in a Linux machine, {UNENFORCED}",
        )
    written = write_filter(os.uname().machine)
    if not written:
        raise Problem(
            f"there is no filter of system calls for {os.uname().machine}",
            where="bailee run",
            fix=f"use x86_64 or aarch64, {UNENFORCED}",
        )
    found = {name: shutil.which(name, path=PROGRAMS) for name in ("nft", "ip", "bwrap")}
    for name, package in (("nft", "nftables"), ("ip", "iproute2")):
        if not found[name]:
            raise Problem(
                f"{name} is not installed",
                where="bailee run",
                fix=f"install it (Debian, Ubuntu: apt install {package}), {UNENFORCED}",
            )
    return Means(found["nft"] or "", found["ip"] or "", found["bwrap"] or "", written)


def tell_step(step: str, what: str) -> Problem:
    """Return the problem of a step of the set-up that failed, with what mends it here."""
    mending = [fix for path, bad, fix in _SWITCHES if os.geteuid() != 0 and _read(path) == bad]
    if mending:
        return Problem(
            "this system does not let ordinary users make namespaces",
            where=f"the boundary's {step}",
            fix=f"as root: {' and '.join(mending)}; {UNENFORCED}",
        )
    if step in ("user namespace", "namespaces", "mounts", "proc", "user map"):
        fix = f"in a container, let it make user namespaces (a seccomp profile may forbid that), {UNENFORCED}"
    elif step in ("firewall", "route", "count"):
        fix = f"load the kernel's nf_tables, nft_redir and nf_conntrack (as root: modprobe), {UNENFORCED}"
    elif step == "bubblewrap":
        fix = "install it (Debian, Ubuntu: apt install bubblewrap), or leave --confine out"
    else:
        fix = f"see what it says, {UNENFORCED}"
    return Problem(f"the boundary cannot be made: {what}", where=f"the boundary's {step}", fix=fix)


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
