"""What an application writes: resolving, merging, encoding and judging it, in plain words.

Each vendor declares its start body as models below `SpecModel`; this file turns what pydantic
finds into `Problem`s that name the path, what was expected and what was found.

Rule 1: a field nobody knows is let through, since vendors add fields; a known one is checked
strictly ("5" is no number).
Rule 2: no sentence made here shows a secret: not a resolved one wherever it stands, not what
stands under a key that looks like one, not a string that holds more than it seems.
Rule 3: whatever the application wrote, the work is bounded and nothing raises.
"""

import json
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from orchestrator.providers.base import Problem

MAX_DEPTH = 64
"""Levels of nesting; real bodies have fewer than ten."""
MAX_PROBLEMS = 20
MAX_SHOWN = 40
"""Characters of a value or a key in a sentence."""

_SECRET_WORDS = (
    "key", "secret", "token", "password", "passwd", "signature", "sig",
    "credential", "credentials", "authorization", "cookie",
)  # fmt: skip
_SURROGATE = re.compile("[\ud800-\udfff]")
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")

Path = tuple[str | int, ...]


class SpecModel(BaseModel):
    """Base of every model of a vendor's body: strict about what it knows, open for the rest."""

    model_config = ConfigDict(extra="allow", strict=True)


class ResolvedSecret(str):
    """A string that came out of the configuration's secrets: sent like any other, never shown."""

    __slots__ = ()

    def __repr__(self) -> str:
        """Show nothing of it."""
        return "ResolvedSecret(...)"


def mistake(expected: str) -> PydanticCustomError:
    """Return the error that a validator raises; it becomes a `Problem` at the field's path."""
    return PydanticCustomError("mistake", "{expected}", {"expected": expected})


def problems(model: type[BaseModel], value: Any, prefix: str = "spec") -> tuple[Problem, ...]:
    """Return what is wrong with a decoded JSON value, at most `MAX_PROBLEMS`, none if nothing is.

    Never raises. Secrets are to be resolved before (`resolve_secrets`).
    """
    unsendable = tuple(islice(_unsendable(value, (prefix,)), MAX_PROBLEMS))
    if unsendable:
        return unsendable
    try:
        model.model_validate(value)
    except ValidationError as error:
        found = error.errors(include_url=False)[:MAX_PROBLEMS]
        return tuple(_problem(detail, prefix) for detail in found)
    return ()


def problem(path: Path, expected: str, value: Any) -> Problem:
    """Return the problem that `value` stands at `path`; `value` None means that nothing does."""
    return Problem(path=_path(path), expected=expected, found=_describe(value, path))


def resolve_secrets(
    value: Any, secrets: Mapping[str, str], prefix: str = "spec"
) -> tuple[Any, tuple[Problem, ...]]:
    """Return a copy with each `{"$secret": "name"}` replaced, and a problem for each unknown name.

    What cannot be resolved stays as it was written.
    """
    found: list[Problem] = []

    def resolve(part: Any, path: Path) -> Any:
        if len(path) > MAX_DEPTH:
            return part  # `problems` says so
        # By type first: a pattern of keys asks the mapping's abstract class, at each value.
        match part:
            case dict() if "$secret" in part:
                return look_up(part, path)
            case dict():
                return {key: resolve(inner, (*path, key)) for key, inner in part.items()}
            case list():
                return [resolve(inner, (*path, index)) for index, inner in enumerate(part)]
            case _:
                return part

    def look_up(part: Mapping[str, Any], path: Path) -> Any:
        name = part["$secret"]
        is_named = len(part) == 1 and isinstance(name, str)
        if is_named and name in secrets:
            return ResolvedSecret(secrets[name])
        expected = "a secret that the configuration has under [secrets]"
        # The name of a secret is no secret, so it is shown, whatever key it stands under.
        shown = _describe(name, ()) if is_named else _describe(part, path)
        found.append(Problem(path=_path(path), expected=expected, found=shown))
        return part

    resolved = resolve(value, (prefix,))
    return resolved, tuple(found[:MAX_PROBLEMS])


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with `over` laid over it; objects are merged, everything else is replaced."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            merged[key] = merge(below, value)
        else:
            merged[key] = value
    return merged


def canonical_json(value: Any) -> bytes:
    """Return compact JSON in UTF-8 with sorted keys: equal values, equal bytes.

    Raises ValueError for what JSON cannot say (`problems` finds it first).
    """
    return json.dumps(
        value, ensure_ascii=False, separators=(",", ":"), allow_nan=False, sort_keys=True
    ).encode()


def as_json_string(value: Any) -> str:
    """Return the string that holds JSON, for a field where an object may stand instead."""
    return value if isinstance(value, str) else canonical_json(value).decode()


def with_json_strings(fields: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Return a copy in which those of `names` that are there are strings that hold JSON."""
    return {k: as_json_string(v) if k in names else v for k, v in fields.items()}


def json_text(value: Any) -> Any:
    """Check a field that wants a string holding a JSON object, or that object.

    Meant for `Annotated[Any, AfterValidator(json_text)]`. Raises a `mistake`.
    """
    expected = "an object, or a string that holds a JSON object"
    if isinstance(value, dict):
        return value
    if not isinstance(value, str):
        raise mistake(expected)
    try:
        decoded = json.loads(value)
    except (ValueError, RecursionError):
        raise mistake(expected) from None
    if not isinstance(decoded, dict):
        raise mistake(expected)
    return value


def decoded(value: Any) -> Any:
    """Return the object that a field holds, as itself or as JSON in a string.

    Raises a `mistake` for anything else; meant for `BeforeValidator`.
    """
    checked = json_text(value)
    return json.loads(checked) if isinstance(checked, str) else checked


def _unsendable(value: Any, path: Path) -> Iterator[Problem]:
    """Yield what no JSON body can carry, whatever the vendor."""
    if len(path) > MAX_DEPTH:
        yield problem(path[:4], f"at most {MAX_DEPTH} levels of nesting", "more")
        return
    match value:
        case str() if not _is_text(value):
            yield problem(path, "valid Unicode text", value)
        case float() if not math.isfinite(value):
            yield problem(path, "a finite number", value)
        case dict():
            for key, inner in value.items():
                if not _is_text(key):
                    yield problem((*path, key), "a key of valid Unicode text", inner)
                yield from _unsendable(inner, (*path, key))
        case list():
            for index, inner in enumerate(value):
                yield from _unsendable(inner, (*path, index))
        case _:
            return


def _is_text(value: str) -> bool:
    """Tell whether UTF-8 can say it. JSON can escape half a surrogate pair, and UTF-8 cannot."""
    return value.isascii() or _SURROGATE.search(value) is None


def _problem(detail: ErrorDetails, prefix: str) -> Problem:
    path = (prefix, *detail["loc"])
    missing = detail["type"] == "missing"
    return problem(path, _expected(detail), None if missing else detail["input"])


_Context = Mapping[str, Any]
_EXPECTED: Mapping[str, Callable[[_Context], str]] = {
    "mistake": lambda ctx: str(ctx["expected"]),
    "missing": lambda _: "a value, since it is required",
    "string_type": lambda _: "a string",
    "int_type": lambda _: "a whole number",
    "float_type": lambda _: "a number",
    "bool_type": lambda _: "true or false",
    "list_type": lambda _: "a list",
    "dict_type": lambda _: "an object",
    "model_type": lambda _: "an object",
    "literal_error": lambda ctx: f"one of {ctx['expected']}",
    "greater_than": lambda ctx: f"a number above {_number(ctx['gt'])}",
    "greater_than_equal": lambda ctx: f"a number of at least {_number(ctx['ge'])}",
    "less_than": lambda ctx: f"a number below {_number(ctx['lt'])}",
    "less_than_equal": lambda ctx: f"a number of at most {_number(ctx['le'])}",
    "string_too_short": lambda ctx: f"at least {ctx['min_length']} characters",
    "string_too_long": lambda ctx: f"at most {ctx['max_length']} characters",
    "string_pattern_mismatch": lambda ctx: f"a string that matches {ctx['pattern']}",
    "too_short": lambda ctx: f"at least {ctx['min_length']} items",
    "too_long": lambda ctx: f"at most {ctx['max_length']} items",
}
"""pydantic's kinds of error, in words that stand after "expected"."""


def _expected(detail: ErrorDetails) -> str:
    say = _EXPECTED.get(detail["type"])
    if say is None:
        # pydantic knows more kinds than we have words for, and says all of them like this.
        return detail["msg"].removeprefix("Input should be ")
    return say(detail.get("ctx", {}))


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _describe(value: Any, path: Path) -> str:
    """Say what stands there, as far as it may be said."""
    match value:
        case None:
            return "nothing"
        case ResolvedSecret():
            return "a secret"
        case Mapping():
            return "an object"
        case list():
            return f"a list of {len(value)}"
        case str() if _is_secret(path):
            return "a string"
        case str():
            return _describe_text(value)
        case _ if _is_secret(path):
            return "a number, true or false"
        case bool():
            return "true" if value else "false"
        case _:
            return _cut(str(value))


def _describe_text(value: str) -> str:
    if value.lstrip().startswith(("{", "[")):
        return "a string that looks like JSON"
    if "://" in value and ("@" in value or "?" in value):
        return "a URL with a user or a query"  # where people put keys
    return f"{json.dumps(_cut(value), ensure_ascii=False)} (string)"


def _is_secret(path: Sequence[str | int]) -> bool:
    """Tell whether a key on the way looks like that of a secret: `APIKey` yes, `MaxTokens` no."""
    words = (word for part in path for word in _WORDS.findall(str(part)))
    return any(word.lower().endswith(_SECRET_WORDS) for word in words)


def _path(path: Path) -> str:
    """Write the path as `spec.AgentConfig.TargetUserId[0]`."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{_cut(part)}" for part in path)
    return "".join(parts).removeprefix(".")


def _cut(text: str) -> str:
    shown = text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…"
    return shown.encode(errors="backslashreplace").decode()
