"""The front page of several books side by side: what each preset is, how much was run, and the way in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from remi_core.escaping import as_html

STYLE = """
:root { color-scheme: light dark; --ink: #222832; --muted: #4d5863; --ground: #fff; --card: #f5f7f9;
  --line: #c9d2da; --link: #0b4fae; }
@media (prefers-color-scheme: dark) { :root { --ink: #e3e8ee; --muted: #b4bfc9; --ground: #14181e; --card: #1f252d;
  --line: #46525e; --link: #9cc6ff; } }
body { background: var(--ground); color: var(--ink); font: 1.05rem/1.6 system-ui, sans-serif; margin: 0; }
main { margin: 0 auto; max-width: 46rem; padding: 2.5rem 1.2rem; }
h1 { font-size: 1.9rem; line-height: 1.25; margin: 0 0 .6rem; }
h2 { font-size: 1.25rem; margin: 0 0 .3rem; }
ul { list-style: none; padding: 0; }
li { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; margin: 1rem 0;
  padding: 1rem 1.2rem; }
p { margin: .3rem 0; overflow-wrap: anywhere; }
p.detail { color: var(--muted); font-size: .92rem; }
a { color: var(--link); }
"""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What the front page says of one preset."""

    name: str
    title: str
    remark: str
    n_run: int
    n_pages: int
    verdicts: Mapping[str, int]
    """Verdict → claims that have it, without their parts."""
    fingerprint: str


def front_page(presets: Sequence[Shown]) -> str:
    """HTML of the page, whole in itself: no script, no other file but the mark of the first book."""
    cards = "\n".join(map(_card, presets))
    icon = as_html(presets[0].name)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>The ReMi book, by preset</title>
<link rel="icon" href="{icon}/_static/logo.svg">
<style>{STYLE}</style>
</head>
<body>
<main>
<h1>The ReMi book, by preset</h1>
<p>The same notebooks on several sets of models. A verdict belongs to a preset: what holds on one set of models is
no result about another. Every page of each book has a switch to the same page of the others.</p>
<ul>
{cards}
</ul>
</main>
</body>
</html>
"""


def _card(one: Shown) -> str:
    counted = ", ".join(f"{count} {as_html(word)}" for word, count in one.verdicts.items())
    claims = f"Claims: {counted}." if counted else "No claims: nothing was run for this preset."
    remark = f'<p class="detail">{as_html(one.remark)}</p>' if one.remark else ""
    return f"""<li>
<h2><a href="{as_html(one.name)}/index.html">{as_html(one.name)}</a></h2>
<p>{as_html(one.title)}</p>
{remark}
<p class="detail">{one.n_run} of {one.n_pages} notebook pages run. {claims}</p>
<p class="detail">Fingerprint <code>{as_html(one.fingerprint[:16])}</code></p>
</li>"""
