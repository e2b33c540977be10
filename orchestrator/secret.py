"""A value that must not be seen: what it is, where it comes from, and who may see it.

Rule 1: no text made from a `Secret` (repr, str, format, a dataclass around it) shows its value.
Rule 2: only `reveal` does, and it is called where a provider or a connection is built.
Rule 3: this file reads nothing. Where a secret lives is told by a `Place`; `config` looks there.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

_SECRET_KEY = re.compile(
    r"(?i)(secret|password|passwd|token|signature|authorization|credential|usersig|cookie"
    r"|(api|access|app|secret|private|callback|usersig)_?key(_?id)?)$"
)
_NO_SECRETS = frozenset({"restart_token"})
"""Columns that look like a secret's and are none."""


class AbsentError(LookupError):
    """There is no text where a secret should be. The message is what was found instead."""


class Place(Protocol):
    """Where secrets are looked up. Each raises AbsentError if no text is there."""

    def variable(self, name: str) -> str:
        """Return the environment variable `name`."""
        ...

    def file(self, path: str) -> str:
        """Return the text of a file; a relative path counts from the configuration file."""
        ...

    def credential(self, name: str) -> str:
        """Return the text of a file in systemd's `$CREDENTIALS_DIRECTORY`."""
        ...

    def absolute(self, path: str) -> str:
        """Return a path as the configuration file means it."""
        ...


@dataclass(frozen=True, slots=True)
class Secret:
    """A key, a password, or a URL that holds one. Two are equal if their values are."""

    _value: str = field(repr=False)
    source: str = field(compare=False)
    """`plain`, `env`, `file`, `credential` or `default`."""
    place: str = field(default="", compare=False)
    """The variable, the file's absolute path or the credential's name; empty: in the text."""

    def reveal(self) -> str:
        """Return the value. What is done with it is the caller's responsibility."""
        return self._value

    def __str__(self) -> str:
        return f"<secret from {self.source}>"


class NoSecretError(ValueError):
    """What was written gives no secret. Both texts are safe to show."""

    def __init__(self, expected: str, found: str) -> None:
        super().__init__(f"expected {expected}, found {found}")
        self.expected = expected
        self.found = found


def names_secret(key: str) -> bool:
    """Return whether what stands under `key` (of a log line, of a spec) looks like a secret."""
    return key not in _NO_SECRETS and _SECRET_KEY.search(key) is not None


_FORMS = 'text, { env = "NAME" }, { file = "path" } or { credential = "name" }'


def find_secret(written: object, place: Place) -> Secret:
    """Return the secret that a configuration value stands for.

    Raises:
        NoSecretError: the value has none of the four forms, or nothing is where it points.
    """
    match written:
        case Secret():
            return written
        case str():
            return Secret(_not_empty(written, "text that is not empty"), "plain")
        case {"env": str(name), **rest} if not rest:
            expected = f'the environment variable "{name}", set and not empty'
            return Secret(_look(place.variable, name, expected), "env", name)
        case {"file": str(path), **rest} if not rest:
            expected = f'a readable text file "{path}" that is not empty'
            return Secret(_look(place.file, path, expected), "file", place.absolute(path))
        case {"credential": str(name), **rest} if not rest:
            expected = f'the systemd credential "{name}" (LoadCredential=), not empty'
            return Secret(_look(place.credential, name, expected), "credential", name)
        case dict():
            keys = ", ".join(sorted(map(str, written))) or "no key"
            raise NoSecretError(_FORMS, f"a table with {keys}")
        case _:
            raise NoSecretError(_FORMS, f"a value of type {type(written).__name__}")


def _look(place: Callable[[str], str], name: str, expected: str) -> str:
    try:
        return _not_empty(place(name), expected)
    except AbsentError as absent:
        raise NoSecretError(expected, str(absent)) from absent


def _not_empty(text: str, expected: str) -> str:
    # An editor ends a file with a newline; no vendor's key does.
    stripped = text.rstrip("\r\n")
    if not stripped.strip():
        raise NoSecretError(expected, "an empty text")
    return stripped
