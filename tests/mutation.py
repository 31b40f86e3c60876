"""Mutation testing: lines of the package are broken, one at a time, and the fast tests run.

    python -m pytest --cov=ide_transformer --cov-branch --cov-context=test
    python tests/mutation.py draw --seed 0 --count 40 mutants.json
    python tests/mutation.py run mutants.json

The first command notes in `.coverage` which tests meet which line: for each mutant the files of
tests run that meet its line, until one test fails. `run` writes into the file what it found,
and goes on where it was stopped. It changes the package in place and mends it: run it in a
clone of its own.
"""

import argparse
import ast
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import coverage


ROOT = Path(__file__).parent.parent
OPERATORS = {
    **{ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Mult: ("*", "/"), ast.Div: ("/", "*")},
    **{ast.FloorDiv: ("//", "*"), ast.Mod: ("%", "*"), ast.Pow: ("**", "*")},
    **{ast.Lt: ("<", "<="), ast.LtE: ("<=", "<"), ast.Gt: (">", ">="), ast.GtE: (">=", ">")},
    **{ast.Eq: ("==", "!="), ast.NotEq: ("!=", "=="), ast.Is: ("is", "is not")},
    **{ast.IsNot: ("is not", "is"), ast.In: ("in", "not in"), ast.NotIn: ("not in", "in")},
    **{ast.And: ("and", "or"), ast.Or: ("or", "and"), ast.MatMult: ("@", "+")},
}
# A test that hangs has noticed.
LIMIT = 1800


def mutants(path: Path) -> Iterator[dict]:
    """Every mutant of a file: a line, and what it becomes."""
    lines = path.read_text().splitlines()

    def between(node: ast.expr, first: ast.expr, second: ast.expr, kind: type) -> Iterator:
        """The operator between two operands, replaced."""
        if kind in OPERATORS and first.end_lineno == second.lineno == node.lineno:
            start, end = first.end_col_offset, second.col_offset
            text = lines[node.lineno - 1]
            yield node, start, end, text[start:end].replace(*OPERATORS[kind], 1)

    def changes(node: ast.AST) -> Iterator:
        match node:
            case ast.BinOp(left, op, right):
                yield from between(node, left, right, type(op))
                if isinstance(op, ast.Add | ast.Sub):
                    yield node, left.end_col_offset, node.end_col_offset, ""
            case ast.Compare(left, [op], [right]):
                yield from between(node, left, right, type(op))
            case ast.BoolOp(op, [first, second, *_]):
                yield from between(node, first, second, type(op))
            case ast.UnaryOp(ast.USub() | ast.Not(), operand):
                yield node, node.col_offset, operand.col_offset, ""
            case ast.Constant(bool(value)):
                yield node, node.col_offset, node.end_col_offset, str(not value)
            case ast.Constant(int(value) | float(value)):
                yield node, node.col_offset, node.end_col_offset, str(value + 1)

    for node in reachable(ast.parse(path.read_text())):
        for place, start, end, new in changes(node):
            old = lines[place.lineno - 1]
            if place.lineno == place.end_lineno and old.isascii():
                there = {"file": str(path.relative_to(ROOT)), "line": place.lineno}
                yield there | {"old": old, "new": old[:start] + new + old[end:]}


def reachable(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes but annotations, decorators, defaults, messages and paths of files."""
    yield node
    for name, value in ast.iter_fields(node):
        if name in {"annotation", "returns", "decorator_list"}:
            continue
        for child in value if isinstance(value, list) else [value]:
            match child:
                case ast.arguments() | ast.AnnAssign() | ast.Raise() | ast.JoinedStr():
                    continue
                case ast.BinOp(_, ast.Div(), ast.Constant(str()) | ast.JoinedStr()):
                    continue
                case ast.Call(ast.Attribute(_, "add_argument" | "field") | ast.Name("add")):
                    continue
                case ast.AST():
                    yield from reachable(child)


def draw(seed: int, count: int) -> list[dict]:
    """One mutant of each of so many lines, drawn at random from all lines of the package."""
    by_line: dict[tuple, list[dict]] = {}
    for path in sorted((ROOT / "ide_transformer").rglob("*.py")):
        if "testing" not in path.parts:
            for mutant in mutants(path):
                by_line.setdefault((mutant["file"], mutant["line"]), []).append(mutant)
    chosen = random.Random(seed).sample(sorted(by_line), count)
    return [random.Random(f"{seed} {line}").choice(by_line[line]) for line in chosen]


def noticed(mutant: dict, data: coverage.CoverageData) -> bool:
    """Whether a test that meets the line of a mutant fails; those of its room run first."""
    path, room = ROOT / mutant["file"], "tests/" + mutant["file"].split("/")[1]
    contexts = data.contexts_by_lineno(str(path)).get(mutant["line"], [])
    tests = {context.split("::")[0] for context in contexts if "::" in context}
    if not tests:
        return False
    text = path.read_text()
    lines = text.splitlines(keepends=True)
    assert lines[mutant["line"] - 1].rstrip("\n") == mutant["old"], f"{path} has changed"
    lines[mutant["line"] - 1] = mutant["new"] + "\n"
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-n", "2"]
    command += sorted(tests, key=lambda file: (not file.startswith(room), file))
    try:
        path.write_text("".join(lines))
        done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=LIMIT)
        return done.returncode != 0
    except subprocess.TimeoutExpired:
        return True
    finally:
        path.write_text(text)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["draw", "run"])
    parser.add_argument("file", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=40)
    arguments = parser.parse_args()
    if arguments.command == "draw":
        drawn = draw(arguments.seed, arguments.count)
        arguments.file.write_text(json.dumps(drawn, indent=1))
        return
    data = coverage.CoverageData()
    data.read()
    drawn = json.loads(arguments.file.read_text())
    for mutant in drawn:
        if "noticed" not in mutant:
            mutant["noticed"] = noticed(mutant, data)
            arguments.file.write_text(json.dumps(drawn, indent=1))
        found = "noticed" if mutant["noticed"] else "MISSED"
        print(f"{found} {mutant['file']}:{mutant['line']}")
        print(f"  {mutant['old'].strip()}\n  {mutant['new'].strip()}", flush=True)
    print(f"{sum(mutant['noticed'] for mutant in drawn)} of {len(drawn)} noticed")


if __name__ == "__main__":
    main()
