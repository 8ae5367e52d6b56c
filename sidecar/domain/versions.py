"""Numbers of what is versioned (the menu, the permissions), and writes that hold only for a version."""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.domain.errors import PreconditionFailed


def next_version(last: int, now: float) -> int:
    """The version of a change made at `now` (unix seconds): at least its second, and above the `last` one whatever the
    clock says."""
    return max(last + 1, int(now))


@dataclass(frozen=True, slots=True)
class Condition:
    """What must hold for a write: it was last changed at one of these `versions` (None: at any), it does or does not
    exist yet (None: either)."""

    versions: frozenset[int] | None = None
    exists: bool | None = None

    def check(self, whole: int, own: int | None) -> None:
        """`whole` is the version of all, `own` that of the thing itself (None: it does not exist).
        Raises PreconditionFailed."""
        if self.exists is not None and self.exists != (own is not None):
            raise PreconditionFailed("It does not exist." if self.exists else "It exists already.")
        if self.versions is not None and whole not in self.versions and own not in self.versions:
            raise PreconditionFailed("It has been changed since you read it: read it again.")


UNCONDITIONAL = Condition()
