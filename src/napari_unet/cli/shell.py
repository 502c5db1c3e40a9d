"""What all commands of the shell share: errors as one line, progress, and a clean end when interrupted."""

import contextlib
import functools
import gc
import importlib.metadata
import inspect
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from .. import DISTRIBUTION
from ..errors import ResourceError, UnetError, UsageError
from ..faults import FAULTS, named, network_errors
from ..files import FULL, explained, refuse_long
from .options import Several, signed
from .output import say

if TYPE_CHECKING:
    from ..events import Epoch, Progress

T = TypeVar("T")
CANCELLED, INCOMPLETE, FAILED = 130, 7, 3  # 128 + SIGINT, as shells say it; the others as the README lists them
ADDRESS = re.compile("(https?|s3|gs|gcs|abfs|az|ftp|sftp|file):/+")  # as a path, which keeps one of its slashes
NO_ROOM = b"napari-unet: the memory ran out; close other programs, or raise the limit that is set for this one\n"
FAILED_OUTPUT = 1  # as typer has it
TEXTS = ("cite",)  # options that are no names, and may be long

HELP = (
    "Train U-Nets and run them on microscopy stacks larger than memory.\n\n"
    "Results are OME-Zarr, do not depend on how the work was cut up, and a command that was stopped continues "
    "where it was when it is run again."
)

app = typer.Typer(
    name="napari-unet",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    epilog="Exit codes: 0 done, 2 wrong usage, 3 bad input, 4 refused as unsafe, 5 output in the way, "
    "6 disk or memory, 7 incomplete but resumable, 130 cancelled.",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"{DISTRIBUTION} {importlib.metadata.version(DISTRIBUTION)}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
]


@app.callback(help=HELP)
def main(version: Version = False) -> None:
    """Take the options that stand before a command."""


BreakLock = Annotated[
    bool, typer.Option("--break-lock", help="Take over from a run on another machine that is known to be gone.")
]
Source = Annotated[  # text: a path would take one of the slashes of an address away
    str,
    typer.Argument(help="OME-Zarr, TIFF, or another file that is read; zarr by its address too.", show_default=False),
]
DEBUG = inspect.Parameter(
    "debug",
    inspect.Parameter.KEYWORD_ONLY,
    default=False,
    annotation=Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")],
)


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Register a command whose errors become one line and an exit code, and give it ``--debug``."""

    @functools.wraps(function)
    def guarded(debug: bool, **options: Any) -> None:
        try:
            _check_places(options)
            function(**options)
        except UnetError as error:
            if debug:
                raise
            say(str(error))
            raise typer.Exit(error.exit_code) from error
        except FAULTS + network_errors() as error:
            refused = _as_ours(error)
            if refused is None or debug:
                raise
            _end_output()
            say(str(refused))
            raise typer.Exit(refused.exit_code) from error
        except KeyboardInterrupt:
            say("stopped; finished work is kept: run the same command again to continue (train: add --resume)")
            raise typer.Exit(CANCELLED) from None

    name = function.__name__.strip("_")  # import_ is "import", which Python keeps for itself
    return app.command(name, cls=Several)(signed(guarded, function, [DEBUG]))


def _check_places(options: dict[str, Any]) -> None:
    """Refuse addresses where a path on a disk is needed, and names that no disk allows.

    Up to Python 3.13 the system itself is asked for such a name and refuses it; later ones say that it is not there.
    """
    for name, value in options.items():
        for place in value if isinstance(value, list | tuple) else [value]:
            if isinstance(place, str | Path) and name not in TEXTS:
                refuse_long(Path(place))
            if isinstance(place, Path) and (found := ADDRESS.match(place.as_posix())):
                address = f"{found[1]}://{place.as_posix()[found.end() :]}"
                raise UsageError(f"{name} is {address}, an address; give a place on a disk")


def run() -> None:
    """Run the command line; that its output cannot be written, or its parts find no memory, is one line too."""
    # Tasks of readers that an error has cut off, which asyncio would list behind the line that says it.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    try:
        try:
            app()
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError:  # the reader has closed it, as head does
        _end_output()
        sys.exit(FAILED_OUTPUT)
    except FAULTS as error:
        refused = _as_ours(error)
        if refused is None:
            raise
        _end_output()
        try:
            say(str(refused))
        except MemoryError:
            os.write(2, NO_ROOM)
        sys.exit(refused.exit_code)


def _as_ours(error: Exception) -> UnetError | None:
    """Return what a disk refused, or a fault of memory or the network, as an error of ours; None for anything else."""
    if not isinstance(error, OSError):
        return named(error)
    if error.filename is None and error.errno in FULL:
        return ResourceError(f"the output cannot be written ({error.strerror}); free some space, or send it elsewhere")
    return explained(error, Path(str(error.filename or "."))) or named(error)


def _end_output() -> None:
    """Write nothing more to where nothing can be written, at the end of the process neither."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def shown(events: "Generator[Progress | Epoch, None, T] | Generator[Progress, None, T]") -> T:
    """Show the events of a piece of work while it runs, and return its result; closed cleanly when interrupted."""
    from .progress import show  # not at the top: bars are for work

    with _interruptible(), contextlib.closing(events):
        return show(events)


@contextlib.contextmanager
def loading() -> Iterator[None]:
    """Load libraries: what they hold stays, and is not looked through for garbage, now or later.

    Torch makes some 300,000 objects on being imported, and to look through them all takes a tenth of the time.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Take SIGTERM as Ctrl-C."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
