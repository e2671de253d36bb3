"""The first process of a boundary: `python -I -S init.py DESCRIPTOR`.

It makes the namespaces, brings up a network that holds nothing but loopback, opens the proxy's listeners in
it and hands them out, and only when it is told to go on starts the command, which has no way to change any of
that. As process 1 of its own process namespace it takes everything with it when it ends, and it ends when
whoever started it does.

It imports nothing of Bailee's, holds no secret, and needs no library: it starts in some 20 ms, and a fault in
here ends it before the command has begun.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import resource
import signal
import socket
import struct
import sys
from array import array

TYPE_CHECKING = False  # `typing` takes 10 ms to import
if TYPE_CHECKING:
    from typing import Any, NoReturn, TypeAlias

    # What is asked for, as it comes (`enclosure.Enclosure`): a structure would need a library.
    Asked: TypeAlias = dict[str, Any]

# linux/sched.h
NEW_NS, NEW_UTS, NEW_IPC, NEW_USER, NEW_PID, NEW_NET = (
    0x00020000,
    0x04000000,
    0x08000000,
    0x10000000,
    0x20000000,
    0x40000000,
)
# linux/mount.h
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND = 1, 2, 4, 8, 32, 4096
MS_REC, MS_PRIVATE = 16384, 1 << 18
# linux/prctl.h
SET_PDEATHSIG, SET_DUMPABLE, SET_SECCOMP, CAPBSET_DROP, SET_NO_NEW_PRIVS = 1, 4, 22, 24, 38
CAP_AMBIENT, CAP_AMBIENT_RAISE, CAP_AMBIENT_CLEAR_ALL = 47, 2, 4
SECCOMP_MODE_FILTER = 2
CAPABILITY_VERSION_3 = 0x20080522
# linux/capability.h: what root may do with files and with its own processes, as in a container. Without
# NET_RAW and NET_ADMIN, which the network rests on, and SYS_PTRACE and SYS_ADMIN, which lead out.
CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_FSETID, CAP_KILL, CAP_SETGID, CAP_SETUID = 0, 1, 3, 4, 5, 6, 7
CAP_NET_BIND_SERVICE, CAP_NET_ADMIN, CAP_SYS_CHROOT, CAP_SETFCAP = 10, 12, 18, 31
ROOT_KEEPS = (
    CAP_CHOWN,
    CAP_DAC_OVERRIDE,
    CAP_FOWNER,
    CAP_FSETID,
    CAP_KILL,
    CAP_SETGID,
    CAP_SETUID,
    CAP_NET_BIND_SERVICE,
    CAP_SYS_CHROOT,
    CAP_SETFCAP,  # without, nothing inside can make a namespace that has a root, as bubblewrap does
)
LAST_CAP = 40
PER_NAMESPACE, RESERVED_PIDS = (6, 14), 300  # of kernel.pid_max, kernel/pid.c
SIOCSIFFLAGS, IFF_UP = 0x8914, 1  # linux/sockios.h, linux/if.h
EXIT_NOT_FOUND, EXIT_NOT_EXECUTABLE = 127, 126
FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT, signal.SIGQUIT)
# Global switches of the kernel, which root may write to without any capability: `core_pattern` alone runs a
# program as root outside. The paths are those of the OCI runtime specification, "readonly paths".
READ_ONLY = ("/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs", "/sys")
# By these the proxy, which is outside, looks names up: root would point an allowed one elsewhere.
READ_ONLY_NAMES = ("/etc/hosts", "/etc/resolv.conf", "/etc/nsswitch.conf", "/etc/gai.conf")

LIBC = ctypes.CDLL(None, use_errno=True)


class Fault(Exception):
    """A step of the set-up failed."""

    def __init__(self, step: str, what: str) -> None:
        super().__init__(what)
        self.step = step
        self.what = what


def check(step: str, result: int) -> int:
    if result == -1:
        number = ctypes.get_errno()
        raise Fault(step, f"{errno.errorcode.get(number, number)}: {os.strerror(number)}")
    return result


def unshare(step: str, flags: int) -> None:
    check(step, LIBC.unshare(flags))


def mount(
    step: str, source: str | None, target: str, kind: str | None, flags: int, data: str | None = None
) -> None:
    arguments = [None if one is None else one.encode() for one in (source, target, kind)]
    check(step, LIBC.mount(*arguments, ctypes.c_ulong(flags), None if data is None else data.encode()))


def prctl(step: str, option: int, first: int = 0, second: int = 0) -> None:
    check(
        step,
        LIBC.prctl(
            option, ctypes.c_ulong(first), ctypes.c_ulong(second), ctypes.c_ulong(0), ctypes.c_ulong(0)
        ),
    )


# --- The outer process ---


def main() -> NoReturn:
    control = socket.socket(fileno=int(sys.argv[1]))
    control.set_inheritable(False)
    try:
        asked = json.loads(read_line(control))
        make_user_namespace(asked)
        unshare("namespaces", NEW_NET | NEW_NS | NEW_PID | NEW_IPC | NEW_UTS)
    except (Fault, OSError) as fault:
        tell_fault(control, fault)
        os._exit(1)
    # After the namespaces: a change of credentials takes this back.
    prctl("death", SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != asked["parent"]:
        os._exit(1)
    first = os.fork()
    if first == 0:
        begin_as_first(control, asked)
    for number in FORWARDED:
        signal.signal(number, lambda number, frame: os.kill(first, number))
    control.close()
    while True:
        try:
            _, status = os.waitpid(first, 0)
        except InterruptedError:
            continue
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def make_user_namespace(asked: Asked) -> None:
    user, group = os.getuid(), os.getgid()
    if user == 0 and asked["all_users"]:
        # Root keeps what it may do to other users' files: all of them are there under their own numbers.
        # Such a map is written from outside, by who has that right there.
        ready, go = os.pipe()
        mapper = os.fork()
        if mapper == 0:
            os.close(go)
            os.read(ready, 1)
            try:
                for name in ("uid_map", "gid_map"):
                    write("user map", f"/proc/{os.getppid()}/{name}", "0 0 4294967295")
            except Fault:
                os._exit(1)
            os._exit(0)
        os.close(ready)
        unshare("user namespace", NEW_USER)
        os.close(go)
        if os.waitpid(mapper, 0)[1]:
            raise Fault("user map", "the users of this machine cannot be mapped")
        return
    unshare("user namespace", NEW_USER)
    write("setgroups", "/proc/self/setgroups", "deny")
    write("user map", "/proc/self/uid_map", f"{user} {user} 1")
    write("group map", "/proc/self/gid_map", f"{group} {group} 1")


def write(step: str, path: str, text: str) -> None:
    try:
        with open(path, "w") as file:
            file.write(text)
    except OSError as error:
        raise Fault(
            step, f"{errno.errorcode.get(error.errno or 0, error.errno)}: {error.strerror} ({path})"
        ) from None


def read_line(control: socket.socket) -> bytes:
    data = bytearray()
    while not data.endswith(b"\n"):
        piece = control.recv(65536)
        if not piece:
            os._exit(1)
        data += piece
    return bytes(data)


def tell_fault(control: socket.socket, fault: Exception) -> None:
    step = getattr(fault, "step", "set-up")
    control.sendall(json.dumps({"fault": str(fault), "step": step}).encode() + b"\n")


# --- The first process inside ---


def begin_as_first(control: socket.socket, asked: Asked) -> NoReturn:
    status = 1
    try:
        prctl("death", SET_PDEATHSIG, signal.SIGKILL)
        prctl("dumpable", SET_DUMPABLE, 0)
        listeners = set_up(asked)
        told = json.dumps({"ready": [name for name, _ in listeners]}).encode() + b"\n"
        descriptors = array("i", [listener.fileno() for _, listener in listeners])
        control.sendmsg([told], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])
        for _, listener in listeners:
            listener.close()  # the proxy has it; here nobody may take what is the proxy's
        if read_line(control) != b"go\n":
            os._exit(1)
        status = run(control, asked)
    except (Fault, OSError, ValueError) as fault:
        tell_fault(control, fault)
    os._exit(status)


def set_up(asked: Asked) -> list[tuple[str, socket.socket]]:
    keep_for_programs(CAP_NET_ADMIN)
    mount("mounts", None, "/", None, MS_REC | MS_PRIVATE)
    mount("proc", "proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    limit_processes(asked["processes"])
    for path in (*READ_ONLY, *map(os.path.realpath, READ_ONLY_NAMES)):
        if os.path.exists(path):
            make_read_only(path)
    if asked["nests"]:
        # Another may be mounted only where one is seen whole, and of the one above a part is covered. Whoever
        # nests has a root of its own, in which this is not.
        mount("proc", "proc", "/sys", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    for path in asked["hidden"]:
        hide(path)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh", b"lo", IFF_UP))
    spawn("firewall", [asked["nft"], "-f", "-"], asked["firewall"])
    for family in ("-4", "-6"):
        if family == "-4" or os.path.exists("/proc/net/if_inet6"):
            spawn("route", [asked["ip"], family, "route", "add", "local", "default", "dev", "lo"], "")
    return [(one["name"], open_listener(one)) for one in asked["listeners"]]


def limit_processes(most: int) -> None:
    """Let no more processes be made than these, threads included, where that is a namespace's own affair.

    Since Linux 6.14; before, the same file is the whole machine's.
    """
    release = os.uname().release.split(".")
    if most and (int(release[0]), int(release[1].split("-")[0])) >= PER_NAMESPACE:
        # Once all numbers were given out, those below 300 are not given out again.
        write("processes", "/proc/sys/kernel/pid_max", str(most + RESERVED_PIDS))


def keep_for_programs(capability: int) -> None:
    """Let the programs that this one starts have a capability; without, only those of root would."""
    header = struct.pack("=Ii", CAPABILITY_VERSION_3, 0)
    held = ctypes.create_string_buffer(24)
    check("capabilities", LIBC.capget(header, held))
    low, permitted, _, high, permitted_high, _ = struct.unpack("=IIIIII", held.raw)
    bits = struct.pack("=IIIIII", low, permitted, permitted & 1 << capability, high, permitted_high, 0)
    check("capabilities", LIBC.capset(header, bits))
    prctl("capabilities", CAP_AMBIENT, CAP_AMBIENT_RAISE, capability)


def make_read_only(path: str) -> None:
    """Bind a path over itself, read-only, with what is mounted below it."""
    mount("read-only", path, path, None, MS_BIND | MS_REC)
    kept = 0
    # What is set already may not be taken away in a user namespace.
    for flag, value in ((2, MS_NOSUID), (4, MS_NODEV), (8, MS_NOEXEC)):
        if os.statvfs(path).f_flag & flag:
            kept |= value
    mount("read-only", None, path, None, MS_REMOUNT | MS_BIND | MS_RDONLY | kept)


def hide(path: str) -> None:
    if os.path.isdir(path):
        mount("hide", "tmpfs", path, "tmpfs", MS_NOSUID | MS_NODEV | MS_RDONLY, "size=4k,mode=0555")
    elif os.path.exists(path):
        mount("hide", "/dev/null", path, None, MS_BIND)


def open_listener(one: Asked) -> socket.socket:
    family = socket.AF_INET6 if ":" in one["address"] else socket.AF_INET
    kind = socket.SOCK_DGRAM if one["kind"] == "udp" else socket.SOCK_STREAM
    try:
        listener = socket.socket(family, kind)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((one["address"], one["port"]))
        if kind == socket.SOCK_STREAM:
            listener.listen(1024)
    except OSError as error:
        raise Fault("listener", f"{one['name']}: {error.strerror}") from None
    return listener


def spawn(step: str, command: list[str], text: str) -> str:
    """Run a program to its end with a text as its input, and return what it says."""
    reading, writing = os.pipe()
    inside, outside = os.pipe()
    os.write(writing, text.encode())  # it is below what a pipe holds
    os.close(writing)
    actions = [
        (os.POSIX_SPAWN_DUP2, reading, 0),
        (os.POSIX_SPAWN_DUP2, outside, 1),
        (os.POSIX_SPAWN_DUP2, outside, 2),
    ]
    try:
        process = os.posix_spawn(
            command[0], command, {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}, file_actions=actions
        )
    except OSError as error:
        raise Fault(step, f"{command[0]}: {error.strerror}") from None
    finally:
        os.close(reading)
        os.close(outside)
    said = bytearray()
    while piece := os.read(inside, 65536):
        said += piece
    os.close(inside)
    _, status = os.waitpid(process, 0)
    if status:
        raise Fault(step, said.decode("utf-8", "replace").strip()[:500] or f"{command[0]} failed")
    return said.decode("utf-8", "replace")


# --- The command ---


def run(control: socket.socket, asked: Asked) -> int:
    command = os.fork()
    if command == 0:
        start(control, asked)
    for number in FORWARDED:
        signal.signal(number, lambda number, frame: pass_on(command, number))
    watch(control)
    while True:
        try:
            process, status = os.waitpid(-1, 0)
        except InterruptedError:
            continue
        if process == command:
            break
    end_all()
    report = {
        "status": status,
        "firewall": "",
        "interfaces": read_text("/proc/net/dev"),
        "protocols": read_text("/proc/net/snmp"),
    }
    try:
        report["firewall"] = spawn("count", [asked["nft"], "-j", "list", "counters"], "")
    except (Fault, OSError) as fault:
        report["fault"] = str(fault)
    control.setblocking(True)
    control.sendall(json.dumps(report).encode() + b"\n")
    return 0


def pass_on(command: int, number: int) -> None:
    # A terminal's own have reached the command already, with everybody else in its group.
    if number in (signal.SIGINT, signal.SIGQUIT) and os.isatty(0):
        return
    try:
        os.kill(command, number)
    except ProcessLookupError:
        pass


def watch(control: socket.socket) -> None:
    """End, and everything with it, when whoever started this is gone: its socket is closed then."""
    fcntl.fcntl(control, fcntl.F_SETOWN, os.getpid())
    signal.signal(signal.SIGIO, lambda number, frame: end_if_alone(control))
    fcntl.fcntl(control, fcntl.F_SETFL, fcntl.fcntl(control, fcntl.F_GETFL) | os.O_ASYNC | os.O_NONBLOCK)
    end_if_alone(control)


def end_if_alone(control: socket.socket) -> None:
    try:
        if control.recv(1, socket.MSG_PEEK) == b"":
            os._exit(1)
    except BlockingIOError:
        pass


def end_all() -> None:
    """End what the command left running, and wait until all of it is gone."""
    try:
        os.kill(-1, signal.SIGKILL)
    except ProcessLookupError:
        pass
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return
        except InterruptedError:
            continue


def read_text(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


def start(control: socket.socket, asked: Asked) -> NoReturn:
    """Give up every right and become the command."""
    try:
        for number in FORWARDED:
            signal.signal(number, signal.SIG_DFL)
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)  # the interpreter ignores them
        if asked["gives_up_rights"]:
            give_up_rights(ROOT_KEEPS if os.getuid() == 0 and asked["all_users"] else ())
        if asked["filter"]:
            set_filter(bytes.fromhex(asked["filter"]))
        os.set_inheritable(control.fileno(), False)
        close_others()
        os.chdir(asked["folder"])
        os.execvpe(asked["command"][0], asked["command"], asked["environment"])
    except FileNotFoundError:
        control.sendall(json.dumps({"not_found": True}).encode() + b"\n")
        os._exit(EXIT_NOT_FOUND)
    except OSError as error:
        control.sendall(json.dumps({"not_executable": error.strerror}).encode() + b"\n")
        os._exit(EXIT_NOT_EXECUTABLE)
    except Fault as fault:
        tell_fault(control, fault)
        os._exit(1)


def give_up_rights(keep: tuple[int, ...]) -> None:
    drop_capabilities(keep)
    prctl("no new privileges", SET_NO_NEW_PRIVS, 1)
    prctl("dumpable", SET_DUMPABLE, 1)


def drop_capabilities(keep: tuple[int, ...]) -> None:
    prctl("capabilities", CAP_AMBIENT, CAP_AMBIENT_CLEAR_ALL)
    for capability in range(LAST_CAP + 1):
        if capability not in keep:
            LIBC.prctl(CAPBSET_DROP, ctypes.c_ulong(capability), 0, 0, 0)
    bits = sum(1 << capability for capability in keep)
    header = struct.pack("=Ii", CAPABILITY_VERSION_3, 0)
    low, high = bits & 0xFFFFFFFF, bits >> 32
    data = struct.pack("=IIIIII", low, low, 0, high, high, 0)
    check("capabilities", LIBC.capset(header, data))


def set_filter(program: bytes) -> None:
    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]

    held = ctypes.create_string_buffer(program, len(program))
    described = Program(len(program) // 8, ctypes.cast(held, ctypes.c_void_p))
    check("filter", LIBC.prctl(SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(described), 0, 0))


def close_others() -> None:
    highest = min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 1 << 20)
    try:
        held = [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:
        held = list(range(3, highest))
    for descriptor in held:
        if descriptor > 2:
            try:
                os.set_inheritable(descriptor, False)
            except OSError:
                continue


if __name__ == "__main__":
    main()
