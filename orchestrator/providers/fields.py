"""What fields of several vendors' start bodies have in common.

That is ids, numbers that stand for choices, and the places where both the spec and the daemon have
something to say.

Rule 1: an id is checked wherever it comes from, the row's columns or the spec.
Rule 2: what the daemon fills in may be missing in a spec, or say the same; never something else.
Rule 3: null for a block, or where the daemon fills in, is the same as nothing.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.providers.base import Problem, Spec
from orchestrator.providers.spec import Path, mistake, problem


@dataclass(frozen=True, slots=True, kw_only=True)
class IdRule:
    """What a vendor lets an id be made of."""

    limit: int
    """Bytes; every alphabet here is ASCII, so characters too."""
    characters: str
    """The alphabet, as the inside of a regular expression's brackets."""
    alphabet: str
    """The same in words."""

    @property
    def expected(self) -> str:
        """Return the rule in words."""
        return f"1 to {self.limit} characters out of {self.alphabet}"

    def allows(self, value: str) -> bool:
        """Tell whether `value` keeps the rule."""
        return re.fullmatch(f"[{self.characters}]{{1,{self.limit}}}", value) is not None

    def check(self, value: str) -> str:
        """Return `value`, for a model's field; raise a `mistake` if it breaks the rule."""
        if not self.allows(value):
            raise mistake(self.expected)
        return value

    def problems(self, path: Path, value: str) -> tuple[Problem, ...]:
        """Return the problem of an id that stands at `path`, if it has one."""
        return () if self.allows(value) else (problem(path, self.expected, value),)


def one_of(*allowed: int) -> Callable[[int], int]:
    """Return the check of a number that stands for a choice, for `AfterValidator`.

    A `Literal` would do but for true and false, which equal 1 and 0.
    """
    *most, last = map(str, allowed)
    expected = f"one of {', '.join(most)} or {last}"

    def check(value: int) -> int:
        if value not in allowed:
            raise mistake(expected)
        return value

    return check


def given(fields: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what an object of the spec says; null says nothing, neither for a key nor the whole.

    The vendors' own clients leave such fields out too.
    """
    return {key: value for key, value in (fields or {}).items() if value is not None}


def shape(value: Any) -> Any:
    """Return an object's keys, all the way down, and of everything else only whether it is null.

    Two objects of one shape differ in values alone: what is given the one after the other ends up
    as the other, whether the vendor replaces what it had or lays the new over it.
    """
    if isinstance(value, Mapping):
        return {key: shape(inner) for key, inner in value.items()}
    return value is not None


def filled_problems(
    spec: Spec, filled: Mapping[Path, Any], prefix: str = "spec"
) -> tuple[Problem, ...]:
    """Return a problem for each place of the spec, or payload, that contradicts the daemon.

    `filled` has a place, as keys from the top, and what the daemon writes there; None where no
    value of a spec's could be right, since it is made anew for each start.
    """
    places = ((path, own, _at(spec, path)) for path, own in filled.items())
    return tuple(
        problem((prefix, *path), _own_word(own), value)
        for path, own, value in places
        if value is not None and value != own
    )


def _own_word(own: Any) -> str:
    return "nothing, since the daemon fills it in" + ("" if own is None else f": {own}")


def _at(spec: Any, path: Path) -> Any:
    """Return what stands at `path`, null if nothing does."""
    for key in path:
        spec = spec.get(key) if isinstance(spec, Mapping) else None
    return spec
