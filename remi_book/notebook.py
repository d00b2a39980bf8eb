"""How a notebook opens its results: parameters checked, and a note in the place of what a preset lacks.

It is the same however the notebook is run: by ``remi run``, papermill, ``jupyter execute`` or cell by cell.
"""

from __future__ import annotations

import ast
import warnings
from traceback import walk_tb

from IPython import get_ipython
from IPython.display import HTML, display

from remi_book.figures.style import take_looks
from remi_book.running import NOTES, has_type
from remi_book.words import as_html, as_line, forget_signs
from remi_core.errors import MissingInput, RemiError, UsageError, nearest, without_credentials
from remi_core.store import Store
from remi_lab.presets import get_preset
from remi_lab.results import Results

# Said when transformers is imported, with a path of this machine in it; there are no bars that widgets would draw.
warnings.filterwarnings("ignore", "IProgress not found")

ESTIMATES = ("remi_core.statistics.", "remi_book.chapters.")
"""Where what has no value for degenerate models or dialogues is computed."""
INJECTED = "# Parameters"
"""How the cell begins that papermill puts behind the notebook's own parameters."""


def open_results(preset: object) -> Results:
    """The results of the preset of that name, from the store; from here on a cell that lacks its input shows a note.

    Raises:
        UsageError: if there is no such preset, or a parameter that the notebook does not declare or that has another
            type was passed to it.
    """
    shell = get_ipython()
    if shell is not None:
        shell.set_custom_exc((UsageError, RemiError), _in_one_line)
        check_given(list(shell.history_manager.input_hist_parsed), shell.user_ns)
        if not any(isinstance(each, Notes) for each in shell.ast_transformers):
            shell.ast_transformers.append(Notes())
        _ABSENT.clear()
    if not isinstance(preset, str):
        raise UsageError(
            f"parameter 'preset' is {preset!r}; expected the name of a preset, as `remi presets` lists them"
        )
    results = Results(get_preset(preset), Store())
    take_looks(results.variants)
    forget_signs()
    return results


def check_given(cells: list[str], values: dict[str, object]) -> None:
    """Check what was passed to a notebook against the parameters that it declares, by the cells that ran so far.

    Raises:
        UsageError: naming a parameter that is not declared, or one whose value has not the type that is written.
    """
    declared: dict[str, str] = {}
    for cell in cells:
        if cell.startswith(INJECTED):
            for name in _assigned(ast.parse(cell)):
                if name not in declared:
                    raise UsageError(f"no parameter {name!r} in this notebook {nearest(name, declared)}")
        elif not declared:
            annotated = [each for each in _parsed(cell).body if isinstance(each, ast.AnnAssign)]
            declared = {ast.unparse(each.target): ast.unparse(each.annotation) for each in annotated}
    for name, written in declared.items():
        if name in values and not has_type(values[name], written):
            raise UsageError(f"parameter {name!r} is {written}, and {values[name]!r} is not")


class Notes(ast.NodeTransformer):
    """Puts the code of each cell into one ``try``, so that a missing input is a note and not the notebook's end."""

    def visit_Module(self, module: ast.Module) -> ast.Module:
        """The cell with ``note`` called on its error; the value of its last expression is shown as before."""
        if not module.body:
            return module
        names, last = sorted(_assigned(module)), module.body[-1]
        for name in names:
            _ABSENT.pop(name, None)
        here = f"__import__('sys').modules[{__name__!r}]"
        if isinstance(last, ast.Expr):
            hook = ast.parse("__import__('sys').displayhook", mode="eval").body
            module.body[-1] = ast.copy_location(ast.Expr(ast.Call(hook, [last.value], [])), last)
        wrapped = ast.parse(
            f"try: pass\nexcept Exception as __error__:\n    if not {here}.note(__error__, {names}): raise"
        )
        wrapped.body[0].body = module.body
        return ast.fix_missing_locations(ast.Module(wrapped.body, module.type_ignores))


_ABSENT: dict[str, str] = {}
"""Name that a cell would have given a value → what that cell lacked."""


def note(error: Exception, names: list[str]) -> bool:
    """Whether an error of a cell is an input that the preset lacks, in whose place a note is shown then.

    Models that are equal, or answers that never differ, leave some estimates without a value: those lack an input too.
    ``names`` are those that the cell would have given a value: a cell that uses one of them gets the same note.
    """
    needs = str(error) if isinstance(error, MissingInput) else ""
    if isinstance(error, NameError):
        needs = _ABSENT.get(error.name, "")
    if isinstance(error, ValueError) and not isinstance(error, UsageError) and _is_estimate(error):
        needs = f"needs models and dialogues from which it can be computed ({as_line(str(error))})"
    if needs:
        _ABSENT.update(dict.fromkeys(names, needs))
        text = as_html(f"Not shown for this preset: {needs}.")
        page = f'<div class="admonition note"><p class="admonition-title">Note</p><p>{text}</p></div>'
        display(HTML(page), metadata={NOTES: needs})
    return bool(needs)


def _is_estimate(error: Exception) -> bool:
    """Whether an error was raised while an estimate was made, and not by the cell's own code."""
    modules = [frame.f_globals.get("__name__", "") for frame, _ in walk_tb(error.__traceback__)]
    return any(name.startswith(ESTIMATES) for name in modules)


def _assigned(tree: ast.AST) -> set[str]:
    """Names that the code gives a value, at any depth."""
    stored = {
        node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    made = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    imported = {
        (alias.asname or alias.name).partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    return stored | made | imported


def _parsed(cell: str) -> ast.Module:
    try:
        return ast.parse(cell)
    except SyntaxError:
        return ast.Module([], [])


def _in_one_line(shell, kind, error, _traceback, tb_offset=None) -> None:
    """What a wrong use or a failure of ours looks like in a notebook: one line, and no traceback."""
    line = f"{kind.__name__}: {as_line(without_credentials(str(error)))}"
    shell._showtraceback(kind, error, [line])
