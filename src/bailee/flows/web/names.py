"""Names inside the boundary: an answer for what is declared, made up here, and no question ever leaves.

A program that knows of no proxy looks a name up and connects to what it gets. It gets an address that stands
for the name (198.18.0.0/15, RFC 2544, is nobody's), and the connection to it is led to the proxy, which knows
the name again. A name that is not declared does not exist.
"""

import asyncio
from collections import OrderedDict
from ipaddress import IPv4Address
from typing import cast

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from bailee.flows.web.log import LogFailed, Way
from bailee.flows.web.rules import Refusal
from bailee.flows.web.sessions import Session
from bailee.flows.web.targets import Unreadable, read_target

FIRST = int(IPv4Address("198.18.0.1"))
# Names that have an address at a time; the one that was asked for longest ago gives its own up.
MOST_NAMES = 65_536
_SECONDS = 1


class Names:
    """Answers for names, and knows them by their addresses."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._addresses: OrderedDict[str, str] = OrderedDict()
        self._names: dict[str, str] = {}

    @property
    def delay(self) -> float:
        """For how many seconds an answer is held back."""
        return self._session.delay

    def find(self, address: str) -> str | None:
        """Return the name that an address stands for."""
        return self._names.get(address)

    def give(self, name: str) -> str:
        """Return the address that stands for a name."""
        if name in self._addresses:
            self._addresses.move_to_end(name)
            return self._addresses[name]
        if len(self._addresses) < MOST_NAMES:
            address = str(IPv4Address(FIRST + len(self._addresses)))
        else:
            _, address = self._addresses.popitem(last=False)
            del self._names[address]
        self._addresses[name] = address
        self._names[address] = name
        return address

    def answer(self, data: bytes) -> bytes | None:
        """Return the answer to a question; None where there is none to give."""
        try:
            asked = dns.message.from_wire(data)
            reply = dns.message.make_response(asked, recursion_available=True)
        except (dns.exception.DNSException, ValueError):
            return None
        if len(asked.question) != 1 or asked.opcode() != 0:
            reply.set_rcode(dns.rcode.REFUSED)
            return reply.to_wire()
        question = asked.question[0]
        name = question.name.to_text(omit_final_dot=True)
        if not self._is_known(name):
            reply.set_rcode(dns.rcode.NXDOMAIN)
        elif question.rdtype == dns.rdatatype.A and question.rdclass == dns.rdataclass.IN:
            given = self.give(name.lower())
            reply.answer.append(dns.rrset.from_text(question.name, _SECONDS, "IN", "A", given))
        return reply.to_wire()

    def _is_known(self, name: str) -> bool:
        try:
            host = read_target(name, 443).host
        except Unreadable:
            host = ""
        if host and not self._session.stopped_for and self._session.rules.decide_name(host):
            try:
                self._session.note_name(host)
            except LogFailed:
                return False
            return True
        refusal = Refusal("undeclared", "the name is not declared, so that it does not exist here")
        self._session.note_refused(0, Way.NAME, name, 53, refusal)
        return False


class NamesEndpoint(asyncio.DatagramProtocol):
    """Answers the questions that come to one socket."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, address: tuple[str | object, int]) -> None:
        if (answer := self._names.answer(data)) is None:
            return
        if wait := self._names.delay:
            asyncio.get_running_loop().call_later(wait, self._send, answer, address)
        else:
            self._transport.sendto(answer, address)

    def _send(self, answer: bytes, address: tuple[str | object, int]) -> None:
        if not self._transport.is_closing():
            self._transport.sendto(answer, address)
