"""A port is had, or its absence is a sentence that names the key."""

from dataclasses import replace

import pytest

from orchestrator.daemon.listening import Listen, bind
from orchestrator.errors import UsageError

LOCAL = Listen(key="callbacks.listen", host="127.0.0.1", port=0)


def test_nothing_is_bound_where_nothing_is_configured() -> None:
    with bind(None) as bound:
        assert bound is None


@pytest.mark.parametrize("key", ["callbacks.listen", "metrics.listen"])
def test_a_port_that_is_taken_is_a_sentence(key: str) -> None:
    with bind(LOCAL) as bound:
        assert bound is not None
        port = bound.getsockname()[1]
        taken = replace(LOCAL, key=key, port=port)
        said = rf"^{key}: cannot listen at 127\.0\.0\.1:{port}: "
        with pytest.raises(UsageError, match=said), bind(taken):
            pass


def test_a_port_is_free_again_after_its_use() -> None:
    with bind(LOCAL) as bound:
        assert bound is not None
        port = bound.getsockname()[1]
    with bind(replace(LOCAL, port=port)) as again:
        assert again is not None


def test_a_host_that_is_not_ours_is_a_sentence() -> None:
    said = r"^callbacks\.listen: cannot listen at 192\.0\.2\.1:0: "
    with pytest.raises(UsageError, match=said), bind(replace(LOCAL, host="192.0.2.1")):
        pass


def test_it_listens_in_the_other_family_too() -> None:
    with bind(replace(LOCAL, host="::1")) as bound:
        assert bound is not None
        assert bound.getsockname()[0] == "::1"
