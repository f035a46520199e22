"""What the commands share: their app, options, exit codes, messages, counters and logs."""

from __future__ import annotations

import io
import logging
import os
import re
import sys
from enum import StrEnum
from types import TracebackType
from typing import Annotated, Any, TextIO

import typer
from typer.core import TyperCommand, TyperGroup

from handloom.errors import ConfigError

# In the order of use: from clips to a table, from the table to others. Commands that are not named here come last.
ORDER = (
    *("demo", "synth", "ingest", "run", "calibrate", "status", "stages", "index", "search", "show", "serve"),
    *("judgements", "skill", "remove", "export", "train", "sim", "presets", "bench", "doctor"),
)


class InOrder(TyperGroup):
    """Lists commands in `ORDER`, whichever module they are in."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(self.commands, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))


class OneValue(TyperCommand):
    """A command whose options keep no last word: two values for an option that takes one are an error, and so is an
    empty value of any option or argument.

    Typer takes the last one in silence, and an empty path for the folder that one is in. The same value twice, and
    `--help` among them, are no mistake.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        given = list(args)
        rest = super().parse_args(ctx, args)
        for param, values in self._values(ctx, given):
            if any(isinstance(value, str) and not value.strip() for value in values):
                name = param.opts[0] if param.param_type_name == "option" else param.name.upper()
                ways = "give it a value" if param.required else "give it a value, or leave it out"
                raise ConfigError(f"{name} is empty", f"{ways}: {param.help or param.name}")
            if len(set(values)) > 1 and self._takes_one(param):
                words = [param.opts[0] if value else param.secondary_opts[0] for value in values]
                shown = [repr(value) for value in values] if not param.is_flag else words
                raise typer.BadParameter(f"takes one value, got {' and '.join(shown)}", ctx, param)
        return rest

    @staticmethod
    def _takes_one(param: Any) -> bool:
        return param.param_type_name == "option" and not (param.multiple or param.count)

    def _values(self, ctx: Any, args: list[str]) -> list[tuple[Any, list[Any]]]:
        """(option or argument, its values in the order of the command line)."""
        params: list[Any] = self.get_params(ctx)
        single = [param for param in params if self._takes_one(param)]
        try:
            for param in single:
                param.multiple = True  # the parser keeps all of them; nothing is converted here
            values, *_ = self.make_parser(ctx).parse_args(args)
        finally:
            for param in single:
                param.multiple = False
        found = [(param, values.get(param.name)) for param in params]
        return [(param, [*value] if isinstance(value, list | tuple) else [value]) for param, value in found]


class Commands(typer.Typer):
    """A group of commands, shown as plain text, whose commands are `OneValue` or a kind of it."""

    def __init__(self, **more: Any) -> None:
        super().__init__(no_args_is_help=True, rich_markup_mode=None, **more)

    def command(self, name: str | None = None, *, cls: type[TyperCommand] | None = OneValue, **more: Any) -> Any:
        return super().command(name, cls=cls, **more)


app = Commands(
    cls=InOrder,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Human video in, robot training data out: hands, point tracks and embeddings in one searchable table.",
)

UsageError: Any = typer.BadParameter.__base__  # typer carries click inside or beside it, by its version
DONE, FAILED, USAGE, SOME_REJECTED = 0, 1, 2, 3
INTERRUPTED = 130
"""A shell's code of a command that Ctrl-C ended: 128 and the signal's number. Those that keep what is finished, and go
on with it later (`run`, `train`, `sim evaluate`), end with `FAILED`."""
MOST_EPISODES = 100_000
"""Scenes of simulations are drawn before the first one runs: a slip of the hand would fill the memory with them."""
REWRITE_EVERY_S, LINE_EVERY_S = 0.2, 10.0

DbOption = Annotated[str, typer.Option("--db", help="The database: a folder or an s3:// URI.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
WorkersOption = Annotated[int | None, typer.Option(min=1, help="Processes for the episodes; by default one per core.")]
RayOption = Annotated[
    str | None,
    typer.Option("--ray-address", envvar="RAY_ADDRESS", help="Cluster to join; local processes by default."),
]


StageKeyOption = Annotated[
    list[str] | None,
    typer.Option(
        "--stage-key",
        metavar="STAGE=KEY",
        help="Only rows with this key of the stage; KEY, or the whole, may be `current`: the last run's. Repeatable.",
    ),
]


class Embodiment(StrEnum):
    human = "human"
    robot = "robot"
    all = "all"


EmbodimentOption = Annotated[Embodiment, typer.Option(help="Whose clips: people's, robots', or all.")]
WhereOption = Annotated[
    str | None, typer.Option(help="SQL filter on columns of clips: 'hand_left AND duration_s < 4'.")
]


def stage_keys_of(given: list[str] | None) -> dict[str, str] | str | None:
    """The values of --stage-key, as readers take them. Raises ConfigError for one that names no stage."""
    if given == ["current"]:
        return "current"
    pairs = [text.partition("=")[::2] for text in given or ()]
    if wrong := [text for text, pair in zip(given or (), pairs, strict=True) if not all(pair)]:
        raise ConfigError(f"--stage-key {wrong[0]!r}", "expected STAGE=KEY, such as hands_2d=current; or current alone")
    return dict(pairs) or None


def size_of(text: str | None) -> tuple[int, int] | None:
    """`480x360` as (480, 360). Raises ConfigError: no size, or a side that is odd or below 16."""
    found = re.fullmatch(r"(\d+)x(\d+)", text or "")
    if text is None:
        return None
    hint = "give WIDTHxHEIGHT in pixels, both even and 16 or more: --size 456x256"
    if not found:
        raise ConfigError(f"--size {text!r} is no size", hint)
    if any(int(side) % 2 or int(side) < 16 for side in found.groups()):
        raise ConfigError(f"--size {text!r}: a side is odd, or below 16 pixels", hint)
    return int(found[1]), int(found[2])


def open_db(uri: str, create: bool = False, only_read: bool = False):
    """The database at `uri`. create: it need not exist yet; its first write creates it, unless it is `only_read`."""
    from handloom.api import Database
    from handloom.store.location import storage_options_from

    options = storage_options_from(os.environ) if "://" in uri else None
    return Database.open_or_new(uri, options, only_read=only_read) if create else Database.open(uri, options)


class Counting:
    """Shows a count on stderr. Call it with (done, total or None).

    On a terminal one line is rewritten; elsewhere a line is added every `line_every_s` seconds.
    """

    def __init__(self, unit: str, out: TextIO | None = None, line_every_s: float = LINE_EVERY_S) -> None:
        from tqdm import tqdm

        out = out or sys.stderr
        every_s = REWRITE_EVERY_S if out.isatty() else line_every_s
        how = {"file": out, "leave": True} if out.isatty() else {"file": _Lines(out), "leave": False}
        self._unit, self._bar = unit, tqdm(mininterval=every_s, delay=every_s, miniters=1, **how)

    def __enter__(self) -> Counting:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def __call__(self, done: int, total: int | None) -> None:
        self._bar.total = total
        self._bar.bar_format = "{n_fmt}/{total_fmt} " + self._unit if total else "{n_fmt} " + self._unit
        self._bar.update(done - self._bar.n)


class _Lines(io.TextIOBase):
    """Writes each state of a tqdm bar as a line of its own."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def write(self, text: str) -> int:
        if line := text.strip():
            print(line, file=self._out, flush=True)
        return len(text)


counting = Counting


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def set_up_logs(verbose: bool) -> None:
    """Log warnings and errors to stderr; with `verbose` also a line per commit and shard."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s", "%H:%M:%S"))
    logger = logging.getLogger("handloom")
    logger.handlers = [handler]
    logger.propagate = False
    logger.setLevel(logging.INFO if verbose else logging.WARNING)
    logging.getLogger("pylance").setLevel(logging.WARNING)
