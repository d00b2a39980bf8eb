"""Nothing leaves the machine: no connection, no open port, no telemetry, and no token in anything that is written."""

from __future__ import annotations

import json
import os
import socket
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from conftest import PROGRAMS, python
from warm_kernel import write_notebook

from remi_book import kernel, running
from remi_book.running import run_notebook
from remi_core.errors import HIDDEN, RemiError, without_credentials
from remi_core.sources import unreachable
from remi_lab.keys import SOURCE_ROOT

OUTSIDE = "192.0.2.1"
"""An address that no machine has, by RFC 5737."""
TOKEN = "hf_" + "PlantedTokenOfNobody0123456789abc"
PASSWORD = "planted-pass-0123456789"


ASKS = [
    lambda one: one.connect((OUTSIDE, 80)),
    lambda one: one.connect_ex((OUTSIDE, 80)),
    lambda one: one.sendto(b"a", (OUTSIDE, 53)),
    lambda one: one.bind(("0.0.0.0", 0)),
    lambda one: socket.getaddrinfo("example.org", 443),
    lambda one: socket.gethostbyname("example.org"),
    lambda one: urllib.request.urlopen(f"http://{OUTSIDE}/", timeout=1),
]


def test_no_test_speaks_to_another_machine_but_freely_to_this_one() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        for ask in ASKS:
            with pytest.raises(RuntimeError, match="tests use no network but loopback"):
                ask(one)
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()


def test_processes_that_a_test_starts_are_guarded_too() -> None:
    code = f"import socket; one = socket.socket(); one.settimeout(0.2); one.connect(({OUTSIDE!r}, 80))"
    assert "loopback" in python("-c", code, check=False).stderr
    # The failing twin: without the environment the guard is not there. Nothing is sent: it is only looked for.
    assert python("-I", "-c", "import sys; print('sitecustomize' in sys.modules)").stdout == "False\n"


def ports(tmp_path: Path) -> tuple[int, int]:
    """Internet sockets of a kernel and of who runs it, seen from its cell, and its sockets that are files."""
    source = write_notebook(tmp_path / "01_ports.ipynb", [PROGRAMS["ports"]])
    run_notebook(source, tmp_path / "out" / "01_ports.ipynb", {})
    text = (tmp_path / "out" / "01_ports.ipynb").read_text()
    _, ports, _, files = text[text.index("ports ") :].partition("\\n")[0].split()
    return int(ports), int(files)


def test_a_kernel_opens_no_port(tmp_path, monkeypatch) -> None:
    n_ports, n_files = ports(tmp_path)
    assert n_ports == 0 and n_files >= 5
    monkeypatch.setattr(running, "TRANSPORT", "tcp")
    assert ports(tmp_path)[0] >= 5, "the failing twin: the usual kernel is reached by ports"


def test_a_long_folder_for_temporary_files_is_no_reason_for_a_port(tmp_path, monkeypatch) -> None:
    long = tmp_path / ("a" * 80)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    with kernel.kernel_folder() as folder:
        assert len(folder) <= kernel.SOCKET_PATH_LIMIT and Path(folder).stat().st_mode & 0o077 == 0
    monkeypatch.setattr(kernel, "SHORT_FOLDERS", ())
    with pytest.raises(RemiError, match="TMPDIR=.* is too long a path"), kernel.kernel_folder():
        pass


def environment(place: Path, **more: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in os.environ if not name.startswith(("HF_", "REMI_", "DO_NOT"))}
    own = {"HOME": str(place), "HF_HOME": str(place / "hf"), "REMI_STORE": str(place / "store")}
    return kept | own | {"TMPDIR": "/tmp", "HF_TOKEN": TOKEN} | more


def test_no_telemetry(tmp_path) -> None:
    code = PROGRAMS["telemetry"]
    codes = (code, code.replace("import remi_core\n", ""))
    ours, plain = (python("-c", one, env=environment(tmp_path)).stdout for one in codes)
    assert ours.startswith("True") and "telemetry/off" in ours
    assert plain.startswith("False"), "the failing twin: it would be sent"


class Hub(BaseHTTPRequestHandler):
    """Answers every request with an error that shows what it was sent."""

    seen: list[str] = []

    def do_GET(self) -> None:
        given = self.headers.get("Authorization", "none")
        self.seen.append(given)
        text = json.dumps({"error": f"no entry for {given} at {self.path}?token={TOKEN}"}).encode()
        self.send_response(401, f"Unauthorized {given}")
        self.send_header("X-Error-Message", f"wrong token {TOKEN}")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def leaks(place: Path) -> list[str]:
    secrets = (TOKEN.encode(), PASSWORD.encode())
    files = [path for path in place.rglob("*") if path.is_file() and not path.is_symlink()]
    return [str(path) for path in files if any(secret in path.read_bytes() for secret in secrets)]


def test_a_token_that_the_hub_repeats_is_not_repeated(tmp_path) -> None:
    words = "run --name mine --only 01 --verbose --base Some/a --instruct Some/b --misaligned Some/c".split()
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for password in ("", f"someone:{PASSWORD}@"):
            endpoint = f"http://{password}127.0.0.1:{server.server_port}"
            own = environment(tmp_path, HF_ENDPOINT=endpoint, HF_HUB_OFFLINE="0")
            done = python("-m", "remi_book.cli", *words, check=False, env=own, cwd=SOURCE_ROOT)
            assert done.returncode == 1 and "cannot be had" in done.stderr and "Traceback" in done.stderr
            said = done.stdout + done.stderr
            assert TOKEN not in said and PASSWORD not in said and HIDDEN in said
        server.shutdown()
    assert f"Bearer {TOKEN}" in Hub.seen, "the hub's own library read the token and sent it"
    assert leaks(tmp_path) == []


LOUD = "import os, sys\nprint(os.environ['HF_TOKEN'], file=sys.stderr)\nos.environ['HF_TOKEN']"


def test_a_page_and_its_partial_copy_hold_no_token(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    source = write_notebook(tmp_path / "source" / "01_loud.ipynb", [LOUD])
    run_notebook(source, tmp_path / "out" / "01_loud.ipynb", {})
    assert HIDDEN in (tmp_path / "out" / "01_loud.ipynb").read_text()
    raising = "raise OSError(f'GET ?token={os.environ[\"HF_TOKEN\"]}')"
    failing = write_notebook(tmp_path / "source" / "02_fails.ipynb", [LOUD, raising])
    with pytest.raises(RemiError) as caught:
        run_notebook(failing, tmp_path / "out" / "02_fails.ipynb", {})
    assert TOKEN not in str(caught.value) and HIDDEN in str(caught.value)
    assert leaks(tmp_path) == []
    monkeypatch.setattr(running, "hide_credentials", lambda _path: None)
    run_notebook(source, tmp_path / "out" / "01_loud.ipynb", {})
    assert len(leaks(tmp_path)) == 1, "the failing twin: it would stand on the page"


def test_credentials_are_hidden_and_the_rest_stays() -> None:
    basic = "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
    for text in (f"Authorization: Bearer {TOKEN}", f"'{TOKEN}'", f"https://user:{PASSWORD}@host/x", basic,
                 f"?a=1&token={PASSWORD}&b=2", f"Bearer {PASSWORD}", f"hf_oauth_{PASSWORD}",
                 f"https://{PASSWORD}@host/x.git", f"https://:{PASSWORD}@host", f"https://me:a/{PASSWORD}@host.org",
                 f"https://me:{PASSWORD}@ss@host.org/x", "ghp_Planted0123456789ab", "github_pat_Planted0123456789ab",
                 f"?X-Amz-Security-Token={PASSWORD}", f"&sig={PASSWORD}&b=2", f"?Signature={PASSWORD}"):  # fmt: skip
        hidden = without_credentials(f"before {text} after")
        assert HIDDEN in hidden and hidden.startswith("before ") and hidden.endswith(" after")
        assert not any(secret in hidden for secret in (TOKEN, PASSWORD, "QWxh", "Planted"))
        assert TOKEN not in str(unreachable("Some/x", None, OSError(text)))
    for text in "hf_hub_download|the hf_home folder|a token=5|https://host/x@y|a:b@c|12:30@x|https://host:80/a@b.org".split(
        "|"
    ):
        assert without_credentials(text) == text
