"""What a daemon knows of its accounts: how a decision sees them, probes, breakers, clocks."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from orchestrator.core.outcome import Done, Indefinite
from orchestrator.daemon.book import DENIED_RETRY, OFFSETS_KEPT, PROBE_WITHIN, Book, Keys
from orchestrator.store.accounts import Standing
from tests.store.claiming import make_book, providers, runtime

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def standing(**changes: Any) -> Standing:
    values: dict[str, Any] = {
        "account": "volc",
        "paused": False,
        "frozen": False,
        "max_agents": None,
        "retry_at": None,
        "denied_code": None,
        "denied_since": None,
        "probe_at": None,
        "undated": False,
    }
    return Standing(**(values | changes))


def denied(retry_at: datetime | None = None, **changes: Any) -> Standing:
    """An account that was denied at NOW."""
    told = {"denied_code": "E", "denied_since": NOW, "probe_at": NOW + DENIED_RETRY}
    return standing(**(told | {"retry_at": retry_at} | changes))


def test_without_a_standing_an_account_is_as_configured() -> None:
    account = make_book("volc").account("volc", None, NOW)
    assert (account.paused, account.denied_until, account.backdated) == (False, None, True)
    assert account.amnesty_at == NOW


def test_the_operator_s_switches_are_seen() -> None:
    account = make_book("volc").account("volc", standing(paused=True, frozen=True), None)
    assert (account.paused, account.frozen) == (True, True)


def test_signatures_that_were_not_believed_are_undated() -> None:
    account = make_book("volc").account("volc", standing(undated=True), None)
    assert account.send_life == account.caps.signature_window


@pytest.mark.parametrize(
    ("found", "until"),
    [
        (standing(), None),
        (denied(), NOW + DENIED_RETRY),
        # A word of before the denial is about an earlier one.
        (denied(NOW - SECOND), NOW + DENIED_RETRY),
        (denied(NOW + SECOND), NOW + SECOND),
        # A probe was sent after the operator's word: it has been followed.
        (
            denied(NOW + SECOND, probe_at=NOW + 2 * SECOND + DENIED_RETRY),
            NOW + 2 * SECOND + DENIED_RETRY,
        ),
        # Later than the next probe: no reason to wait longer.
        (denied(NOW + timedelta(days=1)), NOW + DENIED_RETRY),
        (denied(probe_at=None), None),
    ],
)
def test_when_a_denied_account_is_tried(found: Standing, until: datetime | None) -> None:
    assert make_book("volc").account("volc", found, None).denied_until == until


@pytest.mark.parametrize(("ours", "theirs", "most"), [(5, None, 5), (5, 3, 3), (None, 0, 0)])
def test_the_operator_s_number_wins(ours: int | None, theirs: int | None, most: int) -> None:
    book = make_book("volc", max_agents=ours)
    assert book.max_agents("volc", standing(max_agents=theirs)) == most


def test_a_breaker_that_opens_holds_starts_back_and_a_probe_holds_them_longer() -> None:
    book = make_book("volc")
    for n in range(100):
        book.record("volc", Indefinite(code="Timeout"), NOW + n * SECOND)
    assert book.breaker("volc").is_open
    assert book.account("volc", None, None).circuit_open_until is not None
    later = NOW + timedelta(hours=1)
    book.hold_probe("volc", later)
    assert book.account("volc", None, None).circuit_open_until == later + PROBE_WITHIN
    before, after = book.record("volc", Done(handle="h"), later)
    assert (before.is_open, after.is_open) == (True, False)


def test_a_closed_breaker_is_held_by_no_probe() -> None:
    book = make_book("volc")
    book.hold_probe("volc", NOW)
    assert book.account("volc", None, None).circuit_open_until is None


def test_one_slow_answer_does_not_move_a_clock() -> None:
    book = make_book("volc")
    assert book.offset("volc") == timedelta(0)
    for offset in (1, 1, 90, 1, 1):
        book.note_offset(book.runtimes["volc"].host, offset * SECOND)
    assert book.offset("volc") == SECOND


def test_a_clock_that_was_set_is_believed_after_a_few_answers() -> None:
    book = make_book("volc")
    for offset in (0,) * 20 + (30,) * OFFSETS_KEPT:
        book.note_offset(book.runtimes["volc"].host, offset * SECOND)
    assert book.offset("volc") == 30 * SECOND


def test_an_account_that_a_reload_removed_serves_its_calls_in_flight() -> None:
    book = Book(Keys(accounts={"volc": runtime("volc", providers()["volc"])}, secrets={"k": "1"}))
    book.renew(Keys(accounts={"other": runtime("other", providers()["other"])}, secrets={"k": "2"}))
    assert (book.names, book.secrets) == (["other"], {"k": "2"})
    assert book.runtime("volc").account.name == "volc"


def test_a_token_outlives_the_reloads_after_its_key_was_rotated() -> None:
    book = make_book("volc")
    before = book.token_keys("volc")
    (present,) = book.runtimes.values()
    rotated = Keys(
        accounts={"volc": replace(present, token_secret="fake-rotated")}, secrets=book.secrets
    )
    for _ in range(3):
        book.renew(rotated)
    assert book.token_keys("volc")[1:] == before
    assert book.token_keys("volc")[0] not in before
