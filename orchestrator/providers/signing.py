"""The vendors' signatures: the only file that knows how a request or a callback is signed.

Adapters sign with it and the simulator verifies with it, so the two schemes with signed headers
have two layers: `sign_…` chooses what to sign, `…_signature` computes over what somebody chose.

Rule 1: pure. The time and the nonce are parameters, and what was signed is what must be sent.
Rule 2: whoever verifies compares in constant time.
Rule 3: keys are values that show no secret.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Self
from urllib.parse import quote

Query = Mapping[str, str | Sequence[str]]
"""Decoded query parameters; a list is the same key several times."""

V4_ALGORITHM = "HMAC-SHA256"
V4_SERVICE = "rtc"
TC3_ALGORITHM = "TC3-HMAC-SHA256"
TC3_SERVICE = "trtc"
UNSIGNED_PAYLOAD = "UNSIGNED-PAYLOAD"

_NO_QUERY: Query = MappingProxyType({})
_AUTHORIZATION = re.compile(
    r"(?P<algorithm>[A-Z0-9-]+) Credential=(?P<key>[^/,]+)/(?P<scope>[^, ]+), ?"
    r"SignedHeaders=(?P<names>[^, ]+), ?Signature=(?P<signature>[0-9a-f]{64})"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsigned:
    """A request as the signature sees it.

    `host` is the Host header to send, port included. `headers` are the others: before signing
    those the caller wants, at a verifier all that came. Their names have no case.
    """

    method: str
    host: str
    path: str = "/"
    query: Query = field(default_factory=dict)
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Authorization:
    """The parts of an Authorization header; Volcengine and Tencent write it alike."""

    algorithm: str
    key_id: str
    scope: str
    """Date, region if the scheme has one, service and terminator, joined with slashes."""
    signed_headers: tuple[str, ...]
    signature: str = field(repr=False)

    @classmethod
    def from_header(cls, value: str) -> Self | None:
        """Return the parts, or None if the value is no such header."""
        found = _AUTHORIZATION.fullmatch(value)
        if found is None:
            return None
        return cls(
            algorithm=found["algorithm"],
            key_id=found["key"],
            scope=found["scope"],
            signed_headers=tuple(found["names"].split(";")),
            signature=found["signature"],
        )

    def to_header(self) -> str:
        """Return the header's value."""
        return (
            f"{self.algorithm} Credential={self.key_id}/{self.scope}, "
            f"SignedHeaders={';'.join(self.signed_headers)}, Signature={self.signature}"
        )


# --- Volcengine V4, as the vendor's Python SDKs do it ---


@dataclass(frozen=True, slots=True, kw_only=True)
class V4Keys:
    """An access key of a Volcengine account, temporary if it has a session token."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)
    region: str = "cn-north-1"


def sign_v4(request: Unsigned, *, keys: V4Keys, at: datetime) -> dict[str, str]:
    """Return all headers to send: the request's own, Host, X-Date and so on, and Authorization.

    Signs Content-Type, Content-Md5, Host and every X- header, as the vendor's SDK does. The
    vendor honours it for 900 s after `at`.
    """
    x_date = at.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    headers = {
        **request.headers,
        "Host": request.host,
        "X-Date": x_date,
        "X-Content-Sha256": _sha256_hex(request.body),
    }
    if keys.session_token is not None:
        headers["X-Security-Token"] = keys.session_token
    names = sorted(name.lower() for name in headers if _is_signed_by_v4(name.lower()))
    scope = f"{x_date[:8]}/{keys.region}/{V4_SERVICE}/request"
    complete = replace(request, headers=headers)
    authorization = Authorization(
        algorithm=V4_ALGORITHM,
        key_id=keys.access_key_id,
        scope=scope,
        signed_headers=tuple(names),
        signature=v4_signature(
            complete, secret_access_key=keys.secret_access_key, scope=scope, signed_headers=names
        ),
    )
    return {**headers, "Authorization": authorization.to_header()}


def v4_signature(
    request: Unsigned, *, secret_access_key: str, scope: str, signed_headers: Sequence[str]
) -> str:
    """Return the signature, 64 lower-case hex digits, over the headers named.

    The X-Date comes from the request's headers. A header that is named and absent counts as empty.
    """
    values = _lower_names(request.headers)
    # The vendor's SDK drops a default port here, and only here.
    values["host"] = re.sub(r":(80|443)$", "", request.host)
    canonical = _canonical_request(request, values, signed_headers, request.body)
    text = "\n".join([V4_ALGORITHM, values.get("x-date", ""), scope, _sha256_hex(canonical)])
    return _scoped_signature(secret_access_key, scope, text)


def canonical_query(query: Query) -> str:
    """Return the query sorted by key and percent-encoded, as V4 signs it; it may be sent as it is.

    Only letters, digits and `-_.~` stay as they are; a space is `%20`.
    """
    return _encode_query({key: query[key] for key in sorted(query)})


# --- Tencent TC3 ("Signature v3"), as the vendor's Python SDK does it ---


@dataclass(frozen=True, slots=True, kw_only=True)
class TC3Keys:
    """An access key of a Tencent Cloud account, temporary if it has a session token."""

    secret_id: str
    secret_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class TC3Call:
    """One call to Tencent's API: always a POST to `/`. `host` includes a port, if there is one."""

    host: str
    action: str
    version: str
    region: str
    body: bytes
    content_type: str = "application/json"


def sign_tc3(call: TC3Call, *, keys: TC3Keys, at: datetime) -> dict[str, str]:
    """Return all headers to send. Content-Type and Host are signed, as the vendor's SDK does.

    An empty region is left out. The vendor honours it for 300 s around `at`.
    """
    moment = at.astimezone(UTC)
    headers = {
        "Content-Type": call.content_type,
        "Host": call.host,
        "X-TC-Action": call.action,
        "X-TC-Version": call.version,
        "X-TC-Timestamp": str(int(moment.timestamp())),
    }
    if call.region:
        headers["X-TC-Region"] = call.region
    if keys.session_token is not None:
        headers["X-TC-Token"] = keys.session_token
    scope = f"{moment:%Y-%m-%d}/{TC3_SERVICE}/tc3_request"
    names = ("content-type", "host")
    request = Unsigned(method="POST", host=call.host, headers=headers, body=call.body)
    authorization = Authorization(
        algorithm=TC3_ALGORITHM,
        key_id=keys.secret_id,
        scope=scope,
        signed_headers=names,
        signature=tc3_signature(
            request, secret_key=keys.secret_key, scope=scope, signed_headers=names
        ),
    )
    return {**headers, "Authorization": authorization.to_header()}


def tc3_signature(
    request: Unsigned, *, secret_key: str, scope: str, signed_headers: Sequence[str]
) -> str:
    """Return the signature, 64 lower-case hex digits, over the headers named.

    The timestamp comes from X-TC-Timestamp; `X-TC-Content-SHA256: UNSIGNED-PAYLOAD` leaves the
    body out. A header that is named and absent counts as empty.
    """
    values = _lower_names(request.headers)
    values["host"] = request.host
    unsigned = values.get("x-tc-content-sha256") == UNSIGNED_PAYLOAD
    payload = UNSIGNED_PAYLOAD.encode() if unsigned else request.body
    canonical = _canonical_request(request, values, signed_headers, payload)
    timestamp = values.get("x-tc-timestamp", "")
    text = "\n".join([TC3_ALGORITHM, timestamp, scope, _sha256_hex(canonical)])
    return _scoped_signature("TC3" + secret_key, scope, text)


# --- ZEGO 2.0 (server API, "Signing the request") ---


def zego_signature(*, app_id: int, server_secret: str, nonce: str, timestamp: int) -> str:
    """Return 32 lower-case hex digits. `timestamp` in Unix seconds, honoured for 600 s.

    The scheme covers neither the action nor the body.
    """
    text = f"{app_id}{nonce}{server_secret}{timestamp}"
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()  # the vendor's choice


def zego_query(
    *,
    app_id: int,
    server_secret: str,
    nonce: str,
    at: datetime,
    action: str,
    extra: Query = _NO_QUERY,
) -> str:
    """Return the whole query string, percent-encoded: the public parameters, then `extra`."""
    timestamp = int(at.timestamp())
    public = {
        "Action": action,
        "AppId": str(app_id),
        "SignatureNonce": nonce,
        "Timestamp": str(timestamp),
        "Signature": zego_signature(
            app_id=app_id, server_secret=server_secret, nonce=nonce, timestamp=timestamp
        ),
        "SignatureVersion": "2.0",
    }
    return _encode_query({**public, **extra})


# --- Callbacks ---


VOLCENGINE_NOTIFICATION_FIELDS = (
    *("EventType", "EventData", "EventTime", "EventId"),
    *("Version", "AppId", "Nonce"),
)
"""What the Signature of an RTC message notification covers: all of it."""


def volcengine_notification_signature(body: Mapping[str, str], *, secret_key: str) -> str:
    """Return the Signature of an RTC message notification, 64 lower-case hex digits.

    Source: docs/6348/69820, a plain hash over the sorted values and the console's secret key.
    `body` holds the `VOLCENGINE_NOTIFICATION_FIELDS` as they came.
    """
    values = (body[name].encode() for name in VOLCENGINE_NOTIFICATION_FIELDS)
    parts = sorted([*values, secret_key.encode()])
    return _sha256_hex(b"".join(parts))


def tencent_callback_sign(body: bytes, *, key: str) -> str:
    """Return the Sign header of a TRTC callback: base64 of an HMAC over the raw body."""
    return base64.b64encode(hmac.digest(key.encode(), body, "sha256")).decode()


def zego_callback_signature(*, callback_secret: str, timestamp: str, nonce: str) -> str:
    """Return the signature of a ZEGO callback, 40 lower-case hex digits. It covers no body."""
    text = "".join(sorted([callback_secret, timestamp, nonce]))
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()  # the vendor's choice


def _is_signed_by_v4(name: str) -> bool:
    return name in {"content-type", "content-md5", "host"} or name.startswith("x-")


def _canonical_request(
    request: Unsigned, values: Mapping[str, str], names: Sequence[str], payload: bytes
) -> bytes:
    """Return the six parts that both schemes hash, one below the other."""
    parts = [
        request.method.upper(),
        request.path or "/",
        canonical_query(request.query),
        # One line for each header. The last one ends too, so an empty line follows.
        "".join(f"{name}:{values.get(name, '')}\n" for name in names),
        ";".join(names),
        _sha256_hex(payload),
    ]
    return "\n".join(parts).encode()


def _scoped_signature(key: str, scope: str, text: str) -> str:
    """Sign `text` with the key that is derived through each part of the scope."""
    derived = key.encode()
    for part in scope.split("/"):
        derived = hmac.digest(derived, part.encode(), "sha256")
    return hmac.digest(derived, text.encode(), "sha256").hex()


def _encode_query(query: Query) -> str:
    pairs = (
        (key, value)
        for key, values in query.items()
        for value in ([values] if isinstance(values, str) else values)
    )
    return "&".join(
        f"{quote(key, safe='-_.~')}={quote(value, safe='-_.~')}" for key, value in pairs
    )


def _lower_names(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _sha256_hex(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
