"""Tokens that let somebody into a room: Tencent's UserSig and Volcengine's RTC token 001.

Made for agents and clients, verified by the simulator.

Rule 1: pure. The time and the nonce are parameters; times are `datetime`, or seconds where the
format itself counts them.
Rule 2: a token that cannot be read is None, never an exception: it comes from outside.
"""

import base64
import hmac
import json
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from orchestrator.providers.fields import IdRule

USER_SIG_USER = IdRule(limit=32, characters=r"A-Za-z0-9_-", alphabet="letters, digits, _ and -")
"""Tencent's users, as its own library for UserSig says."""
USER_SIG_LIMIT = 4096
"""Bytes a UserSig may unpack to: a compressed token must not fill the memory."""

RTC_VERSION = "001"
RTC_APP_ID_LENGTH = 24
RTC_ID = IdRule(limit=128, characters=r"A-Za-z0-9_\-.@", alphabet="letters, digits, _ - . and @")
"""Volcengine's users and rooms (docs/6348/70114)."""
PUBLISH_STREAM = 0
SUBSCRIBE_STREAM = 4
_MEDIA_OF_PUBLISH = (1, 2, 3)
"""Audio, video and data: granting to publish grants these for as long."""
_RTC_HEADER = struct.Struct("<III")
_RTC_PRIVILEGE = struct.Struct("<HI")
_U16 = struct.Struct("<H")

_TO_URL = str.maketrans("+/=", "*-_")
_FROM_URL = str.maketrans("*-_", "+/=")


# --- Tencent UserSig (tls-sig-api v2) ---


@dataclass(frozen=True, slots=True, kw_only=True)
class UserSig:
    """What a UserSig says: this user of this application may enter, from `issued_at` on."""

    sdk_app_id: int
    user_id: str
    issued_at: datetime
    """UTC, whole seconds."""
    life: timedelta

    def is_valid_at(self, now: datetime) -> bool:
        """Tell whether it holds at `now`. Clocks are not forgiven here; the caller shifts `now`."""
        return self.issued_at <= now < self.issued_at + self.life


def make_user_sig(*, sdk_app_id: int, key: str, user_id: str, at: datetime, life: timedelta) -> str:
    """Return the UserSig of `user_id`. `key` is the application's, used as text, not as hex."""
    claims: dict[str, Any] = {
        "TLS.ver": "2.0",
        "TLS.identifier": user_id,
        "TLS.sdkappid": sdk_app_id,
        "TLS.expire": int(life.total_seconds()),
        "TLS.time": int(at.timestamp()),
    }
    claims["TLS.sig"] = _user_sig_signature(claims, key)
    packed = zlib.compress(json.dumps(claims).encode())
    return base64.b64encode(packed).decode().translate(_TO_URL)


def verify_user_sig(token: str, *, key: str) -> UserSig | None:
    """Return what the UserSig says, or None if it is none or was not made with `key`.

    Whose it is, and whether it still holds, is the caller's to compare.
    """
    claims = _unpack_user_sig(token)
    if claims is None:
        return None
    signature = claims.get("TLS.sig")
    if not isinstance(signature, str):
        return None
    expected = _user_sig_signature(claims, key)
    if not hmac.compare_digest(signature.encode(errors="replace"), expected.encode()):
        return None
    try:
        return UserSig(
            sdk_app_id=int(claims["TLS.sdkappid"]),
            user_id=str(claims["TLS.identifier"]),
            issued_at=datetime.fromtimestamp(int(claims["TLS.time"]), UTC),
            life=timedelta(seconds=int(claims["TLS.expire"])),
        )
    except (KeyError, ValueError, TypeError, OverflowError, OSError):
        return None  # signed with the key, and still no UserSig


def _user_sig_signature(claims: Mapping[str, Any], key: str) -> str:
    names = ("TLS.identifier", "TLS.sdkappid", "TLS.time", "TLS.expire", "TLS.userbuf")
    text = "".join(f"{name}:{claims[name]}\n" for name in names if name in claims)
    digest = hmac.digest(key.encode(), text.encode(errors="replace"), "sha256")
    return base64.b64encode(digest).decode()


def _unpack_user_sig(token: str) -> dict[str, Any] | None:
    try:
        packed = base64.b64decode(token.translate(_FROM_URL), validate=True)
        claims = json.loads(zlib.decompressobj().decompress(packed, USER_SIG_LIMIT))
    except (ValueError, zlib.error, RecursionError):
        return None
    return claims if isinstance(claims, dict) else None


# --- Volcengine RTC token, version 001 (docs/6348/70121) ---


@dataclass(frozen=True, slots=True, kw_only=True)
class RtcToken:
    """What an RTC token says: this user may enter this room. Times in Unix seconds, 0 is never."""

    app_id: str
    room_id: str
    user_id: str
    nonce: int
    """32 bits, drawn anew for each token."""
    issued_at: int
    expire_at: int = 0
    """Beats the expiries of the privileges."""
    privileges: Mapping[int, int] = field(default_factory=dict)
    """Expiry of each privilege."""

    @classmethod
    def parse(cls, token: str, *, app_key: str) -> Self | None:
        """Return what the token says, or None if it is none or was not made with `app_key`."""
        version_and_app = len(RTC_VERSION) + RTC_APP_ID_LENGTH
        if not token.startswith(RTC_VERSION) or len(token) <= version_and_app:
            return None
        try:
            content = _Reader(base64.b64decode(token[version_and_app:], validate=True))
            message, signature = content.sized(), content.sized()
            if not hmac.compare_digest(signature, hmac.digest(app_key.encode(), message, "sha256")):
                return None
            return cls._from_message(token[len(RTC_VERSION) : version_and_app], _Reader(message))
        except (ValueError, struct.error):
            return None

    @classmethod
    def _from_message(cls, app_id: str, message: "_Reader") -> Self:
        nonce, issued_at, expire_at = message.take(_RTC_HEADER)
        room_id, user_id = message.sized().decode(), message.sized().decode()
        (count,) = message.take(_U16)
        privileges = dict(message.take(_RTC_PRIVILEGE) for _ in range(count))
        return cls(
            app_id=app_id,
            room_id=room_id,
            user_id=user_id,
            nonce=nonce,
            issued_at=issued_at,
            expire_at=expire_at,
            privileges=privileges,
        )

    def is_valid_at(self, now: datetime) -> bool:
        """Tell whether the token as a whole holds at `now`."""
        return self.expire_at == 0 or now.timestamp() <= self.expire_at

    def sign(self, *, app_key: str) -> str:
        """Return the token's text. Raises ValueError if the app id is not 24 characters long."""
        if len(self.app_id) != RTC_APP_ID_LENGTH:
            raise ValueError(f"an RTC app id has {RTC_APP_ID_LENGTH} characters: {self.app_id!r}")
        message = self._message()
        signature = hmac.digest(app_key.encode(), message, "sha256")
        content = base64.b64encode(_sized(message) + _sized(signature)).decode()
        return f"{RTC_VERSION}{self.app_id}{content}"

    def _message(self) -> bytes:
        privileges = sorted(self._granted().items())
        return b"".join(
            [
                _RTC_HEADER.pack(self.nonce, self.issued_at, self.expire_at),
                _sized(self.room_id.encode()),
                _sized(self.user_id.encode()),
                _U16.pack(len(privileges)),
                *(_RTC_PRIVILEGE.pack(privilege, until) for privilege, until in privileges),
            ]
        )

    def _granted(self) -> dict[int, int]:
        if PUBLISH_STREAM not in self.privileges:
            return dict(self.privileges)
        until = self.privileges[PUBLISH_STREAM]
        return {**dict.fromkeys(_MEDIA_OF_PUBLISH, until), **self.privileges}


def _sized(content: bytes) -> bytes:
    return _U16.pack(len(content)) + content


class _Reader:
    """Takes little-endian pieces off a message, front to back; raises struct.error at its end."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._at = 0

    def take(self, piece: struct.Struct) -> tuple[Any, ...]:
        found = piece.unpack_from(self._content, self._at)
        self._at += piece.size
        return found

    def sized(self) -> bytes:
        (size,) = self.take(_U16)
        (found,) = self.take(struct.Struct(f"{size}s"))
        return bytes(found)
