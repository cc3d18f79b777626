"""Size and shape of the package's code, of one checkout or of two side by side.

    python benchmarks/measure_code.py [CHECKOUT] [--against OTHER_CHECKOUT]

Counts Python files of `mma_mrnnet` in a checkout, without `pretrained/`. Tests are not counted. The
length of a function is its lines without decorators, with its docstring. The number of lines depends
on the formatter's width, so `--width 100` formats a copy of each checkout first. A name is verb-first if its
first word, without leading underscores, is in `VERBS`; names of dunder methods, properties and
nested functions are not counted. Cycles are between modules, imports inside functions included.
"""

import argparse
import ast
import json
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, quantiles

from machine import machine

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "code.json"

LONG_LINE = 80

VERB_WORDS = """
add adjust align allow annotate append apply ask assert assign augment balance begin bend blend
blur build cache calibrate call can capture carry centre change check choose chunk claim clamp
classify clean clear clip close collate collect combine commit compare compile compute confirm
confuse connect continue convert copy correct correlate count create crop cut declare decode
decorate describe detect diagnose differ digest disable discard distort distribute divide does
download draw drop dump embed emit enable encode end ensure enter estimate evaluate exceeds
exchange exclude exit expand expect explain export extend extract fail fall feed fetch fill
filter find finish fit fix flatten flip flush fold follow forget format forward frame freeze
gather generate get give go group grow guess handle has hash hide hold holds identify ignore
import infer init initialise initialize inspect install interleave interpolate is iterate join
judge keep label launch leave let lighten limit link list load locate lock log look loop make
map mark mask match may measure merge minimise minimize mirror mix move must name needs new
normalise normalize note observe open order overlay pack pad paint parse pass peek permute pick
place plan play plot pool post predict prefer prepare preprocess print probe process project
prune pull push put quantise quote raise rank rate read reads rebuild recall receive record
redraw reduce refuse register release remember remove rename render repair repeat replace report
require resample rescale reset resize resolve restore resume return reuse rotate round route run
sample save say says scale scan schedule score search see select send separate serve set shake
share shift shorten should show shrink shuffle shut sign simulate size skip smooth sniff sort
sow split spread stack standardise start state step stop store stream stretch strip submit sum
summarise summarize swap sweep take tell test thin tidy tie tilt time touch track train
transform translate trim trust try turn undo unfold unfreeze unpack update upload use validate
verify visit wait walk wants warn wash watch weigh widen will wrap write yield
"""
VERBS = frozenset(VERB_WORDS.split())
"""Words that count as verbs: the imperatives, and `is`, `has`, `can` ... of names of booleans."""


def main() -> None:
    """Print the measures of one checkout, or of two, and write them to `results/code.json`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkout", nargs="?", type=Path, default=ROOT)
    parser.add_argument("--against", type=Path, help="another checkout: its column comes first")
    parser.add_argument("--save", action="store_true", help=f"write {RESULT.name}")
    parser.add_argument("--width", type=int, help="format copies by ruff at this width first")
    given = parser.parse_args()
    checkouts = {"against": given.against, "here": given.checkout}
    columns = {
        name: measure_formatted(checkout, given.width)
        for name, checkout in checkouts.items()
        if checkout is not None
    }
    for name in columns["here"]:
        cells = [f"{show(column[name]):>16}" for column in columns.values()]
        print(f"{name:<44}{''.join(cells)}")
    if given.save:
        width = "" if given.width is None else f" --width {given.width}"
        command = f"python benchmarks/measure_code.py --against BEFORE{width} --save"
        content = {"command": command, "machine": machine(), **columns}
        RESULT.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def show(value: object) -> str:
    """Format a measure for a column."""
    if isinstance(value, dict):
        return " ".join(f"{name}:{count}" for name, count in list(value.items())[:1])
    return f"{value:.3g}" if isinstance(value, float) else f"{value:,}"


def measure_formatted(checkout: Path, width: int | None) -> dict[str, object]:
    """Return the measures of a checkout, or of a copy formatted at another line width."""
    if width is None:
        return measure_code(checkout)
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "mma_mrnnet"
        skipped = shutil.ignore_patterns("pretrained", "__pycache__")
        shutil.copytree(checkout / "mma_mrnnet", package, ignore=skipped)
        words = ["ruff", "format", "--quiet", "--isolated", "--line-length", str(width), package]
        subprocess.run(words, check=True)
        return measure_code(Path(folder))


def measure_code(checkout: Path) -> dict[str, object]:
    """Return every measure of a checkout."""
    package = checkout / "mma_mrnnet"
    paths = sorted(path for path in package.rglob("*.py") if "pretrained" not in path.parts)
    trees = {path: ast.parse(path.read_text("utf-8")) for path in paths}
    lines = [line for path in paths for line in path.read_text("utf-8").splitlines()]
    functions = [node for tree in trees.values() for node in find_functions(tree)]
    lengths = [node.end_lineno - node.lineno + 1 for node in functions]
    names = [name for tree in trees.values() for name in list_names(tree)]
    folders = Counter(path.parent.relative_to(package).as_posix() for path in paths)
    signatures = [node for node in functions if has_bare_dict(node)]
    longest = max(functions, key=lambda node: node.end_lineno - node.lineno)
    return {
        "files": len(paths),
        "lines": len(lines),
        f"share of lines of {LONG_LINE} characters or more": share(
            [len(line) >= LONG_LINE for line in lines]
        ),
        "functions": len(functions),
        "mean lines a function": mean(lengths),
        "p90 of lines a function": quantiles(lengths, n=10)[-1],
        "longest function, lines": max(lengths),
        "longest function": {longest.name: max(lengths)},
        "share of verb-first names": share([starts_with_verb(name) for name in names]),
        "most files in a folder": max(folders.values()),
        "files a folder": dict(folders.most_common()),
        "import cycles": count_cycles(package, trees),
        "signatures with a bare dict": len(signatures),
    }


def share(flags: list[bool]) -> float:
    """Return the share of true values."""
    return sum(flags) / len(flags)


def find_functions(tree: ast.AST) -> list[ast.FunctionDef]:
    """Return every function of a module, methods and nested ones included."""
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]


def list_names(tree: ast.Module) -> Iterator[str]:
    """Yield the names of functions and methods, without dunder methods and properties."""
    for parent in [tree, *(node for node in tree.body if isinstance(node, ast.ClassDef))]:
        for node in parent.body:
            if not isinstance(node, ast.FunctionDef) or node.name.startswith("__"):
                continue
            decorators = {
                ast.unparse(decorator).split(".")[-1] for decorator in node.decorator_list
            }
            if not decorators & {"property", "cached_property", "setter"}:
                yield node.name


def starts_with_verb(name: str) -> bool:
    """Tell whether the first word of a name is in `VERBS`."""
    return name.strip("_").split("_")[0].lower() in VERBS


def has_bare_dict(function: ast.FunctionDef) -> bool:
    """Tell whether a signature has an annotation with `dict` without its types."""
    arguments = function.args
    parts = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    annotations = [part.annotation for part in parts] + [function.returns]
    return any(annotation is not None and is_bare(annotation) for annotation in annotations)


def is_bare(annotation: ast.expr) -> bool:
    """Tell whether `dict` stands in an annotation without its types."""
    typed = {id(node.value) for node in ast.walk(annotation) if isinstance(node, ast.Subscript)}
    return any(
        isinstance(node, ast.Name) and node.id == "dict" and id(node) not in typed
        for node in ast.walk(annotation)
    )


def count_cycles(package: Path, trees: dict[Path, ast.Module]) -> int:
    """Return the number of groups of modules that import each other, by Tarjan's algorithm."""
    names = {
        ".".join(path.relative_to(package).with_suffix("").parts).removesuffix(".__init__"): path
        for path in trees
    }
    edges = {name: set(find_imports(name, trees[path], names)) for name, path in names.items()}
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    groups = 0

    def visit(name: str) -> None:
        nonlocal groups
        order[name] = low[name] = len(order)
        stack.append(name)
        for other in edges[name]:
            if other not in order:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], order[other])
        if low[name] == order[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            groups += len(group) > 1

    for name in edges:
        if name not in order:
            visit(name)
    return groups


def find_imports(name: str, tree: ast.Module, names: dict[str, Path]) -> Iterator[str]:
    """Yield the package's modules that a module imports."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom):
            continue
        module = node.module or ""
        if node.level:
            base = name.split(".")[: -node.level] if names[name].stem != "__init__" else [name]
            module = ".".join([*base, *module.split(".")]).strip(".")
        elif module.split(".")[0] == "mma_mrnnet":
            module = module.removeprefix("mma_mrnnet").strip(".")
        else:
            continue
        inner = [f"{module}.{alias.name}".strip(".") for alias in node.names]
        found = {one for one in inner if one in names} or ({module} & names.keys())
        yield from found - {name}


if __name__ == "__main__":
    main()
