"""Whether a UserSig opens the room: the vendor's side of tls-sig-api v2.

The signing side is in the providers; this one reads what somebody else made, so it trusts nothing.
"""

import base64
import hashlib
import hmac
import json
import zlib
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from orchestrator.simulator.keys import TencentKeys

SKEW_S = 300
"""How far in the future the time in a UserSig may lie."""
LARGEST = 4096
"""Bytes of JSON a UserSig may unpack to; a real one has about 200."""


def verify_usersig(usersig: str, user_id: str, keys: TencentKeys, now: datetime) -> str | None:
    """Return what is wrong with the UserSig, or None if it lets `user_id` in at `now`."""
    claims = _unpack(usersig)
    if claims is None:
        return "UserSig is malformed"
    if (claims["TLS.identifier"], claims["TLS.sdkappid"]) != (user_id, keys.sdk_app_id):
        return "UserSig is of another user or SdkAppId"
    if not hmac.compare_digest(claims["TLS.sig"].encode(), _signature(claims, keys.usersig_key)):
        return "UserSig is signed with another key"
    made_at, life = claims["TLS.time"], claims["TLS.expire"]
    if not made_at - SKEW_S <= now.timestamp() < made_at + life:
        return "UserSig has expired or is not valid yet"
    return None


def _unpack(usersig: str) -> Mapping[str, Any] | None:
    packed = usersig.replace("*", "+").replace("-", "/").replace("_", "=")
    try:
        inflated = zlib.decompressobj().decompress(base64.b64decode(packed, validate=True), LARGEST)
        claims = json.loads(inflated)
    except (ValueError, zlib.error):
        return None
    return claims if isinstance(claims, dict) and _is_complete(claims) else None


def _is_complete(claims: Mapping[str, Any]) -> bool:
    texts = all(isinstance(claims.get(f"TLS.{name}"), str) for name in ("identifier", "sig"))
    numbers = (claims.get(f"TLS.{name}") for name in ("sdkappid", "time", "expire"))
    return texts and all(type(number) is int for number in numbers)


def _signature(claims: Mapping[str, Any], key: str) -> bytes:
    names = ["identifier", "sdkappid", "time", "expire"]
    if "TLS.userbuf" in claims:
        names.append("userbuf")
    text = "".join(f"TLS.{name}:{claims[f'TLS.{name}']}\n" for name in names)
    return base64.b64encode(hmac.new(key.encode(), text.encode(), hashlib.sha256).digest())
