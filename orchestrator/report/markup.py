"""The page's shell and its tables. One file, nothing loaded from elsewhere, readable in light and dark."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape as escape_markup

from foundation.printable import printable

STYLE = """
:root { color-scheme: light dark; --back: #fbfbfa; --card: #fff; --text: #1d2328; --soft: #5c666f; --rule: #dde1e4;
  --c1: #2a6fb5; --c2: #d9772b; --c3: #3a9a63; --c4: #a9b2ba; --c5: #8a63b8; --c6: #b8912f;
  --warn: #b3261e; --warnback: #fdecea; }
@media (prefers-color-scheme: dark) { :root { --back: #14181b; --card: #1c2226; --text: #e4e8eb; --soft: #9aa5ae;
  --rule: #333c43;
  --c1: #66a9ea; --c2: #f09a54; --c3: #62c48a; --c4: #5d6972; --c5: #b794e6; --c6: #d9b65a;
  --warn: #ffb4ab; --warnback: #3b1a18; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--text); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { font-size: 25px; line-height: 1.25; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 36px 0 10px; }
p { margin: 6px 0; } .soft { color: var(--soft); }
.incomplete { border-left: 4px solid var(--warn); background: var(--warnback); padding: 10px 14px; margin: 16px 0;
  overflow-wrap: anywhere; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(155px, 1fr)); gap: 10px; margin-top: 18px; }
.tile, .card { background: var(--card); border: 1px solid var(--rule); border-radius: 8px; padding: 12px 14px; }
.tile b { display: block; white-space: nowrap; font-size: 19px; font-weight: 600; font-variant-numeric: tabular-nums; }
.tile small { font-size: 12px; font-weight: 400; }
.card { margin: 12px 0; }
.two { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(420px, 100%), 1fr)); gap: 12px; }
.two .card { margin: 0; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 5px 10px; border-bottom: 1px solid var(--rule); vertical-align: top; }
tr:last-child td { border-bottom: 0; } th { font-weight: 600; color: var(--soft); }
th:first-child, td:first-child, .text th, .text td { text-align: left; }
.text td { overflow-wrap: anywhere; } .text td:first-child { white-space: nowrap; }
summary { cursor: pointer; color: var(--soft); }
.chart { margin: 0; font-size: 12px; line-height: 1.35; font-variant-numeric: tabular-nums; }
figcaption { display: flex; flex-wrap: wrap; gap: 2px 14px; align-items: baseline; margin-bottom: 6px; }
figcaption b { font-size: 14px; margin-right: auto; }
.key { white-space: nowrap; } .legend, .marks { display: flex; flex-wrap: wrap; gap: 2px 16px; margin-top: 8px; }
.key i { display: inline-block; width: 10px; height: 10px; border-radius: 2px; margin-right: 5px; }
.unit { padding-left: 46px; } .middle { text-align: center; }
.frame { display: grid; grid-template: 170px 22px / 46px 1fr; margin: 8px 12px 0 0; }
.frame svg { width: 100%; height: 100%; overflow: visible; }
.ys, .xs { position: relative; color: var(--soft); font-size: 11px; }
.ys span { position: absolute; right: 7px; transform: translateY(50%); }
.xs { grid-column: 2; } .xs span { position: absolute; top: 5px; transform: translateX(-50%); }
svg * { vector-effect: non-scaling-stroke; }
svg .grid { stroke: var(--rule); } svg .mark { stroke: var(--soft); stroke-dasharray: 3 3; }
svg .line { fill: none; stroke-width: 1.8; stroke-linejoin: round; } svg .area { opacity: .18; }
.bar { display: flex; height: 22px; border-radius: 3px; overflow: hidden; }
.fill1 { fill: var(--c1); background: var(--c1); } .fill2 { fill: var(--c2); background: var(--c2); }
.fill3 { fill: var(--c3); background: var(--c3); } .fill4 { fill: var(--c4); background: var(--c4); }
.fill5 { fill: var(--c5); background: var(--c5); } .fill6 { fill: var(--c6); background: var(--c6); }
.stroke1 { stroke: var(--c1); } .stroke2 { stroke: var(--c2); } .stroke3 { stroke: var(--c3); }
@media (max-width: 640px) {
  main { padding: 18px 10px 40px; }
  table, tbody, tr, td { display: block; } thead { display: none; }
  tr { padding: 6px 0; border-bottom: 1px solid var(--rule); } tr:last-child { border-bottom: 0; }
  td, .text td { display: flex; justify-content: space-between; gap: 14px; padding: 1px 4px; border: 0; }
  td:first-child, .text td:first-child { display: block; font-weight: 600; white-space: normal; }
  td[data-unit]::after { content: ", " attr(data-unit); color: var(--soft); font-weight: 400; }
  td[data-name]::before { content: attr(data-name); color: var(--soft); flex: none; }
}
@media print { .card, .tile { break-inside: avoid; } }
"""


def escape(text: str) -> str:
    """Return text as HTML: markup and control characters escaped."""
    return escape_markup(printable(text))


def document(title: str, body: str) -> str:
    """Return the whole page; `body` is HTML, `title` is text."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n"
        "</body>\n</html>\n"
    )


def section(identity: str, title: str, *parts: str) -> str:
    """Return a section with a heading; `parts` are HTML."""
    return "\n".join([f'<section id="{identity}">', f"<h2>{escape(title)}</h2>", *parts, "</section>"])


def card(*parts: str) -> str:
    """Return a framed block of HTML."""
    return f'<div class="card">{"".join(parts)}</div>'


def table(
    identity: str, header: Sequence[str], rows: Iterable[Sequence[str]], *, text: bool = False, unit: str = ""
) -> str:
    """Return a table of text cells; `text`: all columns to the left, else all but the first to the right.

    On a narrow screen each row stands by itself, a line a cell after the name of its column. `unit`: of all cells.
    """
    style = ' class="text"' if text else ""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in header)
    named = [f' data-name="{escape(name)}"' if name else "" for name in header]
    named[0] = f' data-unit="{escape(unit)}"' if unit else ""
    lines = ("".join(f"<td{name}>{escape(cell)}</td>" for name, cell in zip(named, row, strict=True)) for row in rows)
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    return f'<table id="{identity}"{style}>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>'


def tiles(figures: Iterable[tuple[str, str]]) -> str:
    """Return a row of figures, each a value with unit and its label."""
    shown = []
    for value, label in figures:
        number, _, unit = value.partition(" ")
        text = f"<b>{escape(number)} <small>{escape(unit)}</small></b>"
        shown.append(f'<div class="tile">{text}<span class="soft">{escape(label)}</span></div>')
    return f'<div class="tiles">{"".join(shown)}</div>'


def paragraph(text: str, *, soft: bool = False) -> str:
    """Return a paragraph of text."""
    style = ' class="soft"' if soft else ""
    return f"<p{style}>{escape(text)}</p>"
