"""Keeps the lifecycle of cloud voice agents: rows in, agents at three vendors, nothing leaked."""

from importlib.metadata import version

__version__ = version("orchestrator")
