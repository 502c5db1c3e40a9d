"""Options of the shell, made from the settings they stand for; and options that take several values."""

import dataclasses
import functools
import inspect
import re
import types
import typing
from collections.abc import Callable, Container, Iterator, Sequence
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from ..settings import FORMER
from .output import say

# Options by which images are opened, by the names of `open_stack`.
OPENING: dict[str, Any] = {
    "axes": Annotated[
        str | None, typer.Option(help="Axes of the stack, letters of tczyx, if the file does not name them.")
    ],
    "level": Annotated[int | None, typer.Option(help="Level of a pyramid, 0 is the finest.", min=0)],
    "channel": Annotated[str | None, typer.Option(help="Use one channel: its number, from 0, or its name.")],
    "time": Annotated[int | None, typer.Option(help="Use one time point, from 0.", min=0)],
    "pixel_size": Annotated[
        str | None, typer.Option(help='Pixel size along z y x, or y x, if the file is wrong: "2 0.5 0.5 um".')
    ],
    "series": Annotated[
        str | None,
        typer.Option(help="Image of a file with several: its number, from 0, or its name; the largest if not given."),
    ],
    "allow_incomplete": Annotated[
        bool, typer.Option("--allow-incomplete", help="Open a file that lacks planes, or an unfinished result.")
    ],
}


class Several(TyperCommand):
    """A command whose options of several values are written once: ``--images A B C``, ``--block 64 128 128``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take former names for the present ones, and repeat options of several values as the parser wants it."""
        args = [self._present(arg) for arg in args]
        several = {name for option in self.params if getattr(option, "multiple", False) for name in option.opts}
        return super().parse_args(ctx, list(repeated(args, several)))

    def _present(self, arg: str) -> str:
        """Return an option by its present name, and say that name where another was given."""
        flag, equals, value = arg.partition("=")
        known = {name for option in self.params for name in (*option.opts, *option.secondary_opts)}
        for new, old in FORMER.items():
            for sign in ("--", "--no-"):
                present = sign + new.replace("_", "-")
                if flag == sign + old and flag not in known and present in known:
                    say(f"{flag} is now {present}; the former name goes with 0.2")
                    return present + equals + value
        return arg


def repeated(args: Sequence[str], several: Container[str]) -> Iterator[str]:
    """Write ``--images A B`` as ``--images A --images B``.

    Values of an option that begins with a number (a block, percentiles) end at the first word that is none, so that the
    command's own argument may follow.
    """
    name, first = "", ""
    for arg in args:
        if arg.startswith("-"):
            name, first = (arg if arg in several else ""), ""
        elif name and not first:
            first = arg
        elif name and (_is_number(arg) or not _is_number(first)):
            yield name
        else:
            name = ""
        yield arg


def _is_number(word: str) -> bool:
    return re.fullmatch(r"\d+(\.\d+)?", word) is not None


def with_settings(settings: type[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command one option for each field of a settings dataclass; it gets them as `config`.

    Parameters
    ----------
    settings : frozen dataclass
        Its fields made with `setting`: their default, help and limits become the option's.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        hints = typing.get_type_hints(settings)
        options = [_option(field, hints[field.name]) for field in dataclasses.fields(settings)]
        names = [option.name for option in options]

        @functools.wraps(function)
        def command(**values: Any) -> None:
            chosen = {name: values.pop(name) for name in names}
            chosen = {k: tuple(v) or None if isinstance(v, list) else v for k, v in chosen.items()}
            function(**values, config=settings(**chosen))

        return signed(command, function, options, "config")

    return decorate


def with_opening(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command options by which images are opened; it gets them as `opening`, for `open_stack`."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        kind = inspect.Parameter.KEYWORD_ONLY
        defaults = {"allow_incomplete": False}
        options = [inspect.Parameter(n, kind, default=defaults.get(n), annotation=OPENING[n]) for n in names]

        @functools.wraps(function)
        def command(**values: Any) -> None:
            opening = {name: values.pop(name) for name in names}
            if str(opening.get("channel")).isdigit():
                opening["channel"] = int(opening["channel"])
            function(**values, opening=opening)

        return signed(command, function, options, "opening")

    return decorate


def signed(
    command: Callable[..., None], function: Callable[..., None], options: Sequence[inspect.Parameter], taken: str = ""
) -> Callable[..., None]:
    """Give a command the parameters of the function that it calls, without the one `taken`, and further options."""
    own = inspect.signature(function, eval_str=True).parameters.values()
    kept = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own if p.name != taken]
    command.__signature__ = inspect.Signature([*kept, *options])  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in [*kept, *options]}
    return command


def _option(field: "dataclasses.Field[Any]", hint: Any) -> inspect.Parameter:
    """Make the option of one setting."""
    limits, flag = field.metadata, "--" + field.name.replace("_", "-")
    kind = _plain(hint)
    about: dict[str, Any] = {"help": limits["help"]}
    if limits["choices"] is not None and not limits["several"]:
        kind = Literal[tuple(limits["choices"])]
    elif kind in (int, float):
        about |= {"min": limits["ge"], "max": limits["le"]}
    if kind is bool:
        flag = f"{flag}/--no-{flag[2:]}" if field.default else flag
    annotation, default = (kind | None if field.default is None else kind), field.default
    if typing.get_origin(kind) is tuple:
        element: Any = typing.get_args(kind)[0]
        annotation, default = list[element], []
    option = typer.Option(flag, **about, show_default=field.default not in (None, False, ()))
    return inspect.Parameter(
        field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[annotation, option]
    )


def _plain(hint: Any) -> Any:
    """Take ``None`` out of a type."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return next(part for part in typing.get_args(hint) if part is not type(None))
    return hint
