"""What `--help` teaches beyond the options: examples that work as they stand, and exit codes.

Rule 1: this file imports nothing of what runs, since `--help` has to answer at once.
Rule 2: an example is a whole line of a shell, 70 characters at most, what it is for below it.
"""

from dataclasses import dataclass
from typing import Final

_VERBATIM: Final = "\b\n"
"""Begins a paragraph whose lines stay as they are."""


@dataclass(frozen=True, slots=True)
class Example:
    """A line to type."""

    line: str
    does: str


@dataclass(frozen=True, slots=True)
class Epilog:
    """What stands below a command's options."""

    examples: tuple[Example, ...]
    exits: str
    """What its exit codes mean."""

    def text(self) -> str:
        """Return it as paragraphs."""
        lines = "\n".join(f"  $ {each.line}\n      {each.does}" for each in self.examples)
        return f"{_VERBATIM}Examples:\n{lines}\n\nExit codes: {self.exits}."


PATH: Final = f"""Keeps the lifecycle of cloud voice agents: rows in, agents at three vendors.

{_VERBATIM}The way in:
  orchestrator dev                     watch it work: simulated, no keys
  orchestrator migrate -c config.toml  make the tables
  orchestrator check -c config.toml    is everything there, and if not?
  orchestrator run -c config.toml      the daemon, until SIGTERM
  orchestrator status --watch          how everything stands
  orchestrator explain ID              what one task waits for, what happened

Everything else is SQL: applications insert rows into agent_task and agent_command, and read
agent_status and the views.
"""
"""What a newcomer reads first."""

ENVIRONMENT: Final = f"""{_VERBATIM}Environment:
  ORCHESTRATOR_CONFIG   the configuration, where -c is not given
  ORCHESTRATOR_DEBUG    1: tracebacks, as --debug

Exit codes: 0 well, 1 trouble that may pass, 2 something to put right (usage, configuration,
a schema that does not fit).

`orchestrator COMMAND --help` has examples. --install-completion teaches them to your shell.
"""

_USUAL: Final = "0; 1 the database is away; 2 usage, configuration, schema"

RUN: Final = Epilog(
    (
        Example("orchestrator run -c config.toml", "in the foreground; Ctrl-C ends it in order"),
        Example(
            "orchestrator run --abandon old-account",
            "although agents of a removed account may run on",
        ),
    ),
    "0 after SIGTERM; 1 trouble; 2 what no restart cures",
)
MIGRATE: Final = Epilog(
    (
        Example("orchestrator migrate -c config.toml", "make the tables, or bring them up to date"),
        Example("orchestrator migrate --sql | psql mydb", "for who reads it before it is run"),
    ),
    "0, also if there is nothing to do; 1 the database is away; 2 it is newer",
)
DEV: Final = Epilog(
    (
        Example("orchestrator dev", "prints lines to try next, in a second terminal"),
        Example(
            "orchestrator dev --database postgresql://me@localhost/dev --no-examples",
            "on a Postgres database of yours, with nothing in it",
        ),
    ),
    "0 after Ctrl-C; 1 the database is away, or no port is free; 2 usage",
)
SIMULATE: Final = Epilog(
    (
        Example("orchestrator simulate --listen 127.0.0.1:8790", "with demo keys, printed"),
        Example(
            "orchestrator simulate --listen 127.0.0.1:0 -c config.toml --speed 60",
            "any free port, your accounts' keys, a minute of theirs in a second",
        ),
    ),
    "0 after Ctrl-C; 1 the port is taken; 2 usage, configuration",
)
CHECK: Final = Epilog(
    (
        Example("orchestrator check -c config.toml", "changes nothing, here or at a vendor"),
        Example("orchestrator check && orchestrator run", "start only what is well"),
    ),
    "0 nothing is ✗; 1 something is; 2 the configuration is wrong",
)
STATUS: Final = Epilog(
    (
        Example("orchestrator status", "once"),
        Example("orchestrator status --watch --trouble", "only what needs a look, until Ctrl-C"),
        Example("orchestrator status --account main", "of one account"),
        Example("orchestrator status --json | jq '.totals'", "for machines; nothing is cut"),
    ),
    _USUAL,
)
EXPLAIN: Final = Epilog(
    (
        Example("orchestrator explain call-18", "a task, a command or an orphan by its id"),
        Example("orchestrator explain 4343698486455087677", "whose TaskId is this on the bill?"),
        Example("orchestrator explain call-18 --json | jq '.agents'", "for machines"),
    ),
    "0; 1 nobody has this name, or the database is away; 2 usage, configuration",
)
TOKEN: Final = Epilog(
    (
        Example(
            "TOKEN=$(orchestrator token volc --user alice --room r1)",
            "Volcengine: an RTC token for one user in one room, for a day",
        ),
        Example(
            "orchestrator token trtc --user alice --expires-in 3600",
            "Tencent: a UserSig for one user in every room, for an hour",
        ),
    ),
    "0; 2 usage, configuration, or the account lacks the key that signs",
)
