"""An agent's address at the LLM gateway, and the token that opens it and no other."""

import base64
import hashlib
import hmac
import re
from dataclasses import fields, replace
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from orchestrator.providers.callbacks import ID_LIMIT
from orchestrator.providers.ticket import ROUTE, Ticket, derive_key, is_signed, read_ticket, sign

KEY = b"fake signing key"
TICKET = Ticket(
    upstream="main",
    account="volc",
    room_id="room 1/2",
    user_id="ü",
    task_id="call-1",
    incarnation=3,
    agent_id="0a1b",
)
NAMES = tuple(re.findall(r"\{(\w+)", ROUTE))

ids = st.text("aZ09-_.~%/\\{}?#:@ üé中🙂", min_size=1, max_size=20)
tickets = st.builds(
    Ticket,
    upstream=ids,
    account=ids,
    room_id=ids,
    user_id=ids,
    task_id=ids,
    incarnation=st.integers(min_value=0, max_value=2**31 - 1),
    agent_id=ids,
)


def segments(ticket: Ticket) -> dict[str, str]:
    """Return the segments of a ticket's path, decoded by the place that the route gives them."""
    written = ticket.path.removeprefix("/llm/").removesuffix("/chat/completions").split("/")
    return dict(zip(NAMES, map(unquote, written), strict=True))


def test_the_route_has_a_place_for_each_part_of_a_ticket() -> None:
    assert tuple(field.name for field in fields(Ticket)) == NAMES


def test_the_path_is_as_vendors_get_it() -> None:
    assert TICKET.path == "/llm/main/volc/room%201%2F2/%C3%BC/call-1/3/0a1b/chat/completions"


@given(tickets)
@example(replace(TICKET, room_id="..", user_id="."))
@example(replace(TICKET, room_id="%2F", user_id="{x}"))
def test_every_ticket_has_a_path_that_reads_back(ticket: Ticket) -> None:
    assert re.fullmatch(r"(/[A-Za-z0-9_.~%-]+){10}", ticket.path)
    # A segment of dots alone would be a step up, or none, to whoever tidies the URL.
    assert not {".", ".."} & set(ticket.path.split("/"))
    assert read_ticket(segments(ticket)) == ticket


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [None, "", "a\nb", "\ud800", "\x00", "\u202e", "é" * ID_LIMIT])
def test_what_no_agent_can_have_is_no_ticket(name: str, value: str | None) -> None:
    wrong: dict[str, Any] = {**segments(TICKET), name: value}
    if value is None:
        del wrong[name]
    assert read_ticket(wrong) is None


@pytest.mark.parametrize("number", ["-1", "+1", "01", "1.0", "1e3", " 1", "٣", "x", "9" * 11])
def test_an_incarnation_is_written_in_one_way(number: str) -> None:
    assert read_ticket({**segments(TICKET), "incarnation": number}) is None


@pytest.mark.parametrize("number", [0, 7, 2**31 - 1])
def test_an_incarnation_is_a_number(number: int) -> None:
    read = read_ticket({**segments(TICKET), "incarnation": str(number)})
    assert read == replace(TICKET, incarnation=number)


def test_a_token_is_an_hmac_of_the_path() -> None:
    words = b"orchestrator llm gateway 1\n" + TICKET.path.encode()
    digest = hmac.new(KEY, words, hashlib.sha256).digest()
    expected = "llm-" + base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    assert sign(TICKET, KEY) == expected


@given(tickets, st.binary(min_size=1, max_size=64))
def test_a_token_is_47_plain_characters_and_opens_its_own_path(ticket: Ticket, key: bytes) -> None:
    token = sign(ticket, key)
    assert re.fullmatch(r"llm-[A-Za-z0-9_-]{43}", token)
    assert is_signed(ticket, token, [key])


@pytest.mark.parametrize(
    "other",
    [
        replace(TICKET, upstream="dear"),
        replace(TICKET, account="volc2"),
        replace(TICKET, room_id="room 1", user_id="2/ü"),
        replace(TICKET, user_id="u"),
        replace(TICKET, task_id="call-2"),
        replace(TICKET, incarnation=4),
        replace(TICKET, agent_id="0a1c"),
    ],
)
def test_a_token_opens_no_other_path(other: Ticket) -> None:
    assert not is_signed(other, sign(TICKET, KEY), [KEY])


def test_any_of_the_keys_will_do() -> None:
    token = sign(TICKET, KEY)
    assert is_signed(TICKET, token, [b"newer", KEY])
    assert not is_signed(TICKET, token, [b"newer"])
    assert not is_signed(TICKET, token, [])


@pytest.mark.parametrize("token", ["", "llm-", "llm-" + "A" * 43, "ü" * 47, "\ud800", "llm-\x00"])
def test_a_wrong_token_is_no_error(token: str) -> None:
    assert not is_signed(TICKET, token, [KEY])


def test_a_token_is_compared_whole() -> None:
    token = sign(TICKET, KEY)
    for wrong in (token[:-1], token + "=", token + "A", token.upper(), f" {token}"):
        assert not is_signed(TICKET, wrong, [KEY])


def test_each_account_has_a_key_of_its_own() -> None:
    keys = {
        derive_key(secret, account)
        for secret in ("fake-one", "fake-two", "")
        for account in ("volc", "zego", "ü")
    }
    assert len(keys) == 9
    assert {len(key) for key in keys} == {32}
    assert derive_key("fake-one", "volc") == derive_key("fake-one", "volc")
