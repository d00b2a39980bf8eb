"""The passports of a page's figures as one file beside the page, and what the page adds to each."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping

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
    notebook, figures, records = json.loads(page), [], {}
    for output in (one for cell in notebook["cells"] for one in cell.get("outputs", ())):
        found = output.get("data", {}).pop(PASSPORT, None)
        if found is None:
            continue
        own = [{key: one[key] for key in OF_A_FIGURE if key in one} for one in found["records"]]
        figures.append({"figure": len(figures) + 1, **found, "records": own})
        for one in found["records"]:
            records[str(one["record"])] = {key: one[key] for key in one if key not in OF_A_FIGURE}
        text = "".join(output["data"]["text/html"])
        output["data"]["text/html"] = text.replace(PAGE, _page_line(name, about))
    if not figures:
        return page, ""
    run = {key: about.get(key) for key in ("parameters", "key", "ended", "seconds", "machine")}
    whole = {"notebook": name, **run, "figures": figures, "records": dict(sorted(records.items()))}
    text = json.dumps(whole, indent=1, ensure_ascii=False) + "\n"
    return json.dumps(notebook, indent=1, sort_keys=True), text


def _page_line(name: str, about: Mapping[str, object]) -> str:
    ran = [f"Notebook <code>{html.escape(name)}</code>"]
    if about.get("seconds") is not None:
        ran.append(f"run in {float(about['seconds']):.0f} seconds")
    if about.get("machine"):
        ran.append(f"on {html.escape(str(about['machine']))}")
    if about.get("ended"):
        ran.append(f"ended {html.escape(str(about['ended']))}")
    link = f'<a href="{html.escape(name, quote=True)}{ENDING}">all passports of this page as a file</a>'
    return f"{', '.join(ran)}; {link} (JSON)."
