"""What can go wrong, as one family: every message says what, got, expected and remedy."""

from typing import ClassVar

from .text import without_secrets

# What odd JSON raises where it is taken for what it should be: other types, NaN, infinity, 400 digits, deep nesting.
UNUSABLE = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError)


class UnetError(Exception):
    """Base of every error this package raises on purpose; `exit_code` is what the shell returns."""

    exit_code: ClassVar[int] = 1

    def __str__(self) -> str:
        return without_secrets(super().__str__())


class UsageError(UnetError, ValueError):
    """An argument or option that cannot be."""

    exit_code = 2


class DataError(UnetError, ValueError):
    """An image or a label array that cannot be read, or does not fit."""

    exit_code = 3


class AxesError(DataError):
    """An image that could be read, if it said what its dimensions are."""


class UnreachableError(DataError):
    """An image that cannot be read just now, as its disk or the network failed; it may be whole."""

    exit_code = 7


class ModelError(UnetError, ValueError):
    """A model, or a network description, that is damaged or does not fit."""

    exit_code = 3


class UnsafeError(UnetError, PermissionError):
    """A file that would have to be trusted with running code or leaving its folder: refused."""

    exit_code = 4


class OutputError(UnetError, FileExistsError):
    """An output that exists, is locked by another run, or was not made by this program."""

    exit_code = 5


class LedgerError(OutputError):
    """The record of a result that is damaged, or that no run of this program can have written."""

    exit_code = 3


class ResourceError(UnetError, OSError):
    """Not enough disk or memory, or no permission to write."""

    exit_code = 6


class IncompleteError(UnetError, RuntimeError):
    """A run that stopped before its end; what it finished is kept and it can be resumed."""

    exit_code = 7


class GoneError(IncompleteError):
    """A server that does not answer any more: no part of its images can be read now."""
