"""Downloads, all from a server of the test itself on 127.0.0.1."""

import gzip
import hashlib
import http.server
import threading
from dataclasses import replace
from types import MappingProxyType

import pytest

import traces.catalog
from hw_profiles.errors import InputError
from traces.catalog import CATALOG, cache_dir, locate
from traces.fetch import fetch

NAME = "mooncake-conversation"
LINE = b'{"timestamp": 0, "input_length": 3, "output_length": 5, "hash_ids": [%d]}\n'
CONTENT = b"".join(LINE % i for i in range(5000))


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers by path; what was asked for is kept in `server.asked`."""

    def do_GET(self):
        self.server.asked.append(self.path)
        body, announced, status = CONTENT, None, 200
        if self.path == "/packed":
            body = gzip.compress(CONTENT)
        elif self.path == "/broken-gzip":
            body = gzip.compress(CONTENT)[:200] + b"\0" * 500
        elif self.path == "/other":
            body = CONTENT + b"x"
        elif self.path == "/cut":
            announced = len(CONTENT)
            body = CONTENT[: len(CONTENT) // 2]
        elif self.path.startswith("/to?"):
            self.send_response(302)
            self.send_header("Location", self.path[4:])
            self.end_headers()
            return
        elif self.path != "/plain":
            status, body = 404, b"no"
        self.send_response(status)
        self.send_header("Content-Length", str(announced or len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.asked = []
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        running.url = f"http://127.0.0.1:{running.server_port}"
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def small_catalog(monkeypatch, tmp_path):
    """The trace of the catalog with the content above, and a cache folder of the test."""
    entry = replace(CATALOG[NAME], sha256=hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setattr(traces.catalog, "CATALOG", MappingProxyType({**CATALOG, NAME: entry}))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("KVSIM_TRACES", raising=False)
    for proxy in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    return tmp_path


@pytest.mark.parametrize("page", ["/plain", "/packed"])
def test_fetch_puts_the_trace_where_locate_looks(server, page):
    path = fetch(NAME, url=server.url + page)
    assert path == locate(NAME) == cache_dir() / CATALOG[NAME].relative
    assert gzip.decompress(path.read_bytes()) == CONTENT
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # no temporary file


def test_fetch_to_a_named_file_plain(server, tmp_path):
    path = fetch(NAME, url=server.url + "/packed", dest=tmp_path / "deep" / "own.jsonl")
    assert path.read_bytes() == CONTENT


def test_progress_counts_up_to_the_announced_size(server):
    calls = []
    fetch(NAME, url=server.url + "/plain", progress=lambda done, total: calls.append((done, total)))
    assert len(calls) > 1
    assert [done for done, _ in calls] == sorted({done for done, _ in calls})
    assert calls[-1] == (len(CONTENT), len(CONTENT))
    assert {total for _, total in calls} == {len(CONTENT)}


def test_a_good_file_is_kept_a_bad_one_replaced(server):
    path = fetch(NAME, url=server.url + "/plain")
    fetch(NAME, url=server.url + "/plain")
    assert server.asked == ["/plain"]
    path.write_bytes(gzip.compress(CONTENT)[:-20])
    fetch(NAME, url=server.url + "/plain")
    assert gzip.decompress(path.read_bytes()) == CONTENT


def refused(tmp_path, url, words, old=None):
    """fetch fails with one line, and the folder is as it was before."""
    target = tmp_path / "place" / "t.jsonl.gz"
    if old is not None:
        target.parent.mkdir(parents=True)
        target.write_bytes(old)
    with pytest.raises(InputError, match=words) as caught:
        fetch(NAME, url=url, dest=target)
    assert "\n" not in str(caught.value)
    left = [p.name for p in target.parent.iterdir()] if target.parent.exists() else []
    assert left == ([] if old is None else [target.name])
    assert old is None or target.read_bytes() == old


@pytest.mark.parametrize(
    ("page", "words"),
    [
        ("/missing", "the server answers 404"),
        ("/other", "sha256 of the content is .* not kept"),
        ("/cut", "connection closed after .* of"),
        ("/broken-gzip", "compressed content is damaged|sha256 of the content"),
        ("/to?ftp://127.0.0.1/x", "http"),
        ("/to?file:///etc/hostname", "http"),
    ],
)
@pytest.mark.parametrize("old", [None, b"an older file"])
def test_failures_leave_nothing_half_written(server, tmp_path, page, words, old):
    refused(tmp_path, server.url + page, words, old)


def test_a_redirect_within_http_is_followed(server, tmp_path):
    assert fetch(NAME, url=server.url + "/to?/plain", dest=tmp_path / "a.jsonl").read_bytes() == CONTENT


def test_nobody_there(server, tmp_path):
    server.shutdown()  # a loop still polling would keep the closed socket alive
    server.server_close()
    refused(tmp_path, server.url + "/plain", "cannot reach it")


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://127.0.0.1/x", "/etc", "http://", "http://[", "x"])
def test_only_http_addresses(tmp_path, url):
    refused(tmp_path, url, "expected an address in http:// or https://")


def test_an_error_of_the_caller_leaves_nothing(server, tmp_path):
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(NAME, url=server.url + "/plain", dest=tmp_path / "place" / "t.jsonl", progress=stop)
    assert list((tmp_path / "place").iterdir()) == []


def test_a_place_that_cannot_be_written(server, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot write it"):
        fetch(NAME, url=server.url + "/plain", dest=tmp_path / "file" / "t.jsonl")


def test_a_sample_of_the_package_needs_no_download():
    assert fetch("quickstart") == locate("quickstart")


def test_without_a_public_address(server, tmp_path):
    with pytest.raises(InputError, match="trace agentic-coding: no public address known; set KVSIM_TRACES"):
        fetch("agentic-coding", dest=tmp_path / "a.jsonl")
    with pytest.raises(InputError, match="sha256 of the content"):  # an address of the user's is tried
        fetch("agentic-coding", url=server.url + "/plain", dest=tmp_path / "a.jsonl")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_name():
    with pytest.raises(InputError, match="did you mean 'quickstart'"):
        fetch("quickstar")
