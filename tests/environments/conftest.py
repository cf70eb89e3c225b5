from __future__ import annotations

from tests.toy import toy

__all__ = ["toy"]
