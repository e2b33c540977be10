import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.log import HIDDEN, Edge, Redactor, configure, context, logger
from orchestrator.settings import Log

SECRET = "fake-p/ss \"w\\rd' ü"


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


class Lines(io.StringIO):
    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.getvalue().splitlines()]


def begin(level: Any = "debug", form: Any = "json", secrets: tuple[str, ...] = (SECRET,)) -> Lines:
    lines = Lines()
    configure(Log(level=level, format=form), Redactor(secrets), lines)
    return lines


def test_a_line_has_time_level_and_the_context_of_its_task() -> None:
    lines = begin()
    with context(task_id="call-1", account="main", incarnation=2):
        logger("orchestrator.test").info("announced", action="StartVoiceChat")
    logger("orchestrator.test").info("after")
    first, second = lines.objects()
    assert first.pop("at").endswith("Z")
    assert first == {
        "event": "announced",
        "level": "info",
        "source": "orchestrator.test",
        "task_id": "call-1",
        "account": "main",
        "incarnation": 2,
        "action": "StartVoiceChat",
    }
    assert "task_id" not in second


def test_libraries_go_through_the_same_chain() -> None:
    lines = begin()
    with context(task_id="call-1"):
        logging.getLogger("aiohttp.client").warning("lost %s", SECRET)
    (line,) = lines.objects()
    assert line.pop("at")
    assert line == {
        "event": f"lost {HIDDEN}",
        "level": "warning",
        "source": "aiohttp.client",
        "task_id": "call-1",
    }


@pytest.mark.parametrize("name", ["sqlalchemy.engine.Engine", "asyncio"])
def test_libraries_that_show_rows_say_nothing_below_a_warning(name: str) -> None:
    lines = begin("debug")
    logging.getLogger(name).info("INSERT INTO agent_task VALUES ('…')")
    logging.getLogger(name).warning("trouble")
    assert [line["event"] for line in lines.objects()] == ["trouble"]


class Opaque:
    def __repr__(self) -> str:
        return f"Opaque({SECRET!r})"


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize(
    "value",
    [
        SECRET,
        f"before {SECRET} after",
        {"spec": {"LLMConfig": [{"x": SECRET}]}},
        [SECRET, (SECRET,)],
        {SECRET: 1},
        Opaque(),
        f"https://host/?k={SECRET}",
    ],
    ids=repr,
)
def test_a_known_secret_is_in_no_line(form: str, value: Any) -> None:
    lines = begin(form=form)
    logger("test").info("said", value=value)
    logging.getLogger("library").error("said %r", value)
    text = lines.getvalue()
    assert HIDDEN in text
    assert "fake-p" not in text
    assert "ss \\" not in text


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_known_secret_is_in_no_traceback(form: str) -> None:
    lines = begin(form=form)
    try:
        raise ValueError(SECRET)  # noqa: TRY301 - the traceback is what is looked at
    except ValueError:
        logger("test").exception("failed")
        logging.getLogger("library").exception("failed")
    text = lines.getvalue()
    assert text.count("Traceback") == 2
    assert text.count(HIDDEN) >= 2
    assert "fake-p" not in text


@pytest.mark.parametrize(
    "key",
    ["secret_key", "SecretKey", "APIKey", "usersig", "Authorization", "session_token", "password",
     "access_key_id", "AccessKeyId", "Signature", "server_secret"],
)  # fmt: skip
def test_what_stands_under_a_key_that_looks_secret_is_hidden_at_any_depth(key: str) -> None:
    lines = begin(secrets=())
    logger("test").info("said", **{key: "fake-value"}, deep=[{"a": ({key: ["fake-value"]},)}])
    (line,) = lines.objects()
    assert line[key] == HIDDEN
    assert line["deep"] == [{"a": [{key: HIDDEN}]}]


@pytest.mark.parametrize("key", ["task_id", "restart_token", "key", "request_id", "MaxTokens"])
def test_what_is_no_secret_is_seen(key: str) -> None:
    lines = begin()
    logger("test").info("said", **{key: "value"})
    assert lines.objects()[0][key] == "value"


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize(
    "unseen", ["\x7f", "\x85", "\x9b31m", "\u2028", "\u202e", "\u2066", "\u200f"]
)
def test_nothing_that_a_vendor_says_turns_or_ends_a_line(form: str, unseen: str) -> None:
    lines = begin(form=form)
    logger("x").warning("call", message=f"a{unseen}b")
    (line,) = lines.getvalue().splitlines()
    assert unseen not in line
    if form == "json":
        assert json.loads(line)["message"] == f"a{unseen}b"


@pytest.mark.parametrize("known", [(), (SECRET,), ("llm-AAAAA",)])
def test_a_token_of_the_llm_gateway_is_known_by_its_form(known: tuple[str, ...]) -> None:
    redactor = Redactor(known)
    token = "llm-" + "aZ09-_b" * 6 + "A"
    assert redactor.clean(f'{{"key": "{token}"}}') == f'{{"key": "{HIDDEN}"}}'
    assert redactor.clean(f"{token} and {token}.") == f"{HIDDEN} and {HIDDEN}."
    for word in ("llm-", "llm-turn", "llm_gateway", token[:-1], f"llm+{token[4:]}"):
        assert redactor.clean(f"a {word}!") == f"a {word}!"


def test_short_values_do_not_blot_out_words_and_new_ones_are_learnt() -> None:
    redactor = Redactor(["main", "fake-longer"])
    assert redactor.clean("main fake-longer fake-learnt") == f"main {HIDDEN} fake-learnt"
    redactor.learn(["fake-learnt"])
    assert redactor.clean("fake-longer fake-learnt") == f"{HIDDEN} {HIDDEN}"


@given(st.text(min_size=6), st.text(), st.text())
def test_whatever_a_secret_looks_like_the_json_line_does_not_hold_it(
    secret: str, before: str, after: str
) -> None:
    redactor = Redactor([secret])
    line = redactor.clean(json.dumps({"a": f"{before}{secret}{after}"}))
    assert HIDDEN in line
    assert secret not in redactor.clean(f"{before}{secret}{after}").replace(HIDDEN, "") or (
        secret in before + after
    )


@pytest.mark.parametrize(
    ("level", "said"),
    [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)],
)
def test_the_level_holds_for_our_lines_and_the_libraries(level: str, said: int) -> None:
    lines = begin(level)
    for speaker in (logger("test"), logging.getLogger("library")):
        speaker.debug("a")
        speaker.info("b")
        speaker.warning("c")
        speaker.error("d")
    assert len(lines.objects()) == 2 * said


def test_an_edge_tells_only_of_changes() -> None:
    edge = Edge("up")
    told = [
        edge.changed(key, state)
        for key, state in [
            ("a", "up"), ("a", "down"), ("b", "down"), ("a", "down"), ("a", "up"), ("a", "up"),
            ("b", "worse"),
        ]
    ]  # fmt: skip
    assert told == [False, True, True, False, True, False, True]
