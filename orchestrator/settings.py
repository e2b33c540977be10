"""The configuration as values: every table, every key, its unit, its default and why that default.

Rule 1: this file reads nothing; `config` finds the file, the environment and the secrets.
Rule 2: a key here has a docstring and stands in the example `config.toml` (a test compares them).
Rule 3: units are part of the name (`_s`, `_ms`, `_days`, `_bytes`); numbers are whole.
"""

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from orchestrator.secret import Secret
from orchestrator.setting_types import (
    AppId,
    BearerKey,
    CallsPerSecond,
    DatabaseUrl,
    Endpoint,
    HeaderName,
    HeaderValue,
    Listen,
    PassedHeader,
    Positive,
    PostgresUrl,
    SecretKey,
    UpstreamName,
    WebAddress,
)

LONGEST_S: Final = 31_536_000
"""A year: what is added to a time must stay one."""

VolcengineAction = Literal[
    "StartVoiceChat", "UpdateVoiceChat", "StopVoiceChat", "GetRoomOnlineUsers"
]
TencentAction = Literal[
    "StartAIConversation",
    "StopAIConversation",
    "DescribeAIConversation",
    "UpdateAIConversation",
    "ControlAIConversation",
    "RemoveUser",
    "RemoveUserByStrRoomId",
]
ZegoAction = Literal[
    "RegisterAgent",
    "UpdateAgent",
    "CreateAgentInstance",
    "UpdateAgentInstance",
    "DeleteAgentInstance",
    "QueryAgentInstanceStatus",
    "InterruptAgentInstance",
    "SendAgentInstanceLLM",
    "SendAgentInstanceTTS",
    "StartListening",
    "StopListening",
    "DescribeUserList",
    "KickoutUser",
]


class Table(BaseModel):
    """A table of the file: unknown keys and near-miss types are mistakes, values never change."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True
    )


class Daemon(Table):
    """`[daemon]`: this process."""

    name: str = Field("", max_length=64)
    """What `lease_owner` and `daemon.name` show. Empty: the host's name."""
    owner_prefix: str = Field("orc", pattern=r"^[a-z0-9]{1,6}$")
    """Begins every name given to a vendor. Databases that share a vendor account tell their agents
    apart by it and the installation's own mark. Short, because vendors allow 32 bytes."""
    shutdown_timeout_s: int = Field(20, ge=1, le=600)
    """Seconds that calls in flight may take to finish after SIGTERM. Longer than one call."""


class Database(Table):
    """`[database]`: where the rows are."""

    url: DatabaseUrl = Secret("sqlite:////var/lib/orchestrator/orchestrator.db", "default")
    """`sqlite:///relative/path`, `sqlite:////absolute/path` or `postgresql://…`; may be a secret. A
    relative path counts from the configuration file."""
    schema_: str = Field("public", alias="schema", pattern=r"^[a-z_][a-z0-9_]{0,62}$")
    """Postgres: the schema that holds our tables. Not used on SQLite."""
    wake: Literal["notify", "poll"] = "notify"
    """How the daemon hears of commits. `poll` costs some milliseconds; it spares applications that
    commit thousands of times a second the price of NOTIFY, and allows PREPARE TRANSACTION."""
    pool_size: int = Field(10, ge=3, le=200)
    """Postgres: connections at most. Two thirds of it idle is normal."""
    listen_url: PostgresUrl | None = None
    """Postgres: a direct connection for LISTEN, where `url` goes through a transaction pooler."""


class AccountBase(Table):
    """What every account has, whichever vendor it is at."""

    max_duration_s: int | None = Field(None, ge=1, le=LONGEST_S)
    """Seconds after which an agent is stopped, whatever its row says. Empty: no limit of ours."""
    max_agents: int | None = Field(None, ge=1, le=1_000_000)
    """Agents at a time. Empty: no limit of ours; the vendor's still holds."""
    start_within_s: int = Field(3600, ge=1, le=LONGEST_S)
    """Seconds after which a start that has not happened is not wanted any more: an hour-old row
    must not start a call at night."""
    call_timeout_ms: int = Field(10_000, ge=100, le=60_000)
    """Milliseconds for one call. Lies inside the lease."""
    poll_s: int = Field(60, ge=1, le=86_400)
    """Seconds between two looks at a running agent."""
    idle_timeout_s: int | None = Field(None, ge=10, le=LONGEST_S)
    """Seconds after which an agent is stopped that nobody talked to, where its model is asked
    through the LLM gateway. Empty: no limit of ours."""
    signature_life_s: int = Field(90, ge=10, le=900)
    """Seconds for which the vendor may still honour a start that was sent: the horizon behind which
    "gone" is believed. Shorter settles lost replies sooner and forgives the clock less."""
    settle_in_s: int = Field(10, ge=0, le=600)
    """Seconds that a vendor may not yet know its own task after it took the start."""
    clock_margin_s: int = Field(15, ge=0, le=300)
    """Seconds by which our clock and the vendor's may differ unnoticed."""


class VolcengineAccount(AccountBase):
    """`[accounts.<name>]` with `provider = "volcengine"`."""

    provider: Literal["volcengine"]
    """Which vendor."""
    app_id: AppId
    """The RTC application's AppId."""
    access_key_id: SecretKey
    """AccessKey ID of a user that may call RTC."""
    secret_access_key: SecretKey
    """Its Secret Access Key."""
    session_token: SecretKey | None = None
    """The token of temporary (STS) keys."""
    region: str = Field("cn-north-1", min_length=1, max_length=64)
    """Region in the signature."""
    api_version: Literal["2024-06-01", "2024-12-01", "2025-06-01"] = "2024-12-01"
    """Version of StartVoiceChat. 2024-06-01 knows no TaskId, so one row per room and user."""
    endpoint: Endpoint = "https://rtc.volcengineapi.com"
    """Scheme and host, no path."""
    app_key: SecretKey | None = None
    """The application's AppKey: makes RTC tokens for clients."""
    callback_secret: SecretKey | None = None
    """Secret of the message notification's signature."""
    qps: dict[VolcengineAction, CallsPerSecond] = Field(default_factory=dict)
    """Action = calls per second; 0: no limit. Default: the vendor's documented limit."""


class TencentAccount(AccountBase):
    """`[accounts.<name>]` with `provider = "tencent"`."""

    provider: Literal["tencent"]
    """Which vendor."""
    sdk_app_id: Positive
    """The TRTC application's SdkAppId."""
    secret_id: SecretKey
    """SecretId of an API key."""
    secret_key: SecretKey
    """Its SecretKey."""
    session_token: SecretKey | None = None
    """The token of temporary (STS) keys."""
    region: str = Field(min_length=1, max_length=64)
    """Where actions run, for example `ap-singapore`. A task is known only in its region."""
    usersig_key: SecretKey
    """The application's key for UserSig: the agent needs one to enter the room."""
    endpoint: Endpoint = "https://trtc.intl.tencentcloudapi.com"
    """Scheme and host, no path. The site in China is `https://trtc.tencentcloudapi.com`."""
    callback_key: SecretKey | None = None
    """Key of the callbacks' `Sign` header."""
    signature_life_s: int = Field(90, ge=10, le=300)
    """As for all accounts; Tencent honours a signature for 300 seconds at most."""
    qps: dict[TencentAction, CallsPerSecond] = Field(default_factory=dict)
    """Action = calls per second; 0: no limit. Default: the vendor's documented limit."""


class ZegoAccount(AccountBase):
    """`[accounts.<name>]` with `provider = "zego"`."""

    provider: Literal["zego"]
    """Which vendor."""
    app_id: Positive
    """The project's AppId."""
    server_secret: SecretKey
    """The project's ServerSecret."""
    callback_secret: SecretKey | None = None
    """The project's CallbackSecret."""
    endpoint: Endpoint = "https://aigc-aiagent-api.zegotech.cn"
    """Scheme and host of the AI Agent API, no path."""
    rtc_endpoint: Endpoint = "https://rtc-api.zego.im"
    """Scheme and host of the RTC server API: its room look-up and kick."""
    signature_life_s: int = Field(90, ge=10, le=600)
    """As for all accounts; ZEGO honours a signature for 600 seconds at most."""
    qps: dict[ZegoAction, CallsPerSecond] = Field(default_factory=dict)
    """Action = calls per second; 0: no limit. Default: the vendor's documented limit."""


Account = VolcengineAccount | TencentAccount | ZegoAccount


class Leases(Table):
    """`[leases]`: how long a daemon owns a row that it works on."""

    ttl_s: int = Field(15, ge=3, le=300)
    """Seconds. After a crash another daemon takes over when they are past; longer than a call."""


class Retry(Table):
    """`[retry]`: exponential, with jitter."""

    base_ms: int = Field(500, ge=10, le=60_000)
    """Milliseconds before the second attempt."""
    cap_ms: int = Field(60_000, ge=100, le=3_600_000)
    """Milliseconds between attempts at most. A failed stop is retried for ever, so not too long."""


class Lanes(Table):
    """`[lanes]`: push-to-talk."""

    gap_timeout_ms: int = Field(300, ge=0, le=60_000)
    """Milliseconds to wait for a missing Sequence before going on. A press must feel immediate."""
    command_ttl_ms: int = Field(5_000, ge=100, le=3_600_000)
    """Milliseconds after which a command that was not sent expires: an old press must not open the
    microphone."""


class Orphans(Table):
    """`[orphans]`: agents that run and have no row."""

    foreign: Literal["report", "stop"] = "report"
    """What to do with agents that are not ours. Ours are always stopped."""


class Callbacks(Table):
    """`[callbacks]`: the vendors' posts."""

    listen: Listen | None = None
    """`HOST:PORT` to listen at. Empty: no callbacks; nothing depends on them alone."""
    max_body_bytes: int = Field(131_072, ge=1_024, le=1_048_576)
    """Larger posts are answered 413. The vendors' are some kilobytes."""


class LlmGateway(Table):
    """`[llm_gateway]`: where the vendors ask for what agents say."""

    listen: Listen | None = None
    """`HOST:PORT` to listen at, behind a proxy with TLS. Empty: no gateway."""
    public_url: WebAddress | None = None
    """What the vendors call: the proxy's URL, to which `/llm/…` is added."""
    token_secret: SecretKey | None = None
    """What agents' tokens are made with. Empty: each account's vendor key, whose rotation then
    makes running agents mute."""
    former_token_secret: SecretKey | None = None
    """The `token_secret` before this one: its tokens are good as long as it stands here."""
    max_body_bytes: int = Field(1_048_576, ge=1_024, le=4_194_304)
    """Larger requests are answered 413. A long history has some 100 kilobytes."""
    first_token_timeout_ms: int = Field(4_000, ge=100, le=60_000)
    """Milliseconds that an upstream may take to its first word; then its fallback is asked, or the
    turn is ended. Volcengine waits 10 s for an answer."""
    total_timeout_ms: int = Field(60_000, ge=1_000, le=600_000)
    """Milliseconds that one turn may take."""
    apology: str = Field("", max_length=500)
    """What the agent says when no upstream has answered. Empty: nothing."""
    keep_text: bool = False
    """Whether `llm_turn` keeps what the user said and what was answered."""


class LlmUpstream(Table):
    """`[llm_upstreams.<name>]`: a model that speaks OpenAI's chat completions."""

    url: WebAddress
    """Its base URL, as OpenAI's clients take it, or the whole URL of its chat completions."""
    api_key: BearerKey | None = None
    """Sent as bearer token."""
    model: str = Field("", max_length=256)
    """The model that it is asked for. Empty: the one that the vendor names."""
    headers: dict[HeaderName, HeaderValue] = Field(default_factory=dict)
    """Sent along; a value may be a secret."""
    fallback: UpstreamName | None = None
    """The upstream that is asked when this one says nothing in time."""
    pass_fields: list[str] = Field(default_factory=list)
    """Fields of a request that are the vendor's own and sent on: `round_id`, `agent_info`, keys of
    Volcengine's `Custom`; `*`: all. OpenAI itself refuses fields that it does not know."""
    pass_headers: list[PassedHeader] = Field(default_factory=list)
    """Headers of a request that are sent on, for example `X-Task-Id`."""
    count_tokens: bool = True
    """Whether it is asked to count tokens (`stream_options.include_usage`)."""


class Metrics(Table):
    """`[metrics]`: Prometheus, `/healthz` and `/readyz`."""

    listen: Listen | None = None
    """`HOST:PORT` to listen at. Empty: no metrics."""


class Retention(Table):
    """`[retention]`: what is forgotten, and when."""

    events_days: int = Field(30, ge=1, le=3_650)
    """Days that `agent_event` keeps."""
    stopped_days: int = Field(30, ge=0, le=3_650)
    """Days after which an ended, evidenced task goes with its status and commands; 0: never."""
    commands_days: int = Field(7, ge=1, le=3_650)
    """Days that settled commands are kept."""
    turns_days: int = Field(7, ge=1, le=3_650)
    """Days that turns at the LLM gateway are kept."""


class Log(Table):
    """`[log]`: what goes to standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe level that is written."""
    format: Literal["json", "console"] = "json"
    """`json`: one object per line, for machines. `console`: for people."""
