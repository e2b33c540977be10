"""How a vendor is told to ask a language model of one's own, and what its requests say.

Only the shapes: each vendor's own words are in its `…_llm` file, and `llm` puts them into a spec.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class LlmEndpoint:
    """Where one agent asks for its words."""

    url: str
    """Of chat completions, complete."""
    key: str = field(repr=False)
    """The bearer token that opens this URL and no other."""
    model: str
    """The upstream's name: the vendor need not know which model is behind it."""
    patience_s: int
    """Seconds that may pass until the first word, a fallback's included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a request says of the agent that asks. Null: nothing, or no id that we could keep."""

    handle: str | None = None
    """The vendor's own name of the agent: what a stop needs."""
    round: str | None = None
    """The same in each request of one turn."""
    room_id: str | None = None
    user_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LlmForm:
    """One vendor's way to ask a model of one's own."""

    block: tuple[str, ...]
    """The keys that lead from the top of a spec to the object that describes the model."""
    required: Mapping[str, Any]
    """What makes the vendor ask as we understand it: in a spec the same, or nothing."""
    own: Callable[[LlmEndpoint], Mapping[str, Any]]
    """The address and the key, under the vendor's names: none of these may be in a spec."""
    defaults: Callable[[LlmEndpoint], Mapping[str, Any]]
    """What holds where a spec says nothing else."""
    read: Callable[[Mapping[str, str], Mapping[str, Any]], Asked]
    """Read a request's headers, with names in lower case, and its decoded body. Never raises."""
