"""`"$llm_gateway": "<upstream>"` in a spec: our LLM gateway's address and key, in a vendor's words.

Rule 1: the placeholder stands in the vendor's own block of the model, and nowhere else.
Rule 2: beside it nothing may say where to ask, or in other words than OpenAI's.
Rule 3: the key is a `ResolvedSecret`: it is sent, and shown to nobody.
Rule 4: a spec without the placeholder stays the object it was.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import Any, Final

from pydantic_core import PydanticCustomError

from orchestrator.providers.base import Problem
from orchestrator.providers.callbacks import id_at
from orchestrator.providers.fields import given
from orchestrator.providers.llm_form import LlmEndpoint, LlmForm
from orchestrator.providers.spec import (
    MAX_DEPTH,
    MAX_PROBLEMS,
    Path,
    ResolvedSecret,
    decoded,
    problem,
)

PLACEHOLDER: Final = "$llm_gateway"

_LONGEST_NUMBER: Final = 64
"""Bits; what is longer is no vendor's id, and dear to write out."""

_NAME = "the name of one of [llm_upstreams]"
_GATEWAY = f"{_NAME}, and an [llm_gateway] that listens"
_STANDS_FOR_IT = f"nothing, since {PLACEHOLDER} stands for it"


def asked_upstream(form: LlmForm, spec: Any) -> str | None:
    """Return the upstream that a spec asks through our gateway; null if it names none."""
    block = _block(form, spec)
    return None if block is None else _name(block)


def fill_in(
    form: LlmForm, spec: Any, find: Callable[[str], LlmEndpoint | None], prefix: str = "spec"
) -> tuple[Any, tuple[Problem, ...]]:
    """Return the spec with the placeholder filled in, and what is wrong with how it is used.

    `find` returns the endpoint that an upstream's name means for this agent, null if there is no
    such upstream, or no gateway. A spec with problems comes back as it was written.
    """
    place: Path = (prefix, *form.block)
    expected = f"nothing, since {PLACEHOLDER} belongs into {'.'.join((prefix, *form.block))}"
    misplaced = tuple(
        problem(path, expected, value)
        for path, value in islice(_placeholders(spec, (prefix,), place), MAX_PROBLEMS)
        if path[:-1] != place
    )
    block = _block(form, spec)
    if misplaced or block is None or PLACEHOLDER not in block:
        return spec, misplaced
    at = (*place, PLACEHOLDER)
    name = _name(block)
    if name is None:
        return spec, (problem(at, f"{_NAME}, in plain", block[PLACEHOLDER]),)
    endpoint = find(name)
    if endpoint is None:
        return spec, (problem(at, _GATEWAY, name),)
    return _fill(form, spec, block, replace(endpoint, key=ResolvedSecret(endpoint.key)), place)


def payload_problems(payload: Any) -> tuple[Problem, ...]:
    """Return a problem for each placeholder in a command's payload, which fills in none."""
    expected = f"nothing, since {PLACEHOLDER} belongs into agent_task.spec"
    found = islice(_placeholders(payload, ("payload",), None), MAX_PROBLEMS)
    return tuple(problem(path, expected, value) for path, value in found)


def read_id(fields: Mapping[str, Any], name: str) -> str | None:
    """Return the id under `name`, given as text or as a whole number, as `callbacks.id_at` does."""
    value = fields.get(name)
    if type(value) is int and value.bit_length() <= _LONGEST_NUMBER:
        return str(value)
    return id_at(fields, name)


def _fill(
    form: LlmForm, spec: Any, block: Mapping[str, Any], endpoint: LlmEndpoint, place: Path
) -> tuple[Any, tuple[Problem, ...]]:
    said = given({key: value for key, value in block.items() if key != PLACEHOLDER})
    own = form.own(endpoint)
    wrong = (
        *(problem((*place, key), _STANDS_FOR_IT, said[key]) for key in own if key in said),
        *(
            problem((*place, key), f"{_word(value)}, since {PLACEHOLDER} needs it so", said[key])
            for key, value in form.required.items()
            if said.get(key, value) != value
        ),
    )
    if wrong:
        return spec, wrong
    filled = {**form.defaults(endpoint), **said, **form.required, **own}
    return _with_block(spec, form.block, filled), ()


def _word(value: Any) -> str:
    """Spell a value as JSON does, a text without its quotes."""
    return value if isinstance(value, str) else json.dumps(value)


def _name(block: Mapping[str, Any]) -> str | None:
    """Return the upstream's name; null if there is none, or not in plain."""
    name = block.get(PLACEHOLDER)
    return name if isinstance(name, str) and not isinstance(name, ResolvedSecret) else None


def _block(form: LlmForm, spec: Any) -> dict[str, Any] | None:
    """Return the block that describes the model, decoded; null if there is none."""
    for key in form.block:
        spec = spec.get(key) if isinstance(spec, dict) else None
    return _as_object(spec)


def _as_object(value: Any) -> dict[str, Any] | None:
    """Return an object, or that which a string of JSON holds (Tencent's way); null for the rest."""
    try:
        found: dict[str, Any] = decoded(value)
    except PydanticCustomError:
        return None
    return found


def _with_block(spec: Any, path: tuple[str, ...], block: Mapping[str, Any]) -> Any:
    """Return the spec with the block in its place, and everything else as it was."""
    if not path:
        return block
    return {**spec, path[0]: _with_block(spec[path[0]], path[1:], block)}


def _placeholders(value: Any, path: Path, place: Path | None) -> Iterator[tuple[Path, Any]]:
    """Yield where the placeholder stands, and with what; at `place`, also in a string of JSON."""
    if len(path) > MAX_DEPTH:
        return  # `problems` says so
    match _as_object(value) if path == place and isinstance(value, str) else value:
        case dict() as part:
            for key, inner in part.items():
                if key == PLACEHOLDER:
                    yield (*path, key), inner
                yield from _placeholders(inner, (*path, key), place)
        case list() as parts:
            for index, inner in enumerate(parts):
                yield from _placeholders(inner, (*path, index), place)
        case _:
            return
