"""Sockets that are no network: through them a program outside does what is forbidden inside."""

import ctypes
import fcntl
import os
import socket
import struct
import termios

from attacks.probes.tools import CANARY, FOLDER, attack, succeed


@attack("filter")
def path() -> None:
    """A container engine's socket in the file system is out of reach."""
    with socket.socket(socket.AF_UNIX) as out:
        out.connect(f"{FOLDER}/engine.sock")
        out.sendall(CANARY.encode())


@attack("filter")
def path_of_datagrams() -> None:
    """So is one for datagrams: a log's."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        out.sendto(CANARY.encode(), f"{FOLDER}/log.sock")


@attack("filter")
def pair() -> None:
    """A pair of datagram sockets, which programs make for themselves, sends nowhere else."""
    first, _ = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    first.sendto(CANARY.encode(), f"{FOLDER}/log.sock")


@attack("boundary")
def abstract() -> None:
    """A socket without a file belongs to a network, and to none of ours."""
    with socket.socket(socket.AF_UNIX) as out:
        out.connect("\0bailee-engine")
        out.sendall(CANARY.encode())


@attack("filter")
def ring() -> None:
    """io_uring, which opens sockets without the calls that a filter sees, is not there."""
    parameters = ctypes.create_string_buffer(120)
    ring = ctypes.CDLL(None, use_errno=True).syscall(425, 4, parameters)
    if ring >= 0:
        succeed("a ring")


@attack("filter")
def machine() -> None:
    """A virtual machine's socket to its host is not there."""
    with socket.socket(40, socket.SOCK_STREAM):  # AF_VSOCK
        succeed("a socket to the host")


@attack("boundary")
def inherited() -> None:
    """A connection that was open before is not handed on."""
    os.write(int(os.environ["PROBE_OPEN"]), f"GET /{CANARY} HTTP/1.1\r\n\r\n".encode())


@attack("filter")
def typing() -> None:
    """Nothing is typed into the terminal, to be run when the command has ended."""
    outer, inner = os.openpty()
    if os.fork() == 0:
        os.setsid()
        fcntl.ioctl(inner, termios.TIOCSCTTY, 0)
        try:
            fcntl.ioctl(inner, termios.TIOCSTI, struct.pack("c", b"x"))
            os.write(1, b"BREACHED a character\n")
        except PermissionError:
            pass
        except OSError as error:
            os.write(1, f"BREACHED only this kernel forbids it: {error}\n".encode())
        os._exit(0)
    os.wait()
    os.close(outer)
