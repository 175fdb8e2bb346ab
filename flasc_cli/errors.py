"""How commands fail: one exception, with what to do next in its message, and one exit code each."""

from __future__ import annotations

from enum import IntEnum, unique

__all__ = ["CliError", "ExitCode"]


@unique
class ExitCode(IntEnum):
    OK = 0
    FAILED = 1
    # A wrong option or argument; the parser's own code too.
    USAGE = 2
    UNREACHABLE = 3
    NOT_ALLOWED = 4
    # A check that the command was asked for came out negative.
    CHECK_FAILED = 5
    INTERRUPTED = 130
    TERMINATED = 143


class CliError(Exception):
    """Ends the command with `exit_code`; `message` is one or two sentences for people."""

    def __init__(self, message: str, exit_code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code
