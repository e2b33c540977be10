"""What all tests of the store share."""

import pytest

from orchestrator.daemon import claim


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a claim decide about all its rows, however slow the machine is."""
    monkeypatch.setattr(claim, "DECIDE_NS_MAX", 10**12)
