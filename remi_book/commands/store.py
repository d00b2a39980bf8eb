"""``remi store list | size | prune | check``: what is stored, room again, and whether it is what was written."""

from __future__ import annotations

import argparse

from remi_book.commands.parser import add_action, add_store, open_store, positive
from remi_book.words import as_line
from remi_core.store import damages, prune

HELP = "list, size, prune or check what is stored"
MEBIBYTE = 2**20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the action and its options."""
    add_action(parser, ("list", "size", "prune", "check"))
    parser.add_argument(
        "--keep", type=positive, default=1, help="prune: keys to keep of each record (default: 1)"
    )
    add_store(parser)


def run(arguments: argparse.Namespace) -> int:
    """0, after the list, the size, or what was removed; 1 where ``check`` names something damaged."""
    store = open_store(arguments)
    if arguments.action == "list":
        for entry in store.list():
            print(f"{entry.n_bytes / MEBIBYTE:9.2f} MiB  {entry.path.relative_to(store.root)}")
    elif arguments.action == "prune":
        removed = prune(store, arguments.keep)
        for path in removed:
            print(f"removed {path.relative_to(store.root)}")
        print(f"{len(removed)} removed")
    elif arguments.action == "check":
        found = damages(store.root)
        for path, reason in found:
            print(as_line(f"{path.relative_to(store.root)}: {reason}"))
        print(f"{len(found)} damaged; the next run that needs one makes it again")
        return 1 if found else 0
    print(f"{store.size() / MEBIBYTE:.1f} MiB in {store.root}")
    return 0
