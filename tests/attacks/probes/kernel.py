"""Switches of the kernel and other processes."""

import os
import subprocess

from attacks.probes.tools import FOLDER, attack, succeed


@attack("boundary", needs_root=True)
def core_pattern() -> None:
    """Root does not say which program outside is run when one inside crashes."""
    with open("/proc/sys/kernel/core_pattern", "r+"):
        succeed("a program to be run outside")


@attack("boundary", needs_root=True)
def devices() -> None:
    """Root changes nothing of the machine's devices and memory."""
    with open("/sys/kernel/mm/transparent_hugepage/enabled", "r+"):
        succeed("the machine's memory")


@attack("boundary", needs_root=True)
def names_of_the_machine() -> None:
    """Root does not point an allowed name at another address for the proxy, which reads the same file."""
    with open("/etc/hosts", "r+"):
        succeed("what the proxy reads")


@attack("boundary")
def another_process() -> None:
    """A process outside is neither seen nor reached."""
    other = int(os.environ["PROBE_PROCESS"])
    with open(f"/proc/{other}/environ", "rb") as file:
        if b"PROBE_OUTSIDE" in file.read():
            succeed("what a process outside holds")


@attack("boundary")
def end_of_another_process() -> None:
    """Nor ended."""
    os.kill(int(os.environ["PROBE_PROCESS"]), 0)
    succeed("a process outside")


@attack("capabilities")
def firewall() -> None:
    """The firewall, and with it the kernel's count, is not the agent's to change."""
    done = subprocess.run(["/usr/sbin/nft", "flush", "ruleset"], capture_output=True, check=False)
    if done.returncode == 0:
        succeed("the firewall")


@attack("hidden")
def keys() -> None:
    """Bailee's own home, with its keys and the log of this run, is not there."""
    with open(f"{FOLDER}/home/kek") as file:
        succeed(file.read())
