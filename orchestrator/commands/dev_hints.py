"""What `dev` tells to try next: lines for a second terminal that work as they stand.

Rule 1: a line is for the database's own client, so that the SQL interface is all there is to learn.
Rule 2: a password is not printed; psql asks for it.
"""

from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from urllib.parse import urlsplit

_EXPLAIN = "SELECT task_id, explanation FROM task_explain"
_PRESS = "INSERT INTO agent_command (task_id, kind) VALUES ('example-zego', 'start_listening')"
_RELEASE = "INSERT INTO agent_command (task_id, kind) VALUES ('example-zego', 'stop_listening')"
_SAY = (
    "INSERT INTO agent_command (task_id, kind, payload)"
    """ VALUES ('example-zego', 'say', '{"Text": "Hello again."}')"""
)
_COMMANDS = "SELECT explanation FROM command_explain ORDER BY position DESC LIMIT 3"
_TURNS = (
    "SELECT at, task_id, round, upstream, outcome, first_token_ms, total_ms FROM llm_turn"
    " ORDER BY id DESC LIMIT 10"
)
_STOP = "UPDATE agent_task SET desired_state = 'stopped' WHERE id = 'example-zego'"
_START = (
    "INSERT INTO agent_task (account, room_id, user_id, spec)"
    " SELECT account, 'my-room', 'me', spec FROM agent_task WHERE id = 'example-volcengine'"
)
_HISTORY = (
    "SELECT at, task_id, event, action, outcome, request_id FROM task_history"
    " ORDER BY id DESC LIMIT 10"
)
_FORGET = "DELETE FROM agent_task WHERE id = 'example-tencent'"

STATEMENTS = (
    ("what each task is, and what it waits for", _EXPLAIN),
    ("press the button of a walkie-talkie, and speak", _PRESS),
    ("let go", _RELEASE),
    ("have it say something", _SAY),
    ("what became of the three", _COMMANDS),
    ("what the agents asked the model", _TURNS),
    ("stop one", _STOP),
    ("start another", _START),
    ("what was done, and what the vendor said", _HISTORY),
    ("forget one: it is stopped first", _FORGET),
)
"""What each does, and the statement; without `$`, backquote and backslash, which a shell would
read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hints:
    """Where everything is."""

    database_url: str
    vendors_url: str
    log_path: str

    def text(self) -> str:
        """Return all of it as lines."""
        places = (
            f"database            {self._database()}",
            f"simulated vendors   {self.vendors_url}/_sim/agents",
            f"their calls         {self.vendors_url}/_sim/calls",
            f"their callbacks     {self.vendors_url}/_sim/callbacks",
            f"what was spoken     {self.vendors_url}/_sim/turns",
            f"log                 {self.log_path}",
        )
        steps = (f"\n  # {what}\n  {self.line(sql)}" for what, sql in STATEMENTS)
        return "\n".join(["", *places, "", "Try next, in a second terminal:", *steps, ""])

    def line(self, sql: str) -> str:
        """Return the shell's line that runs one of `STATEMENTS`."""
        if self.database_url.startswith("sqlite:"):
            # Without a time limit the client gives up as soon as the daemon writes.
            return f"sqlite3 -cmd '.timeout 5000' {quote(self._database())} {_in_quotes(sql)}"
        return f"psql {quote(self._database())} -c {_in_quotes(sql)}"

    def _database(self) -> str:
        if self.database_url.startswith("sqlite:"):
            return _from_here(Path(self.database_url.removeprefix("sqlite:///")))
        parts = urlsplit(self.database_url)
        user, host = parts.username, parts.netloc.rpartition("@")[2]
        return parts._replace(netloc=f"{user}@{host}" if user else host).geturl()


def _in_quotes(sql: str) -> str:
    """Return a statement as one word of a shell, so that its own quotes stay as they are."""
    escaped = sql.replace('"', '\\"')
    return f'"{escaped}"'


def _from_here(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
