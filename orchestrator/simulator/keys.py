"""The accounts a simulated vendor accepts: what a customer and the vendor both know.

Rule 1: nothing here is secret by itself; whoever builds these decides. No key is ever shown by
`repr`, a log line or a `/_sim/` route.
Rule 2: several accounts may share one signing key (two apps of one customer), but then they share
its secret too.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class VolcengineKeys:
    """One app of one Volcengine customer; calls are told apart by the access key id."""

    account: str
    app_id: str
    """24 characters."""
    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)
    """Expected in `X-Security-Token` where the key is a temporary one."""
    callback_url: str | None = None
    callback_secret: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class TencentKeys:
    """One TRTC app of one Tencent customer; calls are told apart by the secret id."""

    account: str
    sdk_app_id: int
    secret_id: str
    secret_key: str = field(repr=False)
    usersig_key: str = field(repr=False)
    """64 hex characters, used as text: signs UserSig."""
    session_token: str | None = field(default=None, repr=False)
    callback_url: str | None = None
    callback_secret: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ZegoKeys:
    """One ZEGO app; calls are told apart by its AppId."""

    account: str
    app_id: int
    server_secret: str = field(repr=False)
    """32 characters."""
    callback_url: str | None = None
    callback_secret: str | None = field(default=None, repr=False)


Keys = VolcengineKeys | TencentKeys | ZegoKeys

DEMO: tuple[VolcengineKeys, TencentKeys, ZegoKeys] = (
    VolcengineKeys(
        account="volcengine",
        app_id="0123456789abcdef01234567",
        access_key_id="AKLTdemodemodemodemodemodemodemodemo",
        secret_access_key="ZGVtby1zZWNyZXQtZGVtby1zZWNyZXQtZGVtbw==",  # noqa: S106 - plainly fake, printed for everybody
        callback_secret="demo-volcengine-callback",  # noqa: S106 - plainly fake
    ),
    TencentKeys(
        account="tencent",
        sdk_app_id=1400000001,
        secret_id="AKIDdemodemodemodemodemodemodemodemo",  # noqa: S106 - plainly fake
        secret_key="fakefakefakefakefakefakefakefake",  # noqa: S106 - plainly fake
        usersig_key="de30" * 16,
        callback_secret="DemoTencentCallback",  # noqa: S106 - plainly fake
    ),
    ZegoKeys(
        account="zego",
        app_id=1234567890,
        server_secret="0123456789abcdef0123456789abcdef",  # noqa: S106 - plainly fake
        callback_secret="demo-zego-callback",  # noqa: S106 - plainly fake
    ),
)
"""One account per vendor for whoever has no configuration: plainly fake, well-formed."""
