"""What `verify` can say of a bundle that nothing here can run."""

from __future__ import annotations

import msgspec


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at: whether it is as it should be, and what was found."""

    name: str
    ok: bool
    detail: str
