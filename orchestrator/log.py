"""What the daemon says on standard error: one chain for our lines and for the libraries'.

Rule 1: no line holds a secret. Values that the configuration knows are replaced in the finished
line, so it does not matter how they came into it: as a value, in a nested one, inside a longer
text, in an exception. Values under keys that look like a secret's are hidden before that.
Rule 2: keys are the SQL column names (`at`, `task_id`, `account`, `incarnation`, `request_id`, …).
Rule 3: what concerns one task is bound once, with `context`, and stands in every line below it.
Rule 4: log the edge, not the level: trouble once when it begins and once when it ends (`Edge`).
"""

import json
import logging
import re
import sys
from collections.abc import Hashable, Iterable, Mapping, MutableMapping
from typing import Any, TextIO, cast
from urllib.parse import quote

import structlog
from structlog.contextvars import bound_contextvars as context
from structlog.typing import EventDict, FilteringBoundLogger, Processor

from orchestrator.secret import names_secret
from orchestrator.settings import Log

__all__ = ["Edge", "Redactor", "configure", "context", "logger"]

HIDDEN = "<hidden>"
SHORTEST_SECRET = 6
"""Characters. A shorter value would blot out words that have nothing to do with it."""

_DEEPEST = 20
"""Levels to which keys are looked at; a log line has two or three."""
_UNSEEN = re.compile(r"[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""What a terminal obeys or reorders a line by, and what some readers end a line at. A vendor's
message may hold it, and JSON leaves it as it is."""
_ISSUED = r"llm-[A-Za-z0-9_-]{43}"
"""A token of our LLM gateway. Each agent has its own and none is stored: known by its form only."""
_QUIET = ("sqlalchemy", "asyncio", "aiohttp.access")
"""Libraries that write statements and their parameters, hence rows, below WARNING."""


def logger(name: str) -> FilteringBoundLogger:
    """Return the logger of a module; `name` stands in its lines as `source`."""
    return cast("FilteringBoundLogger", structlog.get_logger(source=name))


class Redactor:
    """Replaces the values of known secrets, and our own tokens, in a finished line."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._values: frozenset[str] = frozenset()
        self.learn(secrets)

    def learn(self, secrets: Iterable[str]) -> None:
        """Know these as well; a rotated key stays known, since old calls may still speak of it."""
        self._values |= {value for value in secrets if len(value) >= SHORTEST_SECRET}
        forms = {form for value in self._values for form in _forms(value)}
        # The longest first, or a secret that begins with another one would keep its end.
        ordered = sorted(forms, key=len, reverse=True)
        self._pattern = re.compile("|".join([*map(re.escape, ordered), _ISSUED]))

    def clean(self, line: str) -> str:
        """Return the line without the values."""
        return self._pattern.sub(HIDDEN, line)


def configure(settings: Log, redactor: Redactor, stream: TextIO | None = None) -> None:
    """Send every line of this process, ours and the libraries', through one chain to `stream`.

    Args:
        settings: level and format.
        redactor: what must not be seen; it may learn more later.
        stream: standard error if None.
    """
    out = sys.stderr if stream is None else stream
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    chain = _chain()
    render = _renderer(settings, redactor, colors=out.isatty())
    structlog.configure(
        processors=[*chain, render],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=out),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(), _library_name, *chain],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
        )
    )
    logging.basicConfig(handlers=[handler], level=level, force=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))


class Edge:
    """What was last said about each key, so that only changes are said.

    >>> edge = Edge("up")
    >>> [edge.changed("main", state) for state in ("up", "down", "down", "up")]
    [False, True, False, True]
    """

    def __init__(self, usual: Hashable) -> None:
        """Remember that every key is in the state `usual` until told otherwise."""
        self._usual = usual
        self._states: dict[Hashable, Hashable] = {}

    def changed(self, key: Hashable, state: Hashable) -> bool:
        """Return whether `state` is another one than at the last call for `key`."""
        if self._states.get(key, self._usual) == state:
            return False
        if state == self._usual:
            del self._states[key]
        else:
            self._states[key] = state
        return True


def _chain() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        _hide_keys,
    ]


def _renderer(settings: Log, redactor: Redactor, *, colors: bool) -> Processor:
    plain: Processor = structlog.processors.JSONRenderer(ensure_ascii=False)
    if settings.format == "console":
        plain = structlog.dev.ConsoleRenderer(colors=colors, timestamp_key="at")

    def render(logger: Any, method: str, event: EventDict) -> str:
        return _show(redactor.clean(str(plain(logger, method, event))))

    return render


def _show(line: str) -> str:
    """Return the line with everything unseen spelled as JSON would."""
    return _UNSEEN.sub(lambda unseen: f"\\u{ord(unseen[0]):04x}", line)


def _library_name(_logger: Any, _method: str, event: EventDict) -> EventDict:
    event["source"] = event["_record"].name
    return event


def _hide_keys(_logger: Any, _method: str, event: EventDict) -> MutableMapping[str, Any]:
    return {key: _hide(key, value, 0) for key, value in event.items()}


def _hide(key: object, value: Any, depth: int) -> Any:
    if isinstance(key, str) and names_secret(key):
        return HIDDEN
    if depth >= _DEEPEST:
        return "…"
    match value:
        case Mapping():
            return {inner: _hide(inner, below, depth + 1) for inner, below in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_hide(None, below, depth + 1) for below in value]
        case _:
            return value


def _forms(value: str) -> set[str]:
    """Return how a value may be written in a line: as it is, in JSON, as `repr`, in a URL."""
    return {
        value,
        json.dumps(value)[1:-1],
        json.dumps(value, ensure_ascii=False)[1:-1],
        repr(value)[1:-1],
        json.dumps(repr(value)[1:-1], ensure_ascii=False)[1:-1],
        quote(value, safe=""),
        quote(value),
    }
