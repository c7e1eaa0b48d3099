"""Exceptions that end a command: a user's mistake, and a run that was stopped."""

import contextlib
from collections.abc import Iterator


class UserError(Exception):
    """A mistake that the user can correct: only its message is printed, with exit status 2."""


class Interrupted(Exception):
    """A run was stopped by a signal after saving its state; `status` is the exit status."""

    def __init__(self, message: str, status: int):
        super().__init__(message)
        self.status = status


@contextlib.contextmanager
def mistakes(*kinds: type[Exception]) -> Iterator[None]:
    """Re-raises exceptions of the given kinds, caused by a user's input, as UserError."""
    try:
        yield
    except kinds as error:
        raise UserError(str(error)) from None
