"""Ends a session's turn when its time is over, when somebody stops it, and when it takes more than it may."""

import time
from collections.abc import Callable

from bailee.sandbox.machines import Kind, Spec
from bailee.sandbox.usage import measure_disk, measure_segments, measure_usage

_USAGE_SECONDS, _SEGMENTS_SECONDS, _DISK_SECONDS = 0.5, 2.0, 2.0
# Of its time a watch spends no more than a twentieth on looking at the files of a disk.
_DISK_SHARE = 20


class Watch:
    """Tells whether a turn is over, and why.

    A virtual machine has its limits of itself: memory, processors and a disk of its own size. The others
    are looked at twice a second, so that for so long they may take more.

    Args:
        process: that everything of the machine is below.
        deadline: seconds on the clock.
        find_reason: tells why else the turn is over; nothing where it is not.
        clock: seconds, from any beginning.
    """

    def __init__(
        self,
        process: int,
        kind: Kind,
        spec: Spec,
        deadline: float,
        find_reason: Callable[[], str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._process = process
        self._kind = kind
        self._is_watched = kind is not Kind.VM
        self._spec = spec
        self._deadline = deadline
        self._find_reason = find_reason
        self._clock = clock
        self._begun = clock()
        self._next_usage = self._next_segments = self._next_disk = self._begun
        self._segments = 0.0
        self.reason = ""

    def is_over(self) -> bool:
        """Tell whether the turn is over; `reason` is why."""
        if not self.reason:
            self.reason = self._look()
        return bool(self.reason)

    def _look(self) -> str:
        now = self._clock()
        if reason := self._find_reason():
            return reason
        if now > self._deadline:
            return f"its {self._deadline - self._begun:.0f} s were over"
        if not self._is_watched:
            return ""
        limits = self._spec.limits
        if now >= self._next_usage:
            self._next_usage = now + _USAGE_SECONDS
            has_own_kernel = self._kind is Kind.CONTAINER
            if now >= self._next_segments and not has_own_kernel:
                self._next_segments = now + _SEGMENTS_SECONDS
                self._segments = measure_segments(self._process)
            usage = measure_usage(self._process, self._segments, has_own_kernel=has_own_kernel)
            if usage.memory_bytes > limits.memory_mb * 1_000_000:
                return f"it took more than its {limits.memory_mb} MB of memory"
            if usage.processes > limits.processes:
                return f"it had more than its {limits.processes} processes"
        if now >= self._next_disk:
            taken = measure_disk(self._spec.folder, self._process)
            self._next_disk = now + max(_DISK_SECONDS, _DISK_SHARE * (self._clock() - now))
            if taken > limits.disk_mb * 1_000_000:
                return f"it wrote more than its {limits.disk_mb} MB of disk"
        return ""
