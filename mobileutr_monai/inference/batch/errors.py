"""What ends a run before it has begun."""

from __future__ import annotations

__all__ = ["UsageError"]


class UsageError(ValueError):
    """Something that the caller gave cannot be used; the message says what, and what to do."""
