"""What a spec's own words stand for: for whom, in which order, and what is said of the others."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from orchestrator.core.model import Agent
from orchestrator.daemon.book import Book, Keys
from orchestrator.daemon.listening import Listen
from orchestrator.daemon.llm.frame import LlmFrame, Upstream
from orchestrator.daemon.spelling import PROBLEMS_SHOWN, Misspelt, Speaker, resolve, say, spell
from orchestrator.providers.base import Problem
from orchestrator.providers.ticket import Ticket, is_signed
from tests.store.claiming import providers, runtime

ZEGO = providers()["zego"]
PUBLIC_URL = "https://bots.example"
AGENT = Agent(
    id="agent-1",
    incarnation=2,
    try_=1,
    account="zego",
    site=ZEGO.site,
    room_id="room",
    user_id="human",
    name="bot",
    session_name="session-1",
    stream_id="stream-1",
    announced_at=datetime(2026, 1, 2, tzinfo=UTC),
)
SPEAKER = Speaker(task_id="call", agent=AGENT, provider=ZEGO)
TICKET = Ticket(
    upstream="main",
    account="zego",
    room_id="room",
    user_id="human",
    task_id="call",
    incarnation=2,
    agent_id="agent-1",
)


def upstream(name: str) -> Upstream:
    return Upstream(
        name=name,
        url="https://models.example/v1/chat/completions",
        headers={},
        model=None,
        fallback=None,
        pass_fields=(),
        pass_headers=(),
        counts_tokens=True,
    )


FRAME = LlmFrame(
    listen=Listen(key="llm_gateway.listen", host="127.0.0.1", port=1),
    public_url=PUBLIC_URL,
    token_secrets=("fake-token-secret",),
    max_body_bytes=1_000,
    first_token_timeout=timedelta(seconds=4),
    total_timeout=timedelta(seconds=60),
    apology="",
    keep_text=False,
)


def book(llm: LlmFrame | None = FRAME) -> Book:
    keys = Keys(
        accounts={"zego": runtime("zego", ZEGO)},
        secrets={"model-key": "fake-key", "name": "main"},
        upstreams={"main": upstream("main")},
    )
    return Book(keys, llm)


def asking(name: Any = "main", **more: Any) -> dict[str, Any]:
    return {"AgentId": "a", "LLM": {"$llm_gateway": name}, **more}


def test_secrets_and_the_address_of_this_agent_are_spelled_out() -> None:
    known = book()
    spelt = spell(asking(TTS={"key": {"$secret": "model-key"}}), known, SPEAKER)
    assert isinstance(spelt, Mapping)
    assert spelt["TTS"] == {"key": "fake-key"}
    assert spelt["LLM"]["Url"] == PUBLIC_URL + TICKET.path
    assert is_signed(TICKET, spelt["LLM"]["ApiKey"], known.token_keys("zego"))


def test_it_is_the_same_at_each_call() -> None:
    assert spell(asking(), book(), SPEAKER) == spell(asking(), book(), SPEAKER)


@pytest.mark.parametrize(
    ("spec", "reason", "path"),
    [
        (asking(TTS={"$secret": "nobody-s"}), "UnknownSecret", "spec.TTS"),
        (asking("dear", TTS={"$secret": "nobody-s"}), "UnknownSecret", "spec.TTS"),
        (asking("dear"), "UnknownUpstream", "spec.LLM.$llm_gateway"),
        (asking(7), "InvalidSpec", "spec.LLM.$llm_gateway"),
        # A name out of the secrets is none: it would be written to the database.
        (asking({"$secret": "name"}), "InvalidSpec", "spec.LLM.$llm_gateway"),
        (asking(TTS={"$llm_gateway": "main"}), "InvalidSpec", "spec.TTS.$llm_gateway"),
        ({"LLM": {"$llm_gateway": "main", "Url": "x"}}, "InvalidSpec", "spec.LLM.Url"),
    ],
)
def test_words_that_stand_for_nothing_have_a_reason(
    spec: dict[str, Any], reason: str, path: str
) -> None:
    spelt = spell(spec, book(), SPEAKER)
    assert isinstance(spelt, Misspelt)
    assert (spelt.reason, [problem.path for problem in spelt.problems]) == (reason, [path])
    assert spelt.message.startswith(f"{path}: expected ")


def test_without_a_gateway_no_upstream_is_known() -> None:
    spelt = spell(asking(), book(llm=None), SPEAKER)
    assert isinstance(spelt, Misspelt)
    assert spelt.reason == "UnknownUpstream"


def test_secrets_alone_need_no_agent() -> None:
    spec = asking(TTS={"$secret": "model-key"})
    assert resolve(spec, book()) == asking(TTS="fake-key")


@pytest.mark.parametrize("number", [1, PROBLEMS_SHOWN, PROBLEMS_SHOWN + 3])
def test_a_few_problems_are_shown_and_all_are_counted(number: int) -> None:
    problems = tuple(Problem(path=f"p{n}", expected="x", found="y") for n in range(number))
    said = say(problems).split("; ")
    assert said[:PROBLEMS_SHOWN] == [str(problem) for problem in problems[:PROBLEMS_SHOWN]]
    assert said[PROBLEMS_SHOWN:] == (["and 3 more"] if number > PROBLEMS_SHOWN else [])
