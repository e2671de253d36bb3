"""What sessions did with Git, under terms like all else: where and how much, and never what."""

import asyncio
from collections.abc import Callable

import msgspec

from bailee.flows.git.access import Access
from bailee.flows.git.requests import GitRequest
from bailee.policy.contexts import Context
from bailee.policy.decisions import decide
from bailee.policy.flows import Flow
from bailee.vault.frames import Begin, Finish
from bailee.vault.recording import RecorderGone, Recording, decided_of
from bailee.vault.tables import State

PATH = "git"


class GitRecorder:
    """Records requests.

    Args:
        find_context: the context of an account, by its id; None for one that is gone.
    """

    def __init__(
        self, *, flow: Flow, recording: Recording, find_context: Callable[[str], Context | None]
    ) -> None:
        self._flow = flow
        self._recording = recording
        self._find_context = find_context
        self._pending: set[asyncio.Task[None]] = set()

    def note(self, access: Access, request: GitRequest) -> None:
        """Record a request, beside the answering of others."""
        task = asyncio.get_running_loop().create_task(self._keep(access, request))
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)

    async def finish(self) -> None:
        """Wait until all that was noted is recorded."""
        await asyncio.gather(*self._pending, return_exceptions=True)

    async def _keep(self, access: Access, request: GitRequest) -> None:
        if (context := self._find_context(access.account)) is None:
            return  # of an account that is gone nothing may be held any more
        decided = decided_of(decide(self._flow, context))
        body = msgspec.json.encode(request)
        exchange = self._recording.new_exchange(request.at_ms)
        begin = Begin(
            exchange=exchange,
            account=access.account,
            session=access.session,
            key=access.key,
            decision=decided.digest,
            flow=self._flow.id.value,
            keep=True,
            started_ms=request.at_ms,
            upstream=request.repository,
            path=PATH,
            request_bytes=request.sent,
            headers=b"",
            body=body,
        )
        try:
            self._recording.begin(begin, decided)
            end = Finish(
                exchange=exchange,
                state=State.COMPLETE.value,
                reason=None,
                status=request.status,
                first_byte_ms=None,
                duration_ms=0,
                response_bytes=request.received,
                model=None,
                input_tokens=None,
                output_tokens=None,
                cache_read_tokens=None,
                cache_creation_tokens=None,
                stop_reason=None,
                headers=b"",
                data=b"",
            )
            await self._recording.finish(end)
        except RecorderGone:
            return
