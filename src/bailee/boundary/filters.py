"""The filter of system calls that a command runs under: sockets that go round a network namespace.

A socket of the file system belongs to no network: through one, a container engine, a service manager, a
terminal multiplexer or an agent of keys does outside what the boundary forbids inside. io_uring opens and
connects sockets without any of the calls that a filter sees. A machine's own socket to its host is no network
device. And a terminal takes characters as if they had been typed, to be run when the command has ended.

The program is written for the kernel's own machine (linux/filter.h, seccomp(2)).
"""

import errno
import struct
from collections.abc import Iterable

# linux/audit.h, and the numbers of calls in each architecture's unistd.
_ARCHITECTURES: dict[str, tuple[int, dict[str, int]]] = {
    "x86_64": (
        0xC000003E,
        {"socket": 41, "socketpair": 53, "ioctl": 16, "io_uring_setup": 425, "io_uring_enter": 426}
        | {"io_uring_register": 427},
    ),
    "aarch64": (
        0xC00000B7,
        {"socket": 198, "socketpair": 199, "ioctl": 29, "io_uring_setup": 425, "io_uring_enter": 426}
        | {"io_uring_register": 427},
    ),
}
_X32_BIT = 0x40000000
AF_UNIX, AF_INET, AF_INET6, AF_NETLINK = 1, 2, 10, 16
SOCK_STREAM, SOCK_SEQPACKET, _SOCK_TYPE_MASK = 1, 5, 0xF
TIOCSTI, TIOCLINUX = 0x5412, 0x541C  # asm-generic/ioctls.h
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
# Offsets in struct seccomp_data; of an argument the lower half, which is all that the kernel looks at here.
_NUMBER, _ARCHITECTURE, _FIRST, _SECOND = 0, 4, 16, 24
_LOAD, _EQUAL, _AT_LEAST, _AND, _RETURN = 0x20, 0x15, 0x35, 0x54, 0x06
_FAMILIES = (AF_INET, AF_INET6, AF_NETLINK)

Step = tuple[int, int, int, int]


def write_filter(machine: str, *, unix_sockets: bool = False) -> bytes:
    """Return the program for an architecture as `os.uname` names it; empty for one that is not known.

    Args:
        unix_sockets: whether sockets of the file system are let through: for a program that answers the
        system calls of what it holds itself, and for negative controls.
    """
    if machine not in _ARCHITECTURES:
        return b""
    number, calls = _ARCHITECTURES[machine]
    steps: list[Step] = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, number),
        _answer(_KILL),
        (_LOAD, 0, 0, _NUMBER),
    ]
    if machine == "x86_64":
        steps += [(_AT_LEAST, 0, 1, _X32_BIT), _answer(_KILL)]
    for name in ("io_uring_setup", "io_uring_enter", "io_uring_register"):
        steps += _for_call(calls[name], [_refuse(errno.ENOSYS)])
    families = (*_FAMILIES, AF_UNIX) if unix_sockets else _FAMILIES
    steps += _for_call(calls["socket"], [(_LOAD, 0, 0, _FIRST), *_only(families, errno.EAFNOSUPPORT)])
    # A pair of datagram sockets sends to any path: only connected ones are let through.
    pair: list[Step] = [(_LOAD, 0, 0, _SECOND), (_AND, 0, 0, _SOCK_TYPE_MASK)]
    if not unix_sockets:
        steps += _for_call(
            calls["socketpair"], [*pair, *_only((SOCK_STREAM, SOCK_SEQPACKET), errno.EAFNOSUPPORT)]
        )
    typing: list[Step] = [(_LOAD, 0, 0, _SECOND)]
    for request in (TIOCSTI, TIOCLINUX):
        typing += [(_EQUAL, 0, 1, request), _refuse(errno.EPERM)]
    steps += _for_call(calls["ioctl"], [*typing, _answer(_ALLOW)])
    steps.append(_answer(_ALLOW))
    return b"".join(
        struct.pack("=HBBI", code, on_true, on_false, value) for code, on_true, on_false, value in steps
    )


def _for_call(number: int, body: list[Step]) -> list[Step]:
    """Do something for one call; its number is loaded, and what is done ends with an answer."""
    return [(_EQUAL, 0, len(body), number), *body]


def _only(values: Iterable[int], error: int) -> list[Step]:
    """Let through what is among some values."""
    listed = list(values)
    steps: list[Step] = [(_EQUAL, len(listed) - place, 0, value) for place, value in enumerate(listed)]
    return [*steps, _refuse(error), _answer(_ALLOW)]


def _refuse(error: int) -> Step:
    return _answer(_ERRNO | error)


def _answer(value: int) -> Step:
    return (_RETURN, 0, 0, value)
