"""Errors that end a command or a daemon, each with the exit code it deserves.

OrchestratorError            1  trouble: a database that is away, a port that is taken
└── UsageError               2  nothing that a restart would cure
    ├── ConfigError             what is wrong in the configuration, every mistake at once
    └── SchemaError             the database's schema is not the one this version knows

What a vendor does is never an exception: see `core.outcome`.
"""


class OrchestratorError(Exception):
    """Something is wrong that may be well again later."""

    exit_code = 1


class UsageError(OrchestratorError):
    """Something is wrong that a person must put right; systemd does not restart on it."""

    exit_code = 2


class ConfigError(UsageError):
    """The configuration is wrong. The message lists every mistake with path, expected, found."""


class SchemaError(UsageError):
    """The schema in the database is not the one this version works with. Says what to do."""
