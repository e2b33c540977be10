"""What is counted at the LLM gateway: turns, words' delays, tokens, and whom it refused.

Rule 1: a label is a word of ours or of the configuration. Who is not believed chooses none.
Rule 2: the log has at most one line a minute for each upstream, and each account and refusal.
"""

from collections.abc import Hashable, Sequence
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from orchestrator.clock import boot_ns
from orchestrator.daemon.llm.refusal import Refusal
from orchestrator.store.llm_turns import Turn

TELL_EVERY_NS: Final = 60_000_000_000
FIRST_TOKEN_SECONDS: Final = (0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.2, 2.0, 3.0, 4.0, 6.0, 10.0)
"""Fine where a user begins to notice."""

log = structlog.get_logger(__name__)


class LlmMeter:
    """The instruments of the gateway of one daemon."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._turns = Counter(
            "orchestrator_llm_turns",
            "Requests of agents by what they came to (llm_turn.outcome).",
            ("account", "upstream", "outcome"),
            registry=registry,
        )
        self._refused = Counter(
            "orchestrator_llm_refused",
            "Requests that were not served. forged: a token that is not the agent's; stranger: no "
            "such account, under account ''.",
            ("account", "why"),
            registry=registry,
        )
        self._first_token = Histogram(
            "orchestrator_llm_first_token_seconds",
            "From a request to the first word of its answer.",
            ("upstream",),
            registry=registry,
            buckets=FIRST_TOKEN_SECONDS,
        )
        self._fallbacks = Counter(
            "orchestrator_llm_fallbacks",
            "Turns in which this upstream stood in for another, whatever came of it.",
            ("upstream",),
            registry=registry,
        )
        self._gave_up = Counter(
            "orchestrator_llm_gave_up",
            "Turns that this upstream did not answer, or not to the end, whoever did.",
            ("upstream",),
            registry=registry,
        )
        self._tokens = Counter(
            "orchestrator_llm_tokens",
            "Tokens as the upstreams count them.",
            ("account", "upstream", "kind"),
            registry=registry,
        )
        self.open = Gauge(
            "orchestrator_llm_turns_open", "Requests that have not ended.", registry=registry
        )
        self._told_ns: dict[Hashable, int] = {}

    def count(self, turn: Turn, gave_up: Sequence[str]) -> None:
        """Count a turn that has ended; `gave_up`: upstreams that did not answer it."""
        self._turns.labels(turn.account, turn.upstream, turn.outcome.value).inc()
        if turn.first_token_ms is not None:
            self._first_token.labels(turn.upstream).observe(turn.first_token_ms / 1000)
        if turn.is_fallback:
            self._fallbacks.labels(turn.upstream).inc()
        for upstream in gave_up:
            self._gave_up.labels(upstream).inc()
        if gave_up and self._is_time_to_tell(gave_up[0]):
            log.warning("llm_upstream_failing", upstream=gave_up[0], reason=turn.reason)
        tokens = (("prompt", turn.prompt_tokens), ("completion", turn.completion_tokens))
        for kind, count in tokens:
            if count:
                self._tokens.labels(turn.account, turn.upstream, kind).inc(count)

    def refuse(self, account: str, refusal: Refusal) -> None:
        """Count a refusal; say so, once a minute."""
        self._refused.labels(account, refusal.word).inc()
        if self._is_time_to_tell((account, refusal)):
            log.warning("llm_refused", account=account, why=refusal.word, message=refusal.sentence)

    def _is_time_to_tell(self, what: Hashable) -> bool:
        """Return whether nothing was said of this for a minute."""
        now_ns = boot_ns()
        if now_ns < self._told_ns.get(what, 0):
            return False
        self._told_ns[what] = now_ns + TELL_EVERY_NS
        return True
