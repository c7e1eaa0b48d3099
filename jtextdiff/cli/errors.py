"""UserError (exit 2), Interrupted, and turning other exceptions into UserErrors."""

import contextlib
from collections.abc import Iterator


class UserError(Exception):
    """A mistake that a person made and can mend: shown as its message alone, with exit status 2."""


class Interrupted(Exception):
    """The run was asked to stop and has saved what it had; `status` is the exit status."""

    def __init__(self, message: str, status: int):
        super().__init__(message)
        self.status = status


@contextlib.contextmanager
def mistakes(*kinds: type[Exception]) -> Iterator[None]:
    """Turns exceptions of the given kinds, raised where a user's input is read, into a UserError."""
    try:
        yield
    except kinds as error:
        raise UserError(str(error)) from None
