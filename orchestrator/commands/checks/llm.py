"""Whether the LLM gateway can do its work: where the vendors find it, and the models behind it.

Rule 1: an upstream is asked which models it has, with its key and without words: nothing is paid
for. Not all can say; then only a turn tells whether the key is right. Of a URL the place is shown,
never the path or a header.
Rule 2: all upstreams are asked side by side, and none for longer than `WITHIN_NS`.
"""

import ipaddress
from collections.abc import Collection, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

import anyio

from orchestrator import settings
from orchestrator.app import COMPLETIONS, build_upstreams
from orchestrator.clock import boot_ns, utc_now
from orchestrator.commands.checks.finding import Finding
from orchestrator.config import Config
from orchestrator.core.model import WorkClass
from orchestrator.core.outcome import Indefinite, NotSent
from orchestrator.daemon.llm.frame import Upstream
from orchestrator.daemon.transport import Transport
from orchestrator.providers.base import Request

WITHIN_NS: Final = 10_000_000_000
SECRET_LENGTH: Final = 32
"""Characters of a secret that nobody guesses, whatever it is made of."""
_REFUSALS: Final = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})

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
    asked = await _judge_upstreams(build_upstreams(config))
    return [*_judge_gateway(gateway, upstreams), *asked]


def _judge_unasked(upstreams: Collection[str]) -> Iterator[Finding]:
    """Yield that there are models which nobody can ask."""
    if upstreams:
        told = f"llm_upstreams {', '.join(upstreams)}: no gateway, so no agent can ask them"
        yield Finding("warning", told, "set llm_gateway.listen and public_url, or take them away")


def _judge_gateway(gateway: settings.LlmGateway, upstreams: Collection[str]) -> Iterator[Finding]:
    yield _judge_public_url(gateway.public_url or "")
    if gateway.token_secret is not None and len(gateway.token_secret.reveal()) < SECRET_LENGTH:
        told = f"llm_gateway.token_secret: shorter than {SECRET_LENGTH} characters"
        yield Finding("warning", told, "draw a longer one: openssl rand -hex 32")
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


async def _judge_upstreams(upstreams: Mapping[str, Upstream]) -> Sequence[Finding]:
    found: dict[str, Finding] = {}

    async def judge(name: str) -> None:
        found[name] = await judge_upstream(upstreams[name])

    async with anyio.create_task_group() as asking:
        for name in upstreams:
            asking.start_soon(judge, name)
    return [found[name] for name in upstreams]


async def judge_upstream(upstream: Upstream) -> Finding:
    """Return whether an upstream answers, and takes its key as far as it says so."""
    parts = urlsplit(upstream.url)
    what = f"upstream {upstream.name}: {parts.scheme}://{parts.netloc}"
    url = upstream.url.removesuffix(COMPLETIONS) + "/models"
    request = Request(action="", method="GET", url=url, headers=upstream.headers, body=b"")
    async with Transport(now=utc_now, on_date=lambda *_: None) as transport:
        reply = await transport.send(
            request, deadline_ns=boot_ns() + WITHIN_NS, work_class=WorkClass.OBSERVE
        )
    if isinstance(reply, NotSent | Indefinite):
        is_tls = reply.code == "TlsFailed"
        advice = _TLS_ADVICE if is_tls else "is its url right, and may this machine reach it?"
        return Finding("trouble", f"{what}: {reply.code}: {reply.message}", advice)
    if reply.status in _REFUSALS:
        advice = "is its api_key the right one, and does it need headers?"
        return Finding("trouble", f"{what}: refuses the key (HTTP {reply.status})", advice)
    if reply.status == HTTPStatus.OK:
        return Finding("well", f"{what}: takes the key")
    told = f"reachable (HTTP {reply.status}); a turn will tell whether key and path are right"
    return Finding("well", f"{what}: {told}")
