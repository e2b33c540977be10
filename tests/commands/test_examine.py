from typing import Any

import pytest

from orchestrator.examples import EXAMPLES
from orchestrator.store.examine import holds_plain_secret


@pytest.mark.parametrize(
    ("spec", "plain"),
    [
        ({}, False),
        ({"LLMConfig": {"APIKey": "fake-key"}}, True),
        ({"LLMConfig": {"APIKey": {"$secret": "llm"}}}, False),
        ({"LLMConfig": {"APIKey": ""}}, False),
        ({"a": [{"b": [{"token": "fake-token"}]}]}, True),
        ({"TTSConfig": {"SecretId": "an id", "VoiceId": "v"}}, False),
        ({"TTSConfig": {"SecretKey": "fake-key"}}, True),
        ({"MaxTokens": 256, "token": 5, "UserStreamId": "s"}, False),
        ([{"password": "fake-password"}], True),
        ("fake-password", False),
    ],
)
def test_what_looks_like_a_key_in_plain_text(spec: Any, plain: bool) -> None:
    assert holds_plain_secret(spec) is plain


def test_the_examples_show_how_it_is_done() -> None:
    assert not any(holds_plain_secret(example.spec) for example in EXAMPLES)
