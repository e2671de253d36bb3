"""The rehearsal model: plays scripts with tool use and streaming, the same way every time, offline."""

from bailee.flows.messages.rehearsal.application import Ending, Received, answer, create_application
from bailee.flows.messages.rehearsal.performances import Performance, respond

__all__ = ["Ending", "Performance", "Received", "answer", "create_application", "respond"]
