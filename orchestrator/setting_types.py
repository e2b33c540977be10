"""What may stand under a key of the configuration: each kind of value, and how it is read.

Rule 1: this file reads nothing; where a secret lives is told by the validation's context.
Rule 2: no text made here holds what may be a secret.
"""

from dataclasses import dataclass
from typing import Annotated, Final, Self, cast
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    Field,
    PlainValidator,
    StringConstraints,
    ValidationInfo,
)
from pydantic_core import PydanticCustomError

from orchestrator.secret import NoSecretError, Place, Secret, find_secret

POSTGRES: Final = "postgresql://"
HEADER_TEXT: Final = "printable ASCII text, since it is sent as a header"
_NOT_PASSED: Final = frozenset(
    {
        "accept", "accept-encoding", "authorization", "connection", "content-encoding",
        "content-length", "content-type", "cookie", "expect", "host", "keep-alive", "te", "trailer",
        "transfer-encoding", "upgrade", "user-agent",
    }
)  # fmt: skip


def _find(written: object, info: ValidationInfo) -> Secret:
    if info.context is None:
        raise TypeError("settings that hold secrets are read by orchestrator.config.load")
    try:
        return find_secret(written, info.context)
    except NoSecretError as missing:
        raise _told(missing.expected, missing.found) from missing


def _find_database(written: object, info: ValidationInfo) -> Secret:
    secret = _find(written, info)
    if secret.reveal().startswith(POSTGRES):
        return _understood(secret)
    scheme, _, rest = secret.reveal().partition(":")
    path = rest.removeprefix("///")
    if scheme == "sqlite" and rest != path and path not in {"", ":memory:"}:
        place = cast("Place", info.context)
        return Secret(f"sqlite:///{place.absolute(path)}", secret.source, secret.place)
    raise _told(
        "sqlite:///path, sqlite:////absolute/path or postgresql://…", _describe(secret.reveal())
    )


def _find_postgres(written: object, info: ValidationInfo) -> Secret:
    secret = _find(written, info)
    if secret.reveal().startswith(POSTGRES):
        return _understood(secret)
    raise _told("postgresql://…", _describe(secret.reveal()))


def _describe(text: str) -> str:
    """Return what stands where a URL should, and nothing of it that may be a password."""
    scheme, _, rest = text.partition(":")
    return f"a URL that begins with {scheme!r}" if rest else "text that is no URL"


def _understood(url: Secret) -> Secret:
    """Return a Postgres URL that all who read it take for the same."""
    if _is_clear(url.reveal()):
        return url
    expected = "postgresql://USER:PASSWORD@HOST:PORT/DATABASE, percent-encoded (@ is %40, / is %2F)"
    raise _told(expected, "a URL that can be read in more than one way, or in none")


def _is_clear(text: str) -> bool:
    """Return whether it is plain where a Postgres URL's password ends.

    What follows a second @ is the host to some readers. It would be looked for, and be shown.
    """
    try:
        parts = urlsplit(text)
        has_place = parts.port is None or bool(parts.hostname)
    except ValueError:
        return False
    return has_place and text.count("@") == parts.netloc.count("@") <= 1


@dataclass(frozen=True, slots=True)
class Address:
    """A place to listen at, written `HOST:PORT`, an IPv6 host in brackets; port 0: any free one."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the address that `text` means.

        Raises:
            ValueError: it is not `HOST:PORT` with a port of 0 to 65535.
        """
        parts = urlsplit(f"//{text}")
        if parts.netloc != text or not parts.hostname or parts.port is None or "@" in text:
            raise ValueError(text)
        return cls(parts.hostname, parts.port)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def _address(written: object) -> Address:
    try:
        return Address.parse(str(written))
    except ValueError as wrong:
        raise _told("HOST:PORT, for example 127.0.0.1:8787", repr(written)) from wrong


def _place(endpoint: str) -> str:
    """Return an endpoint that can be called: the host is a name, and the port one of 65535."""
    try:
        parts = urlsplit(endpoint)
        is_callable = parts.port != 0 and bool((parts.hostname or "").encode("idna"))
    except ValueError:
        is_callable = False
    if is_callable:
        return endpoint
    raise _told("http(s)://HOST or http(s)://HOST:PORT", repr(endpoint))


def _told(expected: str, found: str) -> PydanticCustomError:
    """Return a mistake in our own words; neither text may hold a secret."""
    words: dict[str, object] = {"expected": expected, "found": found}
    return PydanticCustomError("told", "{expected}", words)


def _web_address(written: str) -> str:
    """Return a URL that can be called, without the slash at its end. A query may hold a key."""
    try:
        parts = urlsplit(written)
        is_url = parts.scheme in {"http", "https"} and bool((parts.hostname or "").encode("idna"))
        is_plain = not (parts.query or parts.fragment or "@" in parts.netloc) and parts.port != 0
    except ValueError:
        is_url = is_plain = False
    if is_url and is_plain:
        return written.rstrip("/")
    expected = "http(s)://HOST, with a port and a path if need be, without user, query or fragment"
    raise _told(expected, _describe(written))


def _key_of_a_header(written: object, info: ValidationInfo) -> Secret:
    """Return a secret that is sent in a header."""
    secret = _find(written, info)
    if _goes_into_a_header(secret.reveal()):
        return secret
    raise _told(HEADER_TEXT, "other characters")


def _goes_into_a_header(text: str) -> bool:
    return text.isascii() and text.isprintable()


def _passed_header(name: str) -> str:
    """Refuse what is between us and the vendor, or speaks of its bytes and not of ours."""
    if name.lower() in _NOT_PASSED:
        raise _told("a header of the vendor's own", f'"{name}"')
    return name


def _header(written: object, info: ValidationInfo) -> str | Secret:
    """Return a header's value: text as it is, which is no secret, or a secret."""
    value = written if isinstance(written, str) else _find(written, info)
    shown = value.reveal() if isinstance(value, Secret) else value
    if _goes_into_a_header(shown):
        return value
    raise _told(HEADER_TEXT, "other characters")


SecretKey = Annotated[Secret, PlainValidator(_find)]
DatabaseUrl = Annotated[Secret, PlainValidator(_find_database)]
PostgresUrl = Annotated[Secret, PlainValidator(_find_postgres)]
Listen = Annotated[Address, PlainValidator(_address)]
Endpoint = Annotated[
    str,
    StringConstraints(pattern=r"^https?://[A-Za-z0-9.\-\[\]:]+$"),
    AfterValidator(_place),
]
AccountName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
SecretName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
AppId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Positive = Annotated[int, Field(ge=1)]
CallsPerSecond = Annotated[int, Field(ge=0)]
WebAddress = Annotated[str, AfterValidator(_web_address)]
HeaderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}$")]
HeaderValue = Annotated[str | Secret, PlainValidator(_header)]
BearerKey = Annotated[Secret, PlainValidator(_key_of_a_header)]
PassedHeader = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9!#$%&'+.^_`|~-]{1,64}$"),
    AfterValidator(_passed_header),
]
UpstreamName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
