"""Mistakes in the configuration that only two keys together make.

Rule 1: this looks at the file, not at the values, so that they are reported along with all others;
what is no number or no table is somebody else's mistake, and passed over here.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from orchestrator.providers.base import Problem

LEASE_MARGIN_MS: Final = 2_000
"""What a lease must be longer than a call: time to announce before it and to settle after it."""


def find_contradictions(written: Mapping[str, Any]) -> tuple[Problem, ...]:
    """Return the mistakes in a file that was read, in no order."""
    return (
        *_slow_calls(written),
        *_falling_retries(written),
        *_shared_places(written),
        *_lost_gateways(written),
        *_lost_fallbacks(written),
    )


def _slow_calls(written: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield the accounts whose calls may outlast a lease, or the signature that they carry."""
    lease_ms = _number(written, "leases", "ttl_s", 15) * 1_000
    accounts = written.get("accounts")
    for name, account in accounts.items() if isinstance(accounts, dict) else ():
        call_ms = _number({"": account}, "", "call_timeout_ms", 10_000)
        life_ms = _number({"": account}, "", "signature_life_s", 90) * 1_000
        longest = min(lease_ms - LEASE_MARGIN_MS, life_ms)
        if call_ms > longest:
            path = f"accounts.{name}.call_timeout_ms"
            expected = f"at most {longest} (leases.ttl_s less 2 s, and signature_life_s)"
            yield Problem(path=path, expected=expected, found=str(call_ms))


def _falling_retries(written: Mapping[str, Any]) -> Iterator[Problem]:
    base_ms = _number(written, "retry", "base_ms", 500)
    cap_ms = _number(written, "retry", "cap_ms", 60_000)
    if cap_ms < base_ms:
        expected = f"at least retry.base_ms ({base_ms})"
        yield Problem(path="retry.cap_ms", expected=expected, found=str(cap_ms))


def _shared_places(written: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield the places at which two servers should listen."""
    taken: dict[str, str] = {}
    for name in ("callbacks", "llm_gateway", "metrics"):
        place = _table(written, name).get("listen")
        if not isinstance(place, str) or place.endswith(":0"):
            continue
        first = taken.setdefault(place, name)
        if first != name:
            expected = f"another place than {first}.listen"
            yield Problem(path=f"{name}.listen", expected=expected, found=f'"{place}"')


def _lost_gateways(written: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield what a gateway lacks: its place as the vendors know it, or its present secret."""
    table = _table(written, "llm_gateway")
    if "listen" in table and "public_url" not in table:
        expected = "the URL by which the vendors reach llm_gateway.listen"
        yield Problem(path="llm_gateway.public_url", expected=expected, found="nothing")
    if "former_token_secret" in table and "token_secret" not in table:
        expected = "the token_secret after llm_gateway.former_token_secret"
        yield Problem(path="llm_gateway.token_secret", expected=expected, found="nothing")


def _lost_fallbacks(written: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield upstreams whose fallback is none."""
    upstreams = _table(written, "llm_upstreams")
    for name in upstreams:
        fallback = _table(upstreams, name).get("fallback")
        if isinstance(fallback, str) and (fallback == name or fallback not in upstreams):
            expected = "the name of another upstream under [llm_upstreams]"
            path = f"llm_upstreams.{name}.fallback"
            yield Problem(path=path, expected=expected, found=f'"{fallback}"')


def _table(written: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a table; an empty one for what is none, which is reported elsewhere."""
    value = written.get(name)
    return value if isinstance(value, dict) else {}


def _number(written: Mapping[str, Any], table: str, key: str, default: int) -> int:
    value = _table(written, table).get(key, default)
    # What is no number is reported as such elsewhere.
    return value if type(value) is int else default
