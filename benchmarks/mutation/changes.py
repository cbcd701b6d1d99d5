"""The changes that can be made to one source file: small, on the syntax tree, one at a time.

A change replaces a stretch of the source by other text, so that everything else, lines included, stays as it is. What
does not run is left alone: docstrings, annotations, type variables, imports, overloads; and so are assertions:
`assert`s, which are there for the type checker, zip's `strict`, and raising an `InternalError` (no input gets there) or
a `NotImplementedError` (it declares a method).
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from benchmarks.mutation.operators import expression_changes, is_assertion, statement_changes

_SILENT = (ast.Import, ast.ImportFrom, ast.Assert, ast.Pass, ast.Global, ast.Nonlocal)
_TYPE_MAKERS = frozenset({"TypeVar", "NewType", "ParamSpec", "TypeAlias", "cast"})
_BLOCKS = ("body", "orelse", "finalbody")

Key = tuple[str, str, str, str, str]
"""A change's file, scope, line as text, and what it puts in place of what."""


@dataclass(frozen=True, slots=True)
class Change:
    """One change: `replacement` in place of the bytes `start` to `end` of `file`, which holds `line` to `last_line`.

    `scope` is the function or class around it, `text` the whole of its first line, `kind` the sort of change, `before`
    and `after` what differs.
    """

    file: str
    line: int
    last_line: int
    scope: str
    text: str
    kind: str
    before: str
    after: str
    start: int
    end: int
    replacement: str

    @property
    def key(self) -> Key:
        """What names the change as long as its line only moves."""
        return self.file, self.scope, self.text, self.before, self.after

    def apply(self, source: bytes) -> bytes:
        """Return the changed source."""
        return source[: self.start] + self.replacement.encode() + source[self.end :]

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.scope}: {self.kind}: {self.before} -> {self.after}"


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement of `file` that runs, in the function or class `scope`."""

    file: str
    scope: str
    node: ast.stmt

    def changes(self, source: bytes) -> list[Change]:
        """Return the changes that can be made to the statement; `source` is its file's."""
        starts = _line_starts(source)
        found = (*statement_changes(self.node), *_inside(self.node))
        made = [_change(source, starts, self, node, kind, after) for node, kind, after in found]
        return [change for change in made if change is not None]


def statements(source: bytes, file: str) -> list[Statement]:
    """Return the statements of a source file that run."""
    return [Statement(file, scope, node) for scope, node in _statements(ast.parse(source), "")]


def _statements(node: ast.AST, scope: str) -> Iterator[tuple[str, ast.stmt]]:
    """Yield every statement that runs, with the function or class that it stands in."""
    for block in _BLOCKS:
        for index, one in enumerate(getattr(node, block, [])):
            if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                if not _is_declaration(one):
                    yield from _statements(one, f"{scope}.{one.name}".lstrip("."))
                continue
            if isinstance(one, _SILENT) or _is_docstring(one, index) or _is_for_types(one) or _is_for_us(one):
                continue
            yield scope or "<module>", one
            yield from _statements(one, scope)
    for handler in getattr(node, "handlers", []):
        yield from _statements(handler, scope)
    for case in getattr(node, "cases", []):
        yield from _statements(case, scope)


def _is_declaration(one: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> bool:
    """Whether `one` only tells the type checker: an overload, or a protocol."""
    told = [*one.decorator_list, *getattr(one, "bases", [])]
    return any(ast.unparse(part).split("[")[0].endswith(("overload", "Protocol")) for part in told)


def _is_docstring(one: ast.stmt, index: int) -> bool:
    """Texts that stand alone: docstrings, and what is said of attributes below them."""
    return isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant)


def _is_for_us(one: ast.stmt) -> bool:
    """Whether only a defect of ours gets there."""
    raised = ast.unparse(one.exc) if isinstance(one, ast.Raise) and one.exc is not None else ""
    return raised.startswith("InternalError(") or raised == "NotImplementedError"


def _is_for_types(one: ast.stmt) -> bool:
    if isinstance(one, ast.If):
        return ast.unparse(one.test) in ("TYPE_CHECKING", "__name__ == '__main__'")
    value = getattr(one, "value", None)
    if isinstance(one, ast.Assign | ast.AnnAssign) and isinstance(value, ast.Call):
        return ast.unparse(value.func) in _TYPE_MAKERS
    return isinstance(one, ast.Assign) and ast.unparse(one.targets[0]) == "__all__"


def _inside(statement: ast.stmt) -> Iterator[tuple[ast.AST, str, str]]:
    """Yield the changes of the expressions of a statement itself, not of the statements in its blocks."""
    waiting = [child for child in _own_parts(statement) if not isinstance(child, ast.stmt)]
    while waiting:
        node = waiting.pop(0)
        yield from expression_changes(node)
        if not isinstance(node, ast.JoinedStr):  # before Python 3.12 what is inside has no true place
            parts = (part for part in ast.iter_child_nodes(node) if not is_assertion(node, part))
            waiting += [part for part in parts if not isinstance(part, ast.stmt)]


def _own_parts(statement: ast.stmt) -> Iterator[ast.AST]:
    hidden = {id(part) for part in (getattr(statement, "annotation", None), *getattr(statement, "handlers", []))}
    hidden |= {id(case) for case in getattr(statement, "cases", [])}
    return (child for child in ast.iter_child_nodes(statement) if id(child) not in hidden)


def _change(
    source: bytes, starts: list[int], statement: Statement, node: ast.AST, kind: str, after: str
) -> Change | None:
    """Return the change, or None where it changes nothing or makes no valid program."""
    line, last = getattr(node, "lineno", 0), getattr(node, "end_lineno", 0)
    if not line or not last:
        return None
    start = starts[line - 1] + getattr(node, "col_offset", 0)
    end = starts[last - 1] + getattr(node, "end_col_offset", 0)
    replacement = f"({after})" if isinstance(node, ast.expr) else after
    before = " ".join(source[start:end].decode().split())
    text = source[starts[line - 1] : starts[line]].decode().strip()
    change = Change(statement.file, line, last, statement.scope, text, kind, before, after, start, end, replacement)
    try:
        same = ast.dump(ast.parse(change.apply(source))) == _meaning(source)
    except SyntaxError:
        return None
    return None if same else change


@lru_cache(maxsize=4)
def _meaning(source: bytes) -> str:
    return ast.dump(ast.parse(source))


def _line_starts(source: bytes) -> list[int]:
    starts = [0]
    for line in source.split(b"\n"):
        starts.append(starts[-1] + len(line) + 1)
    return starts
