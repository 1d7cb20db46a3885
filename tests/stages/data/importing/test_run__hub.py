"""Data sets by their names on the hub, which is here a server on loopback, asked by the hub's own client."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """What the client asks of the hub: the files of a data set, and each of them."""

    files: dict[str, dict[str, bytes]]
    fetched: list[str]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        if parts[:2] == ["api", "datasets"]:
            name = "/".join(parts[2:4])
            files = self.server.files.get(name)
            if files is not None:
                found: Any = {"id": name, "sha": COMMIT, "siblings": [{"rfilename": path} for path in files]}
                if parts[4:5] == ["tree"]:
                    found = [
                        {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                        for path, data in files.items()
                    ]
                return self.answer(json.dumps(found).encode())
        elif parts[0] == "datasets" and parts[3] == "resolve":
            path = "/".join(parts[5:])
            data = self.server.files["/".join(parts[1:3])][path]
            if self.command == "GET":
                self.server.fetched.append(path)
            return self.answer(data, {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": COMMIT})
        self.send_response(404)
        self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def answer(self, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(200)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub(("127.0.0.1", 0), Handler)
    server.files, server.fetched = {}, []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def run_import(hub: Hub, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`semires data import` in a process of its own: the client reads its settings once."""
    settings = {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(folder / "hub"),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": "127.0.0.1",
    }
    code = "from semires.pipeline.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, "data", "import", *arguments, "--data", str(folder / "data")],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
    )


def test_import_data__by_name(
    tmp_path: Path,
    small: Any,
    hub: Hub,
    write_parquet: Callable[..., Path],
    read_back: Callable[..., Any],
    assert_same_refs: Callable[..., None],
) -> None:
    rows = write_parquet(small.hub_rows(), "rows.parquet").read_bytes()
    hub.files["jxu124/refcoco"] = {"data/train-00000-of-00001-4f.parquet": rows, "README.md": b"text"}
    found = run_import(hub, tmp_path, "jxu124/refcoco", "--split", "refcoco")
    assert found.returncode == 0, found.stderr
    assert "train: 2 refs, 1 images, 3 expressions" in found.stdout
    assert_same_refs(read_back(tmp_path / "data", "refcoco"), small)
    assert hub.fetched == ["data/train-00000-of-00001-4f.parquet"]


def test_import_data__grefcoco_by_name(tmp_path: Path, small: Any, hub: Hub) -> None:
    """Only the two files of those that are there; brackets in a name are no pattern."""
    refs = [{**ref, "ann_id": [ref["ann_id"]]} for ref in small.refs if ref["ann_id"] != 12]
    hub.files["FudanCVL/gRefCOCO"] = {
        "grefs(unc).json": json.dumps(refs).encode(),
        "instances.json": json.dumps(small.instances).encode(),
        "images.zip": b"x" * 100,
    }
    found = run_import(hub, tmp_path, "FudanCVL/gRefCOCO", "--split", "grefcoco")
    assert found.returncode == 0, found.stderr
    assert sorted(hub.fetched) == ["grefs(unc).json", "instances.json"]
    assert (tmp_path / "data/grefcoco/refs(unc).p").is_file()
