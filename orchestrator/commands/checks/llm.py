"""Whether the LLM gateway can do its work: where the vendors find it, and the models behind it.

Rule 1: an upstream is asked nothing: a request without a key and without words. Whatever is
answered, somebody is there. Of a URL the place is shown, never the path or a header.
Rule 2: all upstreams are asked side by side, and none for longer than `WITHIN_NS`.
"""

import ipaddress
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final
from urllib.parse import urlsplit

import anyio

from orchestrator import settings
from orchestrator.clock import boot_ns, utc_now
from orchestrator.commands.checks.finding import Finding
from orchestrator.config import Config
from orchestrator.core.model import WorkClass
from orchestrator.core.outcome import Indefinite, NotSent
from orchestrator.daemon.transport import Transport
from orchestrator.providers.base import Request

WITHIN_NS: Final = 10_000_000_000

_TLS_ADVICE: Final = (
    "the gateway trusts whom this machine trusts: install the authority that signed its "
    "certificate, or use the name that the certificate is for"
)


async def judge_llm(config: Config) -> Sequence[Finding]:
    """Return what is to be said about the gateway, then a finding for each upstream.

    A configuration with neither has nothing to be said about.
    """
    gateway, upstreams = config.llm_gateway, config.llm_upstreams
    if gateway.listen is None:
        return list(_judge_unasked(upstreams))
    return [*_judge_gateway(gateway, upstreams), *await _judge_upstreams(upstreams)]


def _judge_unasked(upstreams: Collection[str]) -> Iterator[Finding]:
    """Yield that there are models which nobody can ask."""
    if upstreams:
        told = f"llm_upstreams {', '.join(upstreams)}: no gateway, so no agent can ask them"
        yield Finding("warning", told, "set llm_gateway.listen and public_url, or take them away")


def _judge_gateway(gateway: settings.LlmGateway, upstreams: Collection[str]) -> Iterator[Finding]:
    yield _judge_public_url(gateway.public_url or "")
    if gateway.token_secret is None:
        told = "llm_gateway.token_secret: none, so agents' tokens are made with the accounts' keys"
        advice = "set it: else running agents are mute from when their account's key is changed"
        yield Finding("warning", told, advice)
    if not upstreams:
        told = "llm_gateway: no upstream, so no spec can name one"
        yield Finding("warning", told, "add a table [llm_upstreams.<name>]")


def _judge_public_url(url: str) -> Finding:
    """Return whether what is said reaches the gateway in private."""
    parts = urlsplit(url)
    what = f"llm_gateway.public_url {url}"
    if parts.scheme == "https":
        return Finding("well", f"{what}: with TLS")
    if _is_loopback(parts.hostname or ""):
        return Finding("well", f"{what}: without TLS, on this machine alone")
    # Volcengine refuses such a URL unless the start says Feature {"Http": true}; ours then does.
    advice = "put a proxy with TLS in front: tokens and all that is said can be read on the way"
    return Finding("warning", f"{what}: without TLS", advice)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def _judge_upstreams(upstreams: Mapping[str, settings.LlmUpstream]) -> Sequence[Finding]:
    found: dict[str, Finding] = {}

    async def judge(name: str) -> None:
        found[name] = await judge_upstream(name, upstreams[name].url)

    async with anyio.create_task_group() as asking:
        for name in upstreams:
            asking.start_soon(judge, name)
    return [found[name] for name in upstreams]


async def judge_upstream(name: str, url: str) -> Finding:
    """Return whether anybody answers at the place of an upstream."""
    parts = urlsplit(url)
    place = f"{parts.scheme}://{parts.netloc}"
    request = Request(action="", method="GET", url=f"{place}/", headers={}, body=b"")
    async with Transport(now=utc_now, on_date=lambda *_: None) as transport:
        reply = await transport.send(
            request, deadline_ns=boot_ns() + WITHIN_NS, work_class=WorkClass.OBSERVE
        )
    what = f"upstream {name}: {place}"
    if isinstance(reply, NotSent | Indefinite):
        is_tls = reply.code == "TlsFailed"
        advice = _TLS_ADVICE if is_tls else "is its url right, and may this machine reach it?"
        return Finding("trouble", f"{what}: {reply.code}: {reply.message}", advice)
    return Finding("well", f"{what}: reachable")
