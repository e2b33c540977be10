"""What is counted, and what is not."""

import pytest

from orchestrator.core.outcome import Done, Gone, Indefinite, NotSent, Outcome, Refused, Throttled
from orchestrator.daemon.monitoring.meter import Meter

LABELS = {"account": "main", "action": "StartVoiceChat"}


@pytest.mark.parametrize(
    ("outcome", "is_measured"),
    [
        (Done(), True),
        (Gone(), True),
        (Throttled(), True),
        (Refused(), True),
        (Indefinite(), True),
        (NotSent(), False),
    ],
)
def test_only_what_was_asked_of_the_vendor_says_how_fast_it_answers(
    outcome: Outcome, *, is_measured: bool
) -> None:
    meter = Meter()
    meter.count_call(LABELS["account"], LABELS["action"], outcome, 40)
    counted = {**LABELS, "outcome": type(outcome).__name__}
    value = meter.registry.get_sample_value
    assert value("orchestrator_calls_total", counted) == 1
    answered = value("orchestrator_call_seconds_count", LABELS)
    assert (answered == 1) is is_measured
