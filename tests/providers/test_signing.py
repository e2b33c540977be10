import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from orchestrator.providers.signing import (
    TC3_ALGORITHM,
    UNSIGNED_PAYLOAD,
    Authorization,
    TC3Call,
    TC3Keys,
    Unsigned,
    V4Keys,
    canonical_query,
    sign_tc3,
    sign_v4,
    tc3_signature,
    tencent_callback_sign,
    v4_signature,
    volcengine_notification_signature,
    zego_callback_signature,
    zego_query,
    zego_signature,
)

VECTORS = Path(__file__).parent / "vectors"


def vectors(file: str) -> Any:
    return json.loads((VECTORS / file).read_text(encoding="utf-8"))


VOLCENGINE = vectors("volcengine_signing.json")
TENCENT = vectors("tencent_signing.json")
ZEGO = vectors("zego.json")


def by_name(vector: Any) -> str:
    return str(vector["name"])


def v4_keys(given: Any) -> V4Keys:
    return V4Keys(
        access_key_id=given["access_key_id"],
        secret_access_key=given["secret_access_key"],
        session_token=given["session_token"],
        region=given["region"],
    )


def v4_request(given: Any) -> Unsigned:
    headers = dict(given["headers_before"])
    return Unsigned(
        method=given["method"],
        host=headers.pop("Host"),
        path=given["path"],
        query=given["query"],
        headers=headers,
        body=given["body"].encode(),
    )


def x_date(given: Any) -> datetime:
    return datetime.strptime(given["x_date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)


@pytest.mark.parametrize("vector", VOLCENGINE["vectors"], ids=by_name)
def test_v4_sends_what_the_vendors_sdk_sends(vector: Any) -> None:
    given = vector["input"]
    headers = sign_v4(v4_request(given), keys=v4_keys(given), at=x_date(given))
    assert headers == vector["headers_after"]


@pytest.mark.parametrize("vector", VOLCENGINE["vectors"], ids=by_name)
def test_v4_verifies_what_the_vendors_sdk_signed(vector: Any) -> None:
    given = vector["input"]
    headers = vector["headers_after"]
    authorization = Authorization.from_header(headers["Authorization"])
    assert authorization is not None
    received = Unsigned(
        method=given["method"],
        host=headers["Host"],
        query=given["query"],
        headers=headers,
        body=given["body"].encode(),
    )
    signature = v4_signature(
        received,
        secret_access_key=given["secret_access_key"],
        scope=authorization.scope,
        signed_headers=authorization.signed_headers,
    )
    assert signature == authorization.signature
    assert authorization.key_id == given["access_key_id"]


def test_v4_takes_any_offset_and_signs_utc() -> None:
    given = VOLCENGINE["vectors"][0]["input"]
    local = x_date(given).astimezone(timezone(timedelta(hours=8)))
    headers = sign_v4(v4_request(given), keys=v4_keys(given), at=local)
    assert headers == VOLCENGINE["vectors"][0]["headers_after"]


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ({}, ""),
        ({"b": "1", "B": "2", "a": ""}, "B=2&a=&b=1"),
        ({"k": ["z", "a"]}, "k=z&k=a"),
        ({"k": []}, ""),
        ({"a b": "c+d/e~f@房"}, "a%20b=c%2Bd%2Fe~f%40%E6%88%BF"),
    ],
)
def test_canonical_query(query: Any, text: str) -> None:
    assert canonical_query(query) == text


def test_v4_presigned_query_is_what_the_canonical_query_encodes() -> None:
    presigned = VOLCENGINE["presigned"][0]["query_string"]
    credential = "AKLTFAKEFAKEFAKEFAKEFAKE0001/20260102/cn-north-1/rtc/request"
    assert canonical_query({"X-Credential": credential}) in presigned


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Bearer abc",
        "HMAC-SHA256 Credential=AK, SignedHeaders=host, Signature=" + "0" * 64,
        "HMAC-SHA256 Credential=AK/20260102/r/rtc/request, SignedHeaders=host, Signature=00",
        "HMAC-SHA256 Credential=AK/20260102/r/rtc/request, Signature=" + "0" * 64,
    ],
)
def test_what_is_no_authorization_has_no_parts(text: str) -> None:
    assert Authorization.from_header(text) is None


def test_authorization_goes_there_and_back() -> None:
    text = TENCENT["vectors"][0]["headers"]["Authorization"]
    authorization = Authorization.from_header(text)
    assert authorization is not None
    assert authorization.algorithm == TC3_ALGORITHM
    assert authorization.to_header() == text


@pytest.mark.parametrize("vector", TENCENT["vectors"], ids=by_name)
def test_tc3_sends_what_the_vendors_sdk_sends(vector: Any) -> None:
    given = vector["inputs"]
    call = TC3Call(
        host=given["host"],
        action=given["action"],
        version=given["version"],
        region=given["region"],
        body=vector["body"].encode(),
    )
    keys = TC3Keys(
        secret_id=given["secret_id"], secret_key=given["secret_key"], session_token=given["token"]
    )
    headers = sign_tc3(call, keys=keys, at=datetime.fromtimestamp(given["timestamp"], UTC))
    told_by_the_sdk_alone = {"X-TC-TraceId", "X-TC-RequestClient", "X-TC-Language"}
    assert headers == {k: v for k, v in vector["headers"].items() if k not in told_by_the_sdk_alone}


def test_tc3_signs_the_content_type_as_it_is_sent() -> None:
    vector = TENCENT["extra_non_sdk_vectors"][0]
    given = vector["inputs"]
    call = TC3Call(
        host=given["host"],
        action="StopAIConversation",
        version="2019-07-22",
        region="",
        body=vector["body"].encode(),
        content_type=given["content_type"],
    )
    keys = TC3Keys(secret_id=given["secret_id"], secret_key=given["secret_key"])
    headers = sign_tc3(call, keys=keys, at=datetime.fromtimestamp(given["timestamp"], UTC))
    assert headers["Authorization"] == vector["intermediate"]["authorization"]
    assert "X-TC-Region" not in headers


def test_tc3_honours_the_presented_list_and_an_unsigned_payload() -> None:
    headers = {
        "content-type": "application/json",
        "x-tc-action": "stopaiconversation",
        "x-tc-timestamp": "1735689600",
        "x-tc-content-sha256": UNSIGNED_PAYLOAD,
    }

    def sign(names: tuple[str, ...], body: bytes, sent: dict[str, str]) -> str:
        request = Unsigned(method="POST", host="trtc.example", headers=sent, body=body)
        scope = "2025-01-01/trtc/tc3_request"
        return tc3_signature(request, secret_key="fake", scope=scope, signed_headers=names)

    short, long = ("content-type", "host"), ("content-type", "host", "x-tc-action")
    assert sign(short, b"a", headers) == sign(short, b"b", headers)
    assert sign(short, b"a", headers) != sign(long, b"a", headers)
    with_payload = headers | {"x-tc-content-sha256": "0" * 64}
    assert sign(short, b"a", with_payload) != sign(short, b"b", with_payload)


@pytest.mark.parametrize(
    "vector", [ZEGO["request_signing"]["official_doc_example"], *ZEGO["request_signing"]["vectors"]]
)
def test_zego_signature(vector: Any) -> None:
    signature = zego_signature(
        app_id=vector["app_id"],
        server_secret=vector["server_secret"],
        nonce=vector["nonce"],
        timestamp=vector["timestamp"],
    )
    assert signature == vector.get("signature", vector.get("expected_signature"))


@pytest.mark.parametrize("negative", ZEGO["request_signing"]["negative"], ids=by_name)
def test_zego_signature_is_none_of_the_wrong_ones(negative: Any) -> None:
    good = ZEGO["request_signing"]["vectors"][0]
    signature = zego_signature(
        app_id=good["app_id"],
        server_secret=good["server_secret"],
        nonce=good["nonce"],
        timestamp=good["timestamp"],
    )
    assert signature != negative["signature"]


def test_zego_query_is_the_documented_url() -> None:
    vector = ZEGO["request_signing"]["vectors"][0]
    query = zego_query(
        app_id=vector["app_id"],
        server_secret=vector["server_secret"],
        nonce=vector["nonce"],
        at=datetime.fromtimestamp(vector["timestamp"], UTC),
        action=vector["action"],
    )
    assert vector["url"].endswith("/?" + query)


def test_zego_query_appends_the_actions_own_parameters() -> None:
    query = zego_query(
        app_id=1,
        server_secret="fake",
        nonce="00",
        at=datetime(2026, 1, 1, tzinfo=UTC),
        action="KickoutUser",
        extra={"RoomId": "a b", "UserId[]": ["x", "y"]},
    )
    assert query.endswith("&SignatureVersion=2.0&RoomId=a%20b&UserId%5B%5D=x&UserId%5B%5D=y")


@pytest.mark.parametrize("vector", VOLCENGINE["rtc_notification_signature"])
def test_volcengine_notification(vector: Any) -> None:
    signature = volcengine_notification_signature(vector["body"], secret_key=vector["secret_key"])
    assert signature == vector["body"]["Signature"]


@pytest.mark.parametrize("vector", vectors("tencent_callback.json")["vectors"], ids=by_name)
def test_tencent_callback(vector: Any) -> None:
    assert tencent_callback_sign(vector["body"].encode(), key=vector["key"]) == vector["sign"]


@pytest.mark.parametrize(
    "vector",
    [ZEGO["callback_signing"]["official_doc_example"], *ZEGO["callback_signing"]["vectors"]],
)
def test_zego_callback(vector: Any) -> None:
    signature = zego_callback_signature(
        callback_secret=vector["callback_secret"],
        timestamp=str(vector["timestamp"]),
        nonce=vector["nonce"],
    )
    assert signature == vector.get("signature", vector.get("expected_signature"))


@pytest.mark.parametrize(
    "keys",
    [
        V4Keys(access_key_id="id", secret_access_key="fake-secret", session_token="fake-token"),
        TC3Keys(secret_id="id", secret_key="fake-secret", session_token="fake-token"),
    ],
)
def test_keys_show_no_secret(keys: V4Keys | TC3Keys) -> None:
    assert "fake" not in repr(keys)
