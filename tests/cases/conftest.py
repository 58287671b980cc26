"""What the cases share with the servers' tests."""

from __future__ import annotations

from server.conftest import json_log

__all__ = ["json_log"]
