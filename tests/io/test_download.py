"""A fetched file is the right one, or there is a clear error; what arrived is not fetched twice."""

import hashlib
import os
import random
import sys
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from sciffusion.io import (
    ChecksumError,
    DownloadError,
    byte_progress,
    cache_dir,
    fetch,
    fetch_pypi,
    verify,
)

CONTENT = random.Random(0).randbytes(3_000_017)
SHA = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Served:
    """What the server does, and the first bytes that it was asked for."""

    url: str = ""
    content: bytes = CONTENT
    ranges: bool = True
    cut_after: int | None = None  # bytes of the body after which the connection drops
    starts: list[int] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[Served]:
    served = Served()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path != "/file.bin":
                return self.send_error(404)
            asked = self.headers.get("Range")
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
            served.starts.append(start)
            size = len(served.content)
            if asked and served.ranges and start >= size:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{size}")
                return self.end_headers()
            if asked and served.ranges:
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
            else:
                self.send_response(200)
                start = 0
            body = served.content[start:]
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: served.cut_after])

        def log_message(self, format: str, *args: object) -> None:
            """Keep the test's output clean."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    served.url = f"http://127.0.0.1:{http.server_address[1]}/file.bin"
    yield served
    http.shutdown()
    thread.join()
    http.server_close()


def test_a_fetched_file_is_the_one_served_and_no_part_is_left(
    server: Served, tmp_path: Path
) -> None:
    path = fetch(server.url, tmp_path / "new" / "file.bin", sha256=SHA.upper())
    assert path.read_bytes() == CONTENT
    assert os.listdir(path.parent) == ["file.bin"]


def test_a_file_that_is_there_is_not_fetched_again(server: Served, tmp_path: Path) -> None:
    for _ in range(2):
        fetch(server.url, tmp_path / "file.bin", sha256=SHA)
    assert server.starts == [0]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_dropped_connection_keeps_the_part_and_the_next_call_finishes(
    server: Served, tmp_path: Path, ranges: bool
) -> None:
    server.ranges, server.cut_after = ranges, 1_200_000
    path = tmp_path / "file.bin"
    with pytest.raises(DownloadError) as error:
        fetch(server.url, path, sha256=SHA)
    for words in (server.url, "1,200,000 bytes are kept", "file.bin.part", "3,000,017"):
        assert words in str(error.value)
    assert not path.exists()

    server.cut_after = None
    assert fetch(server.url, path, sha256=SHA).read_bytes() == CONTENT
    assert server.starts == [0, 1_200_000]
    assert os.listdir(tmp_path) == ["file.bin"]


def test_a_part_that_was_already_whole_is_taken(server: Served, tmp_path: Path) -> None:
    (tmp_path / "file.bin.part").write_bytes(CONTENT)
    assert fetch(server.url, tmp_path / "file.bin", sha256=SHA).read_bytes() == CONTENT
    assert server.starts == [len(CONTENT)]  # asked what is missing; was not sent it all again


def test_a_part_longer_than_the_file_is_dropped(server: Served, tmp_path: Path) -> None:
    (tmp_path / "file.bin.part").write_bytes(CONTENT + b"more")
    assert fetch(server.url, tmp_path / "file.bin", sha256=SHA).read_bytes() == CONTENT


def test_a_wrong_checksum_names_everything_and_the_next_call_can_succeed(
    server: Served, tmp_path: Path
) -> None:
    server.content = CONTENT[:-1] + b"?"
    path = tmp_path / "file.bin"
    with pytest.raises(ChecksumError) as error:
        fetch(server.url, path, sha256=SHA)
    got = hashlib.sha256(server.content).hexdigest()
    for words in (str(path), SHA, got, server.url, "call again"):
        assert words in str(error.value)
    assert os.listdir(tmp_path) == []

    server.content = CONTENT
    assert fetch(server.url, path, sha256=SHA).read_bytes() == CONTENT


def test_another_file_of_that_name_is_neither_used_nor_overwritten(
    server: Served, tmp_path: Path
) -> None:
    path = tmp_path / "file.bin"
    path.write_text("mine")
    with pytest.raises(ChecksumError, match="Move .*file.bin away or delete it"):
        fetch(server.url, path, sha256=SHA)
    assert path.read_text() == "mine"
    assert server.starts == []


def test_an_absent_file_names_the_url(server: Served, tmp_path: Path) -> None:
    url = server.url + ".gone"
    with pytest.raises(DownloadError, match="404") as error:
        fetch(url, tmp_path / "file.bin", sha256=SHA)
    assert url in str(error.value)
    assert "kept" not in str(error.value)


def test_a_server_that_is_not_there_names_the_url(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="http://127.0.0.1:9/file.bin"):
        fetch("http://127.0.0.1:9/file.bin", tmp_path / "file.bin", sha256=SHA)


def test_a_local_file_is_fetched_by_its_url(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(CONTENT)
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:1000])  # file: knows no ranges
    path = fetch(source.as_uri(), tmp_path / "file.bin", sha256=SHA)
    assert path.read_bytes() == CONTENT


def test_other_schemes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'ftp'; use https, http or file"):
        fetch("ftp://example.org/file.bin", tmp_path / "file.bin", sha256=SHA)


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_shown_on_a_terminal_and_nowhere_else(
    terminal: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    with byte_progress("file.bin", 2_000_000) as advance:
        advance(1_000_000)
    with byte_progress("quiet.bin", None, enabled=False) as advance:
        advance(1)
    out, err = capsys.readouterr()
    assert out == ""
    assert ("file.bin" in err and "1.0/2.0 MB" in err) if terminal else err == ""
    assert "quiet.bin" not in err


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes for its index, with one wheel; the network is out of reach."""
    folder = tmp_path / "index"
    folder.mkdir()
    info = "tiny_data-1.2.dist-info"
    with zipfile.ZipFile(folder / "tiny_data-1.2-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny_data/table.csv", "a,b\n1,2\n")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-data\nVersion: 1.2\n")
        tag = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        wheel.writestr(f"{info}/WHEEL", tag)
        wheel.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder / "tiny_data-1.2-py3-none-any.whl"


def test_a_package_file_comes_from_the_index_of_the_pip_settings(
    index: Path, tmp_path: Path
) -> None:
    sha = hashlib.sha256(index.read_bytes()).hexdigest()
    for _ in range(2):  # the second call finds the file
        got = fetch_pypi(
            "tiny-data", "1.2", filename=index.name, sha256=sha, folder=tmp_path / "cache"
        )
        assert got.read_bytes() == index.read_bytes()
        index.touch()
    assert os.listdir(tmp_path / "cache") == [index.name]


def test_a_package_file_with_a_wrong_checksum_is_not_kept(index: Path, tmp_path: Path) -> None:
    with pytest.raises(ChecksumError, match="index of pip serves another tiny_data-1.2"):
        fetch_pypi("tiny-data", "1.2", filename=index.name, sha256=SHA, folder=tmp_path / "cache")
    assert os.listdir(tmp_path / "cache") == []


def test_a_package_that_pip_cannot_find_says_what_pip_said_and_what_to_do(
    index: Path, tmp_path: Path
) -> None:
    with pytest.raises(DownloadError) as error:
        fetch_pypi("tiny-data", "9", filename=index.name, sha256=SHA, folder=tmp_path / "cache")
    for words in ("tiny-data==9", "No matching distribution", SHA, "put it at", index.name):
        assert words in str(error.value)
    assert os.listdir(tmp_path / "cache") == []


def test_verify_takes_the_right_file_and_refuses_a_missing_one(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(CONTENT)
    assert verify(path, SHA) == path
    with pytest.raises(FileNotFoundError):
        verify(tmp_path / "b", SHA)


def test_the_cache_folder_is_that_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCIFFUSION_CACHE", "~/elsewhere")
    assert cache_dir("qm9") == Path.home() / "elsewhere" / "qm9"
    monkeypatch.delenv("SCIFFUSION_CACHE")
    assert cache_dir("qm9") == Path.home() / ".cache" / "sciffusion" / "qm9"
