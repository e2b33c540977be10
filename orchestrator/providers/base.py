"""What every vendor adapter is: conversations that yield requests and return an outcome.

Rule 1: an adapter knows its vendor, and nothing of rows, databases, retries or the other vendors.
Rule 2: it is pure. The time, the nonces and the secrets are parameters.
Rule 3: a conversation never sends a request twice. What to do about an unknown outcome is decided
elsewhere.
"""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from orchestrator.core.caps import Caps
from orchestrator.core.command import Command
from orchestrator.core.fact import Fact
from orchestrator.core.model import Agent, Verb
from orchestrator.core.outcome import Indefinite, NotSent, Outcome, Refused
from orchestrator.providers.llm_form import LlmForm


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One HTTP request, complete to the byte: nothing may be added to what is signed."""

    action: str
    """The vendor's name of it; also the name of its rate limit."""
    method: str
    url: str
    """Scheme, host, port, path and query, already percent-encoded."""
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """What came back, the body bounded and whole."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes


Reply = Response | NotSent | Indefinite
"""What a request comes to. Where there is no response, the transport's verdict stands for it."""

Conversation = Generator[Request, Reply, Outcome]

UNNAMED = Refused(code="Unnamed", message="neither a handle nor a name says whom to ask about")
"""What becomes of a call about an agent of which too little is known to ask the vendor."""


def without_asking(outcome: Outcome) -> Conversation:
    """Hold a conversation without a request."""
    yield from ()
    return outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """One callback as it came in: nothing of it is believed yet."""

    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes
    """Raw: signatures are judged on these bytes."""
    received_at: datetime
    """UTC, by the vendor's clock as far as it is known."""


@dataclass(frozen=True, slots=True)
class Forged:
    """A callback that this account's vendor did not sign, or that cannot be judged."""

    why: str
    """For the log: never holds what was received."""


@dataclass(frozen=True, slots=True)
class Garbled:
    """A callback that is not what the vendor documents."""

    why: str
    """For the log: never holds what was received."""


Heard = tuple[Fact, ...] | Forged | Garbled
"""What a callback comes to. No facts: a genuine one that says nothing of an agent's life."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """What a signature needs and purity forbids us to fetch."""

    signed_at: datetime
    """UTC. For a start: its announce, backdated (see `Account.send_life`); else the present."""
    nonce: Callable[[], str]
    """16 lower-case hex characters, new at each call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One mistake in what the application wrote: where, what was expected, what was found."""

    path: str
    expected: str
    found: str

    def __str__(self) -> str:
        """Return the sentence that people read in `agent_status.message`."""
        return f"{self.path}: expected {self.expected}, found {self.found}"


Spec = Mapping[str, Any]
"""The vendor's own start body in the vendor's field names, secrets already resolved."""


class Provider(Protocol):
    """One account at one vendor. Built from configuration; holds its keys; shows them to nobody."""

    caps: Caps
    limits: Mapping[str, int]
    """The vendor's documented calls per second for each action."""
    llm: LlmForm
    """How the vendor is told to ask a language model of one's own."""

    @property
    def site(self) -> str:
        """Where this account's agents live, as canonical JSON for the ledger. Holds no secret.

        Keys: provider, endpoint, region, app_id, api_version (those that the vendor has).
        """
        ...

    def at(self, site: str) -> "Provider":
        """Return this account as it was configured when `site` was written, with today's keys."""
        ...

    def action(self, verb: Verb) -> str:
        """Return the vendor's action that the first request of `verb` counts against."""
        ...

    def agent_user_id(self, spec: Spec) -> str | None:
        """Return the agent's user id that the spec asks for, if it does."""
        ...

    def problems(self, agent: Agent, spec: Spec) -> tuple[Problem, ...]:
        """Return everything the vendor would refuse about this start, without asking it."""
        ...

    def body(self, agent: Agent, spec: Spec) -> bytes:
        """Return what `start` would send, less signatures and what changes with time.

        Two starts of one agent are the same start if and only if these bytes are equal.
        """
        ...

    def start(self, agent: Agent, spec: Spec, stamp: Stamp) -> Conversation:
        """Start the agent. `Done.handle` is the stop handle."""
        ...

    def stop(self, agent: Agent, stamp: Stamp) -> Conversation:
        """Stop it by its handle, or by its name where the handle is a name of ours."""
        ...

    def find(self, agent: Agent, stamp: Stamp) -> Conversation:
        """Ask for it by its name. `Done.handle` if the vendor tells it."""
        ...

    def kick(self, agent: Agent, stamp: Stamp) -> Conversation:
        """Remove the agent's user id from its room."""
        ...

    def poll(self, agent: Agent, stamp: Stamp) -> Conversation:
        """Ask whether an agent whose handle is known is still there."""
        ...

    def command_action(self, command: Command) -> str | None:
        """Return the vendor's action that a command counts against; null: it has no such thing."""
        ...

    def command_problems(self, command: Command) -> tuple[Problem, ...]:
        """Return everything the vendor would refuse about this command, without asking it."""
        ...

    def command(self, agent: Agent, command: Command, stamp: Stamp) -> Conversation:
        """Carry out a command on a running agent. `Done.result` is what the vendor returned.

        Of a listening command `sequence` is set. `Gone`: the agent is not there (any more).
        """
        ...

    def hear(self, post: Post) -> Heard:
        """Judge a callback on its raw bytes, and return what it tells of agents.

        `Fact.event_at` is by the vendor's clock, and never later than `post.received_at`. Without
        a callback secret everything is forged.
        """
        ...

    def missing(self, agent: Agent) -> tuple[str, ...]:
        """Return the columns of `orphan_task` that a stop of this agent lacks; none: it can go."""
        ...

    def fixed_body(self, agent: Agent, spec: Spec) -> bytes:
        """Return that part of `body` which no update of a running agent can change.

        Two specs with equal fixed parts differ only in what `update` can bring about.
        """
        ...

    def update(self, agent: Agent, spec: Spec, stamp: Stamp) -> Conversation:
        """Bring a running agent to this spec in place."""
        ...
