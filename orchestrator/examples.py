"""What `dev` shows: three tasks, with the bodies of the vendors' own pages, and a talk with each.

Rule 1: only documented fields, with the documents' values; where a page has a placeholder for a
key there is `{"$secret": …}`, as it should be in real life, and where it has the URL and the key of
a model, `"$llm_gateway"`.
Rule 2: ids are fixed, so that the lines which `dev` prints name them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A row of `agent_task`, less what the database fills in."""

    id: str
    account: str
    room_id: str
    user_id: str
    spec: Mapping[str, Any]


UPSTREAM = "echo"
"""The model that the examples ask, under `[llm_upstreams]`."""
SECRETS = {"tts_token": "demo-tts-token"}
"""What the examples' `{"$secret": …}` resolve to: plainly fake."""

VOLCENGINE = {
    "AgentConfig": {
        "WelcomeMessage": "Hello! How can I help you?",
        "EnableConversationStateCallback": True,
        "AnsMode": 3,
    },
    "Config": {
        "ASRConfig": {
            "Provider": "volcano",
            "ProviderParams": {
                "AppId": "your-asr-app-id",
                "Mode": "smallmodel",
                "Cluster": "volcengine_streaming_common",
            },
            "VADConfig": {"SilenceTime": 600},
            "VolumeGain": 0.5,
            "TurnDetectionMode": 0,
            "InterruptConfig": {
                "InterruptSpeechDuration": 400,
                "InterruptKeywords": ["stop", "wait"],
            },
        },
        "TTSConfig": {
            "Provider": "volcano",
            "ProviderParams": {
                "app": {
                    "appid": "your-tts-app-id",
                    "token": {"$secret": "tts_token"},
                    "cluster": "volcano_tts",
                },
                "audio": {
                    "voice_type": "BV033_streaming",
                    "speed_ratio": 1.2,
                    "pitch_ratio": 1.1,
                    "volume_ratio": 1.0,
                    "emotion": "happy",
                    "emotion_strength": 0.8,
                },
                "ResourceId": "your-resource-id",
            },
        },
        "LLMConfig": {
            "Mode": "CustomLLM",
            "$llm_gateway": UPSTREAM,
            "Temperature": 0.5,
            "TopP": 0.9,
            "MaxTokens": 256,
            "HistoryLength": 15,
            "EnableRoundId": True,
            "VisionConfig": {"Enable": False},
            "UserPrompts": [
                {"Role": "assistant", "Content": "Hi, I'm your assistant. Nice to meet you!"}
            ],
        },
        "InterruptMode": 0,
    },
}
"""StartVoiceChat, 2024-12-01: the ASR, TTS and CustomLLM examples of the API reference."""

TENCENT = {
    "AgentConfig": {
        "WelcomeMessage": "Hello! How can I help you?",
        "InterruptMode": 0,
        "InterruptSpeechDuration": 500,
    },
    "STTConfig": {"Language": "en", "VadSilenceTime": 1000, "VadLevel": 2},
    "LLMConfig": {
        "LLMType": "openai",
        "$llm_gateway": UPSTREAM,
        "Streaming": True,
        "History": 10,
    },
    "TTSConfig": {
        "TTSType": "flow",
        "VoiceId": "your-voice-id",
        "Model": "flow_01_turbo",
        "Speed": 1.0,
        "Volume": 1.0,
        "Language": "en",
    },
}
"""StartAIConversation, 2019-07-22. The two objects become strings that hold JSON."""

ZEGO = {
    "AgentId": "example-agent",
    "RTC": {"UserStreamId": "example-user-stream"},
    "LLM": {
        "Vendor": "OpenAIChat",
        "$llm_gateway": UPSTREAM,
        "SystemPrompt": "You are a friendly assistant.",
        "Temperature": 0.7,
        "TopP": 0.9,
    },
    "TTS": {
        "Vendor": "ByteDanceV3",
        "Params": {
            "app": {"appid": "your-tts-app-id", "token": {"$secret": "tts_token"}},
        },
    },
    "VAD": {"TurnDetectConfig": {"SilenceSegmentation": 500}},
    "MessageHistory": {"SyncMode": 1, "Messages": [], "WindowSize": 10},
    "AdvancedConfig": {"InterruptMode": 0, "MaxIdleTime": 120, "CommunicationMode": 2},
}
"""CreateAgentInstance of server API V2. CommunicationMode 2 is walkie-talkie: it hears the user
between a press and its release alone."""

EXAMPLES = (
    Example(
        id="example-volcengine",
        account="volcengine",
        room_id="example-room-1",
        user_id="example-user-1",
        spec=VOLCENGINE,
    ),
    Example(
        id="example-tencent",
        account="tencent",
        room_id="example-room-2",
        user_id="example-user-2",
        spec=TENCENT,
    ),
    Example(
        id="example-zego",
        account="zego",
        room_id="example-room-3",
        user_id="example-user-3",
        spec=ZEGO,
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A row of `agent_command`, less what the database fills in."""

    task_id: str
    kind: str
    payload: Mapping[str, Any]
    says: str
    """What the person in front of the screen is told of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sentence:
    """What the user of an example says to its agent."""

    example: Example
    text: str


TALK: tuple[Command | Sentence, ...] = (
    Sentence(example=EXAMPLES[0], text="Hello! What can you do?"),
    Sentence(example=EXAMPLES[1], text="What is the weather like tomorrow?"),
    Command(
        task_id="example-zego",
        kind="start_listening",
        payload={},
        says="the user presses the button, and speaks",
    ),
    Sentence(example=EXAMPLES[2], text="Is anybody there?"),
    Command(
        task_id="example-zego",
        kind="stop_listening",
        payload={},
        says="and lets go: the agent answers",
    ),
    Command(
        task_id="example-zego",
        kind="say",
        payload={"Text": "Press again whenever you like."},
        says="the application has it say something",
    ),
)
"""A sentence to each agent, in order; the walkie-talkie's is between a press and its release."""
