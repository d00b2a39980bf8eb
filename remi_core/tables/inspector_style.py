"""How the token inspector looks, in the page itself, so that a notebook alone shows it too."""

from __future__ import annotations

from remi_core.dialogues.entering import STATISTICS

PLAIN = """
.remi-inspector fieldset{border:1px solid #888;border-radius:.3rem;padding:.3rem .8rem;margin:0 0 .8rem}
.remi-inspector legend{font-size:.9rem;width:auto;padding:0 .3rem;float:none;margin:0}
.remi-inspector fieldset label{display:inline-block;margin:.1rem .9rem .1rem 0}
.remi-inspector .tokens{font-family:monospace;line-height:2;margin:0 0 .4em;overflow-wrap:anywhere}
.remi-inspector .tokens span{padding:.1em .12em}
.remi-inspector .around{border-bottom:1px dotted #888}
.remi-inspector .choice{outline:2px solid #a3297a;outline-offset:1px}
html[data-theme="dark"] .remi-inspector .choice{outline-color:#f09bd0}
.remi-inspector .legend,.remi-inspector .said{margin:0 0 .5em}
.remi-inspector select{max-width:100%}
.remi-inspector .dialogue[hidden],.remi-inspector [hidden]{display:none}
"""

# The marks are brackets as well as a colour, and every statistic has its sentence below.
MARKED = "background:rgba(0,121,140,.24);font-weight:600"
RULES = """
.remi-inspector:has(input[value="{key}"]:checked) .in-{key}{{{look}}}
.remi-inspector:has(input[value="{key}"]:checked) .in-{key}::before{{content:"["}}
.remi-inspector:has(input[value="{key}"]:checked) .in-{key}::after{{content:"]"}}
@supports selector(:has(*)){{.remi-inspector:not(:has(input[value="{key}"]:checked)) .for-{key}{{display:none}}}}
"""

STYLE = PLAIN + "".join(RULES.format(key=key, look=MARKED) for key in STATISTICS)
"""One rule for each statistic: the button that is pressed decides, without a script."""
