"""The sorts of changes: what may stand in place of one expression or statement.

Each function yields (node, sort of change, the text that takes the node's place).
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from typing import Any

Found = Iterator[tuple[ast.AST, str, str]]

_COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_ARITHMETIC: dict[type[ast.operator], tuple[type[ast.operator], ...]] = {
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.FloorDiv, ast.Add),
    ast.Div: (ast.Mult, ast.FloorDiv),
    ast.FloorDiv: (ast.Mult,),
    ast.Mod: (ast.FloorDiv,),
    ast.Pow: (ast.Mult,),
    ast.LShift: (ast.RShift,),
    ast.RShift: (ast.LShift,),
    ast.BitAnd: (ast.BitOr,),
    ast.BitOr: (ast.BitAnd,),
    ast.BitXor: (ast.BitAnd,),
}
_SYMMETRIC = frozenset({"min", "max", "maximum", "minimum", "array_equal", "add", "hypot", "gcd", "isclose"})
"""Functions, numpy's among them, whose first two arguments may change places."""
_NEIGHBOURS = {"min": "max", "max": "min", "any": "all", "all": "any", "sorted": "list"}


def expression_changes(node: ast.AST) -> Found:
    """Yield the changes of one expression, what is inside it left aside."""
    if isinstance(node, ast.Compare):
        for index, operator in enumerate(node.ops):
            for other in _COMPARISONS[type(operator)]:
                yield node, "comparison", _with(node, lambda new, i=index, o=other: new.ops.__setitem__(i, o()))
    elif isinstance(node, ast.BinOp):
        for other_operator in _ARITHMETIC.get(type(node.op), ()):
            yield node, "arithmetic", _with(node, lambda new, o=other_operator: setattr(new, "op", o()))
    elif isinstance(node, ast.BoolOp):
        other_word = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield node, "and/or", _with(node, lambda new: setattr(new, "op", other_word))
        yield node, "condition dropped", _with(node, lambda new: new.values.pop())
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub | ast.Invert):
        yield node, "sign dropped", ast.unparse(node.operand)
    elif isinstance(node, ast.IfExp):
        yield node.test, "negated condition", f"not ({ast.unparse(node.test)})"
    elif isinstance(node, ast.comprehension):
        for condition in node.ifs:
            yield condition, "negated condition", f"not ({ast.unparse(condition)})"
    elif isinstance(node, ast.Constant):
        yield from _constants(node)
    elif isinstance(node, ast.JoinedStr):
        yield node, "text", "'changed'"
    elif isinstance(node, ast.Call):
        yield from _calls(node)


def is_assertion(node: ast.AST, part: ast.AST) -> bool:
    """Whether `part` of `node` only asserts: that what is zipped is equally long."""
    zips = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "zip"
    return zips and isinstance(part, ast.keyword) and part.arg == "strict"


def statement_changes(statement: ast.stmt) -> Found:
    """Yield the changes of one statement as a whole."""
    if isinstance(statement, ast.If | ast.While):
        yield statement.test, "negated condition", f"not ({ast.unparse(statement.test)})"
    elif isinstance(statement, ast.Continue):
        yield statement, "statement", "break"
    elif isinstance(statement, ast.Break):
        yield statement, "statement", "continue"
    elif isinstance(statement, ast.Return) and statement.value is not None:
        if not isinstance(statement.value, ast.Constant) or statement.value.value:  # others are as good as None
            yield statement, "nothing returned", "return None"
    elif isinstance(statement, ast.AugAssign):
        for other in _ARITHMETIC.get(type(statement.op), ()):
            yield statement, "arithmetic", _with(statement, lambda new, o=other: setattr(new, "op", o()))
        yield statement, "statement deleted", "pass"
    elif isinstance(statement, ast.Expr | ast.Raise | ast.Delete) or _keeps_state(statement):
        yield statement, "statement deleted", "pass"


def _keeps_state(statement: ast.stmt) -> bool:
    """Assignments to attributes and items; without one to a plain name, hardly any program would even run."""
    return isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Attribute | ast.Subscript)


def _constants(node: ast.Constant) -> Found:
    value = node.value
    if isinstance(value, bool):
        yield node, "constant", str(not value)
    elif isinstance(value, int):
        yield node, "constant", str(value + 1)
        yield node, "constant", str(value - 1)
    elif isinstance(value, float):
        yield node, "constant", repr(value * 2 if value else 1.0)
    elif isinstance(value, str) and value:
        yield node, "text", "''"
    elif isinstance(value, bytes) and value:
        yield node, "text", "b''"


def _calls(node: ast.Call) -> Found:
    name = node.func.id if isinstance(node.func, ast.Name) else ""
    if name in _NEIGHBOURS and not (name == "sorted" and node.keywords):
        yield node.func, "function", _NEIGHBOURS[name]
    called = name or getattr(node.func, "attr", "")
    plain = [not isinstance(argument, ast.Starred) for argument in node.args]
    for at in range(len(node.args) - 1):
        if plain[at] and plain[at + 1] and not (at == 0 and called in _SYMMETRIC):
            yield node, "arguments swapped", _with(node, lambda new, i=at: _swap(new.args, i))
    for at, keyword in enumerate(node.keywords):
        if keyword.arg is not None and not is_assertion(node, keyword):
            yield node, "argument dropped", _with(node, lambda new, i=at: new.keywords.pop(i))


def _swap(items: list[Any], at: int) -> None:
    items[at], items[at + 1] = items[at + 1], items[at]


def _with(node: ast.AST, edit: Any) -> str:
    """Return the text of `node` after `edit` of a copy."""
    new = copy.deepcopy(node)
    edit(new)
    return ast.unparse(new)
