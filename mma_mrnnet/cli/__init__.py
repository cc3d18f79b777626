"""The command line: `mma-mrnnet predict`, `compare`, `crop`, `draw` ... Only this room prints."""

import io
import logging
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from mma_mrnnet.cli import demo, predict, sharing, training
from mma_mrnnet.cli.options import QUIET, QUIET_HELP, explain_missing, say, set_quiet
from mma_mrnnet.cli.outputs import discard_stdout

# typer exports only this subclass of click's usage error.
UsageError: Any = typer.BadParameter.__mro__[1]


class PlainCommand(TyperCommand):
    """A command with plain-text help, whose options take several values after one name."""

    def format_usage(self, ctx: Any, formatter: Any) -> None:
        """Write the usage line."""
        formatter.write_usage(
            ctx.command_path, " ".join(self.collect_usage_pieces(ctx)), prefix="usage: "
        )

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return `[OPTIONS]` and the argument names as in the help."""
        arguments = [param for param in self.params if param.param_type_name == "argument"]
        return ["[OPTIONS]", *(str(param.metavar) for param in arguments)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write one line per argument and option, without argument types."""
        for title, kind in (("Arguments", "argument"), ("Options", "option")):
            params = [param for param in self.get_params(ctx) if param.param_type_name == kind]
            records = [(param, param.get_help_record(ctx)) for param in params]
            rows = [
                (param.metavar if kind == "argument" else record[0], record[1])
                for param, record in records
                if record
            ]
            if kind == "option":
                rows.insert(len(rows) - 1, (", ".join(QUIET), QUIET_HELP))
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples unchanged."""
        if self.epilog:
            formatter.write(f"\n{self.epilog}\n")

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Allow `--pictures a b`, which click takes only as `--pictures a --pictures b`."""
        args = _take_quiet(args)
        params: list[Any] = self.params
        options = [param for param in params if param.param_type_name == "option"]
        valued = {name for param in options if not param.is_flag for name in param.opts}
        repeated = {name for param in options if param.multiple for name in param.opts}
        words: list[str] = []
        current = None  # the option whose values are being read
        end = args.index("--") if "--" in args else len(args)
        for word, following in zip(args[:end], [*args[1:end], "--"], strict=False):
            if word in valued and _is_option(following):
                ctx.fail(f"argument {word}: expected a value")
            if _is_option(word):
                current = word if word in repeated else None
                words += [] if current else [word]
            else:
                words += [current, word] if current else [word]
        try:
            return super().parse_args(ctx, [*words, *args[end:]])
        except UsageError as error:
            error.ctx = error.ctx or ctx
            raise


def _take_quiet(args: list[str]) -> list[str]:
    """Apply and remove `--quiet`, which stands anywhere before `--`."""
    end = args.index("--") if "--" in args else len(args)
    words = [word for word in args[:end] if word not in QUIET]
    if len(words) < end:
        set_quiet(True)
    return words + args[end:]


def _is_option(word: str) -> bool:
    return word.startswith("--") and " " not in word


class Commands(TyperGroup):
    """All commands, with plain-text help."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take `--quiet` in front of the command, too."""
        return super().parse_args(ctx, _take_quiet(args))

    def format_usage(self, ctx: Any, formatter: Any) -> None:
        """Write the usage line."""
        formatter.write_usage(ctx.command_path, "command ...", prefix="usage: ")

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write one line per command."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, each.help) for name, each in self.commands.items()])

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command of the first word."""
        if args[0] not in self.commands and not args[0].startswith("-"):
            names = ", ".join(self.commands)
            ctx.fail(f"argument command: invalid choice: {args[0]!r} (choose from {names})")
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=Commands,
    help="Estimate the intensities of seven emotional reactions from a video of a face.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    invoke_without_command=True,
)


def _show_version(is_given: bool) -> None:
    if is_given:
        from importlib.metadata import version

        print(f"mma-mrnnet {version('mma-mrnnet')}")
        raise typer.Exit


@app.callback()
def _prepare(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Show the version and exit.",
            callback=_show_version,
            is_eager=True,
        ),
    ] = False,
) -> None:
    """Silence the package's and the Hub client's logs."""
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit(2)
    logging.getLogger("mma_mrnnet").setLevel(logging.ERROR)
    # The client logs each retry; we print only the last error.
    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)


for name, function, examples in (
    ("predict", predict.predict_clips, predict.PREDICT_EXAMPLES),
    ("compare", predict.compare_clips, predict.COMPARE_EXAMPLES),
    ("crop", training.crop_videos, training.CROP_EXAMPLES),
    ("draw", training.draw_clips, training.DRAW_EXAMPLES),
    ("ablate", training.run_ablations, training.ABLATE_EXAMPLES),
    ("train", training.train_stage, training.TRAIN_EXAMPLES),
    ("diagnose", training.diagnose_runs, training.DIAGNOSE_EXAMPLES),
    ("evaluate", training.evaluate_extractor, training.EVALUATE_EXAMPLES),
    ("export", sharing.export_checkpoint, sharing.EXPORT_EXAMPLES),
    ("push", sharing.push_checkpoint, sharing.PUSH_EXAMPLES),
    ("demo", demo.show_demo, demo.EXAMPLES),
):
    # All further words of `ablate` are for train.py; `train` takes no other words.
    settings = {
        "allow_interspersed_args": name not in ("ablate", "train"),
        "ignore_unknown_options": name == "train",
    }
    add = app.command(name, cls=PlainCommand, epilog=examples, context_settings=settings)
    add(function)

GROUP: Any = typer.main.get_command(app)
COMMANDS: tuple[str, ...] = tuple(GROUP.commands)


def parse_words(words: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """Return the command and its parameter values, without running it."""
    with GROUP.commands[words[0]].make_context(words[0], list(words[1:])) as context:
        return words[0], context.params


def main(words: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code: 0, 1 for a failure, 2 for a usage error."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # unencodable names must not fail
        sys.stdout.reconfigure(errors="backslashreplace")
    set_quiet(False)
    try:
        with GROUP.make_context(
            "mma-mrnnet", list(sys.argv[1:] if words is None else words)
        ) as context:
            code: int = GROUP.invoke(context)
        sys.stdout.flush()  # here, where a broken pipe is handled
        return code
    except typer.Exit as stop:
        return stop.exit_code
    except UsageError as error:
        print(error.ctx.get_usage(), file=sys.stderr)
        say(f"{error.ctx.command_path}: error: {_reason(error)}")
        return 2
    except BrokenPipeError:
        discard_stdout()
        return 0
    except (ValueError, OSError, ModuleNotFoundError) as error:
        reason = explain_missing(error) if isinstance(error, ImportError) else error
        for line in f"mma-mrnnet: {reason}".splitlines():
            say(line)
        return 1
    except KeyboardInterrupt:
        say("mma-mrnnet: interrupted")
        return 130


def _reason(error: Any) -> str:
    kind = type(error).__name__
    if kind == "NoSuchOption":
        is_ablate = error.ctx.info_name == "ablate"
        hint = "; words of train.py stand behind --" if is_ablate else ""
        return f"unrecognized arguments: {error.option_name}{hint}"
    if kind == "MissingParameter":
        return f"the following arguments are required: {error.param.opts[0]}"
    param = getattr(error, "param", None)
    return error.message if param is None else f"argument {param.opts[0]}: {error.message}"
