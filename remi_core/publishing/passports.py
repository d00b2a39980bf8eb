"""The passports of a page's figures as one file beside the page, and what the page adds to each."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from remi_core.escaping import as_html
from remi_core.trail import PAGE, PASSPORT

ENDING = ".passports.json"
"""End of the name of a page's file of passports; the built book holds it beside the page."""

OF_A_FIGURE = ("record", "windows")
"""What a figure says of a record; the rest is the record's own and stands in the file once."""


def split_passports(page: str, name: str, about: Mapping[str, object]) -> tuple[str, str]:
    """JSON texts of a page without its figures' passports, and of these, each record described once; "" for none.

    On the page each folded part says which notebook ran, when, how long and on what: ``about`` is the record of
    the execution, as ``execution_record`` gives it.
    """
    notebook, found = json.loads(page), []
    for output in (one for cell in notebook["cells"] for one in cell.get("outputs", ())):
        if PASSPORT in output.get("data", {}):
            found.append(output["data"].pop(PASSPORT))
            text = "".join(output["data"]["text/html"])
            output["data"]["text/html"] = text.replace(PAGE, _page_line(name, about))
    if not found:
        return page, ""
    run = {key: about.get(key) for key in ("parameters", "key", "ended", "seconds", "machine")}
    return json.dumps(notebook, indent=1, sort_keys=True), passports_text({"notebook": name, **run}, found)


def passports_text(page: Mapping[str, object], found: Sequence[Mapping[str, object]]) -> str:
    """JSON text of a page's passports, after what is known of the page: figures in order, each record once."""
    figures, records = [], {}
    for number, one in enumerate(found, start=1):
        own = [{key: each[key] for key in OF_A_FIGURE if key in each} for each in one["records"]]
        figures.append({"figure": number, **one, "records": own})
        for each in one["records"]:
            records[str(each["record"])] = {key: each[key] for key in each if key not in OF_A_FIGURE}
    whole = {**page, "figures": figures, "records": dict(sorted(records.items()))}
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def _page_line(name: str, about: Mapping[str, object]) -> str:
    ran = [f"Notebook <code>{as_html(name)}</code>"]
    if about.get("seconds") is not None:
        ran.append(f"run in {float(about['seconds']):.0f} seconds")
    if about.get("machine"):
        ran.append(f"on {as_html(str(about['machine']))}")
    if about.get("ended"):
        ran.append(f"ended {as_html(str(about['ended']))}")
    link = f'<a href="{as_html(name)}{ENDING}">all passports of this page as a file</a>'
    return f"{', '.join(ran)}; {link} (JSON)."
