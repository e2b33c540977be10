"""The document of the state machine is drawn from the table, and explains every word."""

import re
from pathlib import Path

import pytest

from orchestrator.core.command import CommandState, Kind
from orchestrator.core.fact import Event
from orchestrator.core.lane import Numbering, Pause, Reason, Standing
from orchestrator.core.model import EndReason, Evidence, Phase, Verb, WaitingFor, What
from orchestrator.core.transitions import TRANSITIONS, to_mermaid

TEXT = (Path(__file__).parents[2] / "docs" / "state-machine.md").read_text(encoding="utf-8")


def test_the_diagram_is_the_table() -> None:
    (drawn,) = re.findall(r"```mermaid\n(.*?)\n```", TEXT, re.DOTALL)
    assert drawn == to_mermaid()


def test_every_phase_has_a_paragraph_and_a_rung_in_the_table() -> None:
    told = re.findall(r"^\*\*`(\w+)`\*\*:", TEXT, re.MULTILINE)
    assert sorted(told) == sorted(str(phase) for phase in Phase)
    assert set(TRANSITIONS) == set(Phase)


OF_TASKS = [EndReason, WaitingFor, Evidence, Verb, What]
OF_FACTS = [Event]
OF_LANES = [Kind, CommandState, Reason, Pause, Standing, Numbering]


@pytest.mark.parametrize("words", [*OF_TASKS, *OF_FACTS, *OF_LANES])
def test_every_word_has_a_line_of_its_own(words: type[Phase]) -> None:
    lines = set(re.findall(r"^\| `(\w+)` \|", TEXT, re.MULTILINE))
    assert {str(word) for word in words} <= lines
