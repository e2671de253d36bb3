"""The first program in a machine, `python -I -S guest.py CHANNEL`: it does what its driver asks.

CHANNEL is the number of a descriptor, or `port` for the port `bailee` of a virtual machine. What goes over it
are frames: kind, number of the request, length, and so many bytes (`>BII`). It imports nothing of Bailee's
and needs no library; the driver imports this file for the frames. It is within reach of whatever runs in
the machine, so that its driver takes nothing that it says for true (`machines.Machine`).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import selectors
import signal
import stat
import struct
import sys

TYPE_CHECKING = False  # `typing` takes 10 ms to import, ten times that where a machine is emulated
if TYPE_CHECKING:
    from typing import Any

HEAD = struct.Struct(">BII")
# From the driver.
OPEN, EXEC, SIGNAL, PUT, PIECE, END, GET, CLEAR, CLOCK, FREEZE, THAW, LOOK = range(1, 13)
# From the machine; PIECE and END as well.
READY, OUTPUT, ENDED, FAULT = 16, 17, 18, 19
LARGEST = 1 << 20  # bytes of a frame
PORT = "bailee"
_PIECE_BYTES = 1 << 16
_CLEAR_SECONDS = 5.0
_RNDADDENTROPY, _RNDRESEEDCRNG = 0x40085203, 0x5207  # linux/random.h
_FIFREEZE, _FITHAW = 0xC0045877, 0xC0045878  # linux/fs.h
_SET_DUMPABLE = 4  # linux/prctl.h


def write_frame(kind: int, number: int, data: bytes = b"") -> bytes:
    """Return a frame."""
    return HEAD.pack(kind, number, len(data)) + data


def read_frames(held: bytearray) -> list[tuple[int, int, bytes]]:
    """Take the whole frames from what has come, and return them.

    Raises:
        ValueError: a frame is larger than LARGEST.
    """
    frames = []
    while len(held) >= HEAD.size:
        kind, number, length = HEAD.unpack_from(held)
        if length > LARGEST:
            raise ValueError(f"a frame of {length} bytes")
        if len(held) < HEAD.size + length:
            break
        frames.append((kind, number, bytes(held[HEAD.size : HEAD.size + length])))
        del held[: HEAD.size + length]
    return frames


class _Gone(Exception):
    """The driver has closed the channel: nobody is there to answer."""


class Guest:
    """Does what is asked, one thing beside the other."""

    def __init__(self, channel: int) -> None:
        self._channel = channel
        self._held = bytearray()
        self._running: dict[int, int] = {}  # process by request
        self._files: dict[int, int] = {}  # descriptor of what is being written, by request
        self._groups: set[int] = set()  # of commands that have ended, and may have left something running
        self._user: tuple[int, int] | None = None
        self._disk = ""  # where a disk of this machine's own is
        self._selector = selectors.DefaultSelector()
        woken, wakes = os.pipe()
        for end in (woken, wakes):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        self._woken = woken

    def serve(self) -> None:
        """Serve until the driver closes the channel."""
        self._selector.register(self._channel, selectors.EVENT_READ, None)
        self._selector.register(self._woken, selectors.EVENT_READ, None)
        with contextlib.suppress(_Gone):
            self._send(READY, 0)
            self._work()

    def _work(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if self._selector.get_map().get(key.fd) is not key:
                    continue  # closed by what came before it
                if key.fd == self._channel:
                    if not (piece := self._read_orders()):
                        return
                    self._held += piece
                    for kind, number, data in read_frames(self._held):
                        self._answer(kind, number, data)
                elif key.fd == self._woken:
                    with contextlib.suppress(BlockingIOError):
                        os.read(self._woken, 512)
                    self._reap()
                else:
                    with contextlib.suppress(BlockingIOError):  # drained since it was told ready
                        self._pass_on(key.fd, key.data)

    def _read_orders(self) -> bytes:
        try:
            return os.read(self._channel, _PIECE_BYTES)
        except ConnectionResetError:  # the driver went with answers of ours unread: the end as any other
            return b""

    def _answer(self, kind: int, number: int, data: bytes) -> None:
        try:
            if kind == OPEN:
                self._open(json.loads(data))
                self._send(END, number)
            elif kind == CLOCK:
                self._set_clock(json.loads(data))
                self._send(END, number)
            elif kind == LOOK:
                if running := _count_left():
                    raise OSError(errno.EBUSY, f"{running} still running")
                self._send(END, number)
            elif kind in (FREEZE, THAW):
                self._freeze(_FIFREEZE if kind == FREEZE else _FITHAW)
                self._send(END, number)
            elif kind == EXEC:
                self._exec(number, json.loads(data))
            elif kind == SIGNAL:
                if number in self._running:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(self._running[number], json.loads(data))
            elif kind == CLEAR:
                self._clear()
                self._send(END, number)
            elif kind == PUT:
                self._put(number, json.loads(data))
            elif kind == PIECE:
                _write(self._files[number], data)
            elif kind == END:
                os.close(self._files.pop(number))
                self._send(END, number)
            elif kind == GET:
                self._get(number, json.loads(data))
        except OSError as error:
            if number in self._files and kind == PIECE:
                os.close(self._files.pop(number))
            self._send(FAULT, number, (error.strerror or "fault").encode())
        except KeyError:
            pass  # pieces of a file that could not be written

    def _open(self, asked: dict[str, Any]) -> None:
        """Make a machine that was stopped a new one: its entropy, its disk, its user."""
        entropy = bytes.fromhex(asked["entropy"])
        descriptor = os.open("/dev/urandom", os.O_WRONLY)
        fcntl.ioctl(descriptor, _RNDADDENTROPY, struct.pack("ii", 8 * len(entropy), len(entropy)) + entropy)
        fcntl.ioctl(descriptor, _RNDRESEEDCRNG)
        os.close(descriptor)
        if disk := asked.get("disk"):
            _mount(disk["device"], disk["folder"], disk["kind"])
            self._disk = disk["folder"]
            with contextlib.suppress(FileExistsError):
                os.mkdir(disk["home"], 0o700)  # noqa: PTH102
                os.chown(disk["home"], asked["user"], asked["user"])
        for path, text in asked.get("files", {}).items():
            _write_file(path, text.encode())
        self._user = asked["user"], asked["user"]

    def _set_clock(self, asked: dict[str, Any]) -> None:
        import time

        time.clock_settime_ns(time.CLOCK_REALTIME, asked["time_ns"])

    def _freeze(self, order: int) -> None:
        """Have all that was written on the disk, and nothing more written to it; or let it be again."""
        if not self._disk:  # a folder of the host's file system, which is not ours to stop
            raise OSError(errno.EOPNOTSUPP, "it has no disk of its own")
        descriptor = os.open(self._disk, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(descriptor, order, 0)
        finally:
            os.close(descriptor)

    def _exec(self, number: int, asked: dict[str, Any]) -> None:
        reading, writing = os.pipe()
        process = os.fork()
        if not process:
            self._become(asked, writing)
        os.close(writing)
        self._running[number] = process
        self._selector.register(reading, selectors.EVENT_READ, number)

    def _become(self, asked: dict[str, Any], writing: int) -> None:
        status = 126
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.setsid()
            nothing = os.open(os.devnull, os.O_RDONLY)
            os.dup2(nothing, 0)
            os.dup2(writing, 1)
            os.dup2(writing, 2)
            if self._user is not None:
                os.setgroups([])
                os.setgid(self._user[1])
                os.setuid(self._user[0])
            os.chdir(asked["folder"])
            os.execvpe(asked["command"][0], asked["command"], asked["environment"])  # noqa: S606
        except FileNotFoundError as error:
            status = 127
            os.write(2, f"{asked['command'][0]}: {error.strerror}\n".encode())
        except OSError as error:
            os.write(2, f"{asked['command'][0]}: {error.strerror}\n".encode())
        finally:
            os._exit(status)

    def _clear(self) -> None:
        import time

        deadline = time.monotonic() + _CLEAR_SECONDS
        while self._groups and time.monotonic() < deadline:
            for group in list(self._groups):
                try:
                    os.killpg(group, signal.SIGKILL)
                except ProcessLookupError:
                    self._groups.discard(group)
            self._reap()
            time.sleep(0.01)
        self._groups.clear()

    def _reap(self) -> None:
        while True:
            try:
                process, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not process:
                return
            for number, known in list(self._running.items()):
                if known == process:
                    del self._running[number]
                    self._groups.add(process)
                    self._drain(number)
                    ended = os.waitstatus_to_exitcode(status)
                    self._send(ENDED, number, json.dumps(128 - ended if ended < 0 else ended).encode())

    def _drain(self, number: int) -> None:
        """Pass on what was said before the end, and not wait for what the command left running."""
        for key in [key for key in self._selector.get_map().values() if key.data == number]:
            os.set_blocking(key.fd, False)
            with contextlib.suppress(BlockingIOError):
                while key.fd in self._selector.get_map():
                    self._pass_on(key.fd, number)

    def _pass_on(self, descriptor: int, number: int) -> None:
        if piece := os.read(descriptor, _PIECE_BYTES):
            self._send(OUTPUT, number, piece)
        else:
            self._selector.unregister(descriptor)
            os.close(descriptor)

    def _put(self, number: int, asked: dict[str, Any]) -> None:
        self._make_folders(os.path.dirname(asked["path"]))  # noqa: PTH120
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        self._files[number] = descriptor = os.open(asked["path"], flags, asked["mode"])
        os.fchmod(descriptor, asked["mode"])
        if self._user is not None:
            os.fchown(descriptor, *self._user)

    def _make_folders(self, path: str) -> None:
        """Make a folder and those above it that are missing; they are the user's, as the file in it is."""
        missing = []
        while not os.path.isdir(path):  # noqa: PTH112
            missing.append(path)
            path = os.path.dirname(path)  # noqa: PTH120
        for one in reversed(missing):
            os.mkdir(one, 0o700)  # noqa: PTH102
            if self._user is not None:
                os.chown(one, *self._user)

    def _get(self, number: int, asked: dict[str, Any]) -> None:
        # Nothing that would wait for a writer, and no device: a pipe in the place of a file would hold us.
        descriptor = os.open(asked["path"], os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(errno.EINVAL, "not a file")
            left = asked["most"]
            while left >= 0 and (piece := os.read(descriptor, _PIECE_BYTES)):
                left -= len(piece)
                if left < 0:
                    raise OSError(errno.EFBIG, "too large")
                self._send(PIECE, number, piece)
        finally:
            os.close(descriptor)
        self._send(END, number)

    def _send(self, kind: int, number: int, data: bytes = b"") -> None:
        try:
            _write(self._channel, write_frame(kind, number, data))
        except (BrokenPipeError, ConnectionResetError):
            raise _Gone from None


def _write(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]


def _count_left() -> int:
    """Return how many processes run that commands have left: of other sessions (setsid(2)) than ours."""
    found = 0
    for name in os.listdir("/proc"):  # noqa: PTH208
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123
                # proc(5): after the name, which ends with the last parenthesis, state and three others.
                state, _, _, session = file.read().rpartition(b")")[2].split()[:4]
        except (OSError, ValueError):
            continue  # it has ended
        # The kernel's own have none, and neither has what surrounds us in other namespaces.
        found += state != b"Z" and int(session) not in (0, os.getsid(0))
    return found


def _write_file(path: str, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)


def _mount(device: str, folder: str, kind: str) -> None:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    # What this kernel read of the device before it was stopped is another disk's.
    with open(device, "rb") as opened:  # noqa: PTH123
        fcntl.ioctl(opened, 0x1261)  # BLKFLSBUF, linux/fs.h
    nosuid_nodev = 2 | 4
    if libc.mount(device.encode(), folder.encode(), kind.encode(), nosuid_nodev, None):
        raise OSError(ctypes.get_errno(), f"{device}: {os.strerror(ctypes.get_errno())}")


def find_channel(word: str) -> int:
    """Return the descriptor of a channel: a number, or a virtual machine's port."""
    if word != "port":
        channel = fcntl.fcntl(int(word), fcntl.F_DUPFD_CLOEXEC, 3)
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, int(word))
        os.close(nothing)
        return channel
    below = "/sys/class/virtio-ports"
    for port in sorted(os.listdir(below)):  # noqa: PTH208
        with open(f"{below}/{port}/name") as named:  # noqa: PTH123
            if named.read().strip() == PORT:
                return os.open(f"/dev/{port}", os.O_RDWR | os.O_CLOEXEC)
    raise SystemExit("there is no port")


def main() -> None:
    """Serve one driver."""
    import ctypes

    # Whatever runs here as the same user could read the channel from this process's memory.
    ctypes.CDLL(None).prctl(_SET_DUMPABLE, 0, 0, 0, 0)
    channel = find_channel(sys.argv[1])
    os.set_inheritable(channel, False)
    try:
        Guest(channel).serve()
    finally:
        if os.getpid() == 1:  # a virtual machine ends with its first process
            os.sync()
            # Else the kernel's last word is one of the session's log.
            with contextlib.suppress(OSError):
                os.write(os.open("/proc/sys/kernel/printk", os.O_WRONLY), b"0")
            ctypes.CDLL(None).reboot(0x4321FEDC)  # LINUX_REBOOT_CMD_POWER_OFF


if __name__ == "__main__":
    main()
