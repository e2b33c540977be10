import base64
import hmac
import json
import zlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.providers.tokens import (
    PUBLISH_STREAM,
    SUBSCRIBE_STREAM,
    USER_SIG_LIMIT,
    RtcToken,
    UserSig,
    make_user_sig,
    verify_user_sig,
)

VECTORS = Path(__file__).parent / "vectors"
AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
HOUR = timedelta(hours=1)


def vectors(file: str) -> Any:
    return json.loads((VECTORS / file).read_text(encoding="utf-8"))["vectors"]


def unpack(user_sig: str) -> Any:
    plain = user_sig.replace("*", "+").replace("-", "/").replace("_", "=")
    return json.loads(zlib.decompress(base64.b64decode(plain)))


def pack(claims: bytes) -> str:
    text = base64.b64encode(zlib.compress(claims)).decode()
    return text.replace("+", "*").replace("/", "-").replace("=", "_")


@pytest.mark.parametrize("vector", vectors("tencent_usersig.json"))
def test_user_sig_says_what_the_vendors_library_says(vector: Any) -> None:
    given = vector["inputs"]
    user_sig = make_user_sig(
        sdk_app_id=given["sdkappid"],
        key=given["key"],
        user_id=given["identifier"],
        at=datetime.fromtimestamp(given["now"], UTC),
        life=timedelta(seconds=given["expire"]),
    )
    assert unpack(user_sig) == vector["decoded_json"]


@pytest.mark.parametrize("vector", vectors("tencent_usersig.json"))
def test_a_user_sig_of_the_vendors_library_is_verified(vector: Any) -> None:
    given = vector["inputs"]
    assert verify_user_sig(vector["usersig"], key=given["key"]) == UserSig(
        sdk_app_id=given["sdkappid"],
        user_id=given["identifier"],
        issued_at=datetime.fromtimestamp(given["now"], UTC),
        life=timedelta(seconds=given["expire"]),
    )


def good_user_sig() -> str:
    return make_user_sig(sdk_app_id=1, key="fake", user_id="agent", at=AT, life=HOUR)


def test_a_user_sig_under_another_key_is_none() -> None:
    assert verify_user_sig(good_user_sig(), key="other") is None


@pytest.mark.parametrize(
    "token",
    [
        "",
        "eJ",
        "not base64!",
        "\u00e9",
        base64.b64encode(b"not zlib").decode(),
        pack(b"no json"),
        pack(b"[]"),
        pack(b"{}"),
        pack(b'{"TLS.sig": 5}'),
        pack(b'{"TLS.sig": "\\ud800", "TLS.identifier": "\\ud800"}'),
        pack(b" " * USER_SIG_LIMIT + b"{}"),
        pack(b"[" * USER_SIG_LIMIT),
    ],
)
def test_what_is_no_user_sig_is_none(token: str) -> None:
    assert verify_user_sig(token, key="fake") is None


def test_a_signed_user_sig_without_a_time_is_none() -> None:
    text = b"TLS.identifier:agent\n"
    signature = base64.b64encode(hmac.digest(b"fake", text, "sha256")).decode()
    claims = {"TLS.identifier": "agent", "TLS.sig": signature}
    assert verify_user_sig(pack(json.dumps(claims).encode()), key="fake") is None


@pytest.mark.parametrize(
    ("now", "valid"),
    [
        (AT - timedelta(seconds=1), False),
        (AT, True),
        (AT + HOUR - timedelta(seconds=1), True),
        (AT + HOUR, False),
    ],
)
def test_a_user_sig_holds_for_its_life(now: datetime, valid: bool) -> None:
    user_sig = verify_user_sig(good_user_sig(), key="fake")
    assert user_sig is not None
    assert user_sig.is_valid_at(now) is valid


def rtc_token(given: Any) -> RtcToken:
    return RtcToken(
        app_id=given["app_id"],
        room_id=given["room_id"],
        user_id=given["user_id"],
        nonce=given["nonce"],
        issued_at=given["issued_at"],
        expire_at=given["expire_at"],
        privileges=dict(given["privileges"]),
    )


@pytest.mark.parametrize("vector", vectors("volcengine_token.json"))
def test_rtc_token_is_the_vendors_byte_for_byte(vector: Any) -> None:
    given = vector["input"]
    assert rtc_token(given).sign(app_key=given["app_key"]) == vector["token"]


@pytest.mark.parametrize("vector", vectors("volcengine_token.json"))
def test_an_rtc_token_of_the_vendors_code_is_read(vector: Any) -> None:
    given = vector["input"]
    token = RtcToken.parse(vector["token"], app_key=given["app_key"])
    assert token is not None
    assert {str(k): v for k, v in token.privileges.items()} == vector["parsed_privileges"]
    assert (token.app_id, token.room_id, token.user_id) == (
        given["app_id"],
        given["room_id"],
        given["user_id"],
    )
    assert (token.nonce, token.issued_at, token.expire_at) == (
        given["nonce"],
        given["issued_at"],
        given["expire_at"],
    )


APP_ID = "0" * 24


def good_rtc_token(**changes: Any) -> RtcToken:
    fields: dict[str, Any] = {
        "app_id": APP_ID,
        "room_id": "room",
        "user_id": "user",
        "nonce": 1,
        "issued_at": 1767323045,
    }
    return RtcToken(**(fields | changes))


@given(
    room_id=st.text(st.characters(codec="utf-8"), max_size=128),
    nonce=st.integers(0, 2**32 - 1),
    privileges=st.dictionaries(st.just(SUBSCRIBE_STREAM), st.integers(0, 2**32 - 1)),
)
def test_an_rtc_token_goes_there_and_back(
    room_id: str, nonce: int, privileges: dict[int, int]
) -> None:
    token = good_rtc_token(room_id=room_id, nonce=nonce, privileges=privileges)
    assert RtcToken.parse(token.sign(app_key="fake"), app_key="fake") == token


def test_to_publish_is_to_publish_everything() -> None:
    text = good_rtc_token(privileges={PUBLISH_STREAM: 7, 2: 9}).sign(app_key="fake")
    token = RtcToken.parse(text, app_key="fake")
    assert token is not None
    assert token.privileges == {0: 7, 1: 7, 2: 9, 3: 7}


@given(st.data())
def test_a_changed_rtc_token_is_none(data: st.DataObject) -> None:
    text = good_rtc_token().sign(app_key="fake")
    start = 3 + len(APP_ID)
    at = data.draw(st.integers(start, len(text) - 1))
    assert RtcToken.parse(text[:at], app_key="fake") is None
    # The last character's low bits may be padding, so a whole group of four is overwritten.
    group = start + (at - start) // 4 * 4
    changed = text[:group] + "####" + text[group + 4 :]
    assert RtcToken.parse(changed, app_key="fake") is None


@pytest.mark.parametrize(
    "text",
    ["", "001", "001" + APP_ID, "002" + APP_ID + "AAAA", "001" + APP_ID + "AAAAAA=="],
)
def test_what_is_no_rtc_token_is_none(text: str) -> None:
    assert RtcToken.parse(text, app_key="fake") is None


def test_an_rtc_token_under_another_key_is_none() -> None:
    text = good_rtc_token().sign(app_key="fake")
    assert RtcToken.parse(text, app_key="other") is None


def test_an_app_id_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(ValueError, match="24 characters"):
        good_rtc_token(app_id="short").sign(app_key="fake")


@pytest.mark.parametrize(
    ("expire_at", "valid"),
    [(0, True), (int(AT.timestamp()), True), (int(AT.timestamp()) - 1, False)],
)
def test_an_rtc_token_expires(expire_at: int, valid: bool) -> None:
    assert good_rtc_token(expire_at=expire_at).is_valid_at(AT) is valid
