"""One request of an agent's, as far as it is understood."""

from dataclasses import dataclass, field

from aiohttp import web

from orchestrator.providers.chat import ChatRequest
from orchestrator.providers.llm_form import Asked
from orchestrator.providers.ticket import Ticket


@dataclass(slots=True, kw_only=True)
class Visit:
    """A request whose token is this agent's."""

    request: web.Request
    ticket: Ticket
    began_ns: int
    headers: dict[str, str]
    """Names in lower case."""
    chat: ChatRequest | None = None
    """What is asked; null before it is read, and when a turn has taken it."""
    asked: Asked = field(default_factory=Asked)
    try_: int = 1
    user_text: str | None = None
    reserved: int = 0
    """Bytes of the budget that are kept for it."""
    is_written: bool = False

    def take_chat(self) -> ChatRequest:
        """Hand over what is asked: a turn may last for a minute, and a history is large."""
        assert self.chat is not None  # noqa: S101 - taken once, after it was read
        chat, self.chat = self.chat, None
        return chat
