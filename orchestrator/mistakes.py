"""What the validator found wrong, in the words of the person who wrote the file.

Rule 1: the path is the file's (`accounts.main.qps.StartVoiceChat`), never the validator's.
Rule 2: a value is shown only where it cannot be a secret.
"""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from orchestrator.providers.base import Problem

_SHOWN = 40
"""Characters of a value that are shown at most."""

_EXPECTED = {
    "bool_type": "true or false",
    "dict_type": "a table",
    "int_type": "a whole number",
    "list_type": "a list",
    "model_attributes_type": "a table",
    "model_type": "a table",
    "string_type": "text",
}
_BOUNDS = {
    "greater_than_equal": "at least {ge}",
    "less_than_equal": "at most {le}",
    "string_too_long": "text of at most {max_length} characters",
    "string_too_short": "text of at least {min_length} characters",
    "literal_error": "{expected}",
    "string_pattern_mismatch": "text that matches {pattern}",
    "told": "{expected}",
}


def translate(wrong: ValidationError, model: type[BaseModel]) -> tuple[Problem, ...]:
    """Return one problem per mistake that a validation of `model` found, in the file's order."""
    return tuple(_problem(error, model) for error in wrong.errors(include_url=False))


def _problem(error: ErrorDetails, model: type[BaseModel]) -> Problem:
    keys, tables = _walk(error["loc"], model)
    path = ".".join(keys)
    match error["type"]:
        case "missing":
            return Problem(path=path, expected="a value: it has no default", found="nothing")
        case "extra_forbidden":
            return Problem(path=path, expected=_known(keys[-1], tables[-1]), found="this key")
        case "union_tag_not_found":
            return Problem(path=f"{path}.provider", expected=_tags(error), found="nothing")
        case "union_tag_invalid":
            found = _shown(error.get("ctx", {}).get("tag"))
            return Problem(path=f"{path}.provider", expected=_tags(error), found=found)
        case kind:
            return Problem(path=path, expected=_expected(kind, error), found=_found(error))


def _walk(
    loc: Sequence[int | str], model: type[BaseModel]
) -> tuple[list[str], list[type[BaseModel]]]:
    """Return the file's keys along `loc`, and the tables on the way.

    The validator adds two words of its own: the member of a union that it took, and `[key]`.
    """
    keys: list[str] = []
    tables = [model]
    choices: dict[str, type[BaseModel]] = {}
    for part in map(str, loc):
        if part == "[key]":
            continue
        if part in choices:
            tables.append(choices[part])
            choices = {}
            continue
        keys.append(part)
        inner = _models(tables[-1], part)
        if len(inner) == 1:
            tables.append(inner[0])
        elif inner:
            choices = {_tag(member): member for member in inner}
    return keys, tables


def _models(table: type[BaseModel], key: str) -> list[type[BaseModel]]:
    """Return the tables that may stand under `key`."""
    for name, field in table.model_fields.items():
        if key == (field.alias or name):
            return list(_models_in(field.annotation))
    return []


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for inner in get_args(annotation) for found in _models_in(inner)]


def _tag(member: type[BaseModel]) -> str:
    return str(get_args(member.model_fields["provider"].annotation)[0])


def _known(key: str, table: type[BaseModel]) -> str:
    names = [field.alias or name for name, field in table.model_fields.items()]
    close = get_close_matches(key, names, n=1)
    if close:
        return f"a known key (did you mean {close[0]}?)"
    return f"one of the keys {', '.join(sorted(names))}"


def _tags(error: ErrorDetails) -> str:
    tags = error.get("ctx", {}).get("expected_tags")
    return f"one of {tags}" if tags else "'volcengine', 'tencent' or 'zego'"


def _expected(kind: str, error: ErrorDetails) -> str:
    if kind in _EXPECTED:
        return _EXPECTED[kind]
    if kind in _BOUNDS:
        return _BOUNDS[kind].format(**error.get("ctx", {}))
    return error["msg"]


def _found(error: ErrorDetails) -> str:
    told = error.get("ctx", {}).get("found")
    return str(told) if told is not None else _shown(error["input"])


def _shown(value: object) -> str:
    match value:
        case bool() | int() | float():
            return str(value).lower()
        # A URL with somebody's password in it is not for the terminal.
        case str() if "@" not in value:
            return f'"{value}"' if len(value) <= _SHOWN else f'"{value[:_SHOWN]}…"'
        case dict():
            return "a table"
        case list():
            return "a list"
        case _:
            return f"a value of type {type(value).__name__}"
