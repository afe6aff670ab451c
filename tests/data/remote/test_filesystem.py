"""Files from web servers and object stores: they arrive whole in spite of faults, or one line says why not."""

from collections.abc import Iterator
from itertools import repeat
from pathlib import Path
from typing import Any

import fsspec
import pytest
from support.errors import raises
from support.webserver import WebServer

from mae_kit.data.remote import filesystem as remote
from mae_kit.data.remote.filesystem import NotThere, download, is_url, version

DATA = bytes(range(256)) * 4096
SELF_SIGNED = """
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg62jkvNAEb1ZyAO2x
03/swtGFf2Zdn/oZzu8O/KOtlQShRANCAAThBguqCqWQoix2PMZO+O5LOZQzh4h+
WU0fVpdZ/PO400gmb92V7NWC8vlFw6LHYkNweWIMXBv5ompas9PThnq5
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBkDCCATagAwIBAgIUZmrS4dYDYXF5yDaIf39uQ8u/lKwwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEzMDEwNDE0MloYDzIxMjYxMTA2
MTA0MTQyWjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAAThBguqCqWQoix2PMZO+O5LOZQzh4h+WU0fVpdZ/PO400gmb92V7NWC
8vlFw6LHYkNweWIMXBv5ompas9PThnq5o2QwYjAdBgNVHQ4EFgQUs7dR0OoqW3c6
TvP01WXQ05c+TMEwHwYDVR0jBBgwFoAUs7dR0OoqW3c6TvP01WXQ05c+TMEwDwYD
VR0TAQH/BAUwAwEB/zAPBgNVHREECDAGhwR/AAABMAoGCCqGSM49BAMCA0gAMEUC
IHCHiGseVz2hN4Lkq/69z8pssa4G+9m401oIK8tJPvnZAiEApM2hN3e7IPDstkGq
zth8+32DD9yCdJDyC53/U9wKyPo=
-----END CERTIFICATE-----
"""


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "PAUSES", [0.001] * 4)


@pytest.fixture
def server(tmp_path: Path, short_pauses: None) -> Iterator[WebServer]:
    """Serves one file of a megabyte, `a.tar`; clients make short pauses."""
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "a.tar").write_bytes(DATA)
    server = WebServer(tmp_path / "web")
    yield server
    server.stop()


@pytest.mark.parametrize(
    ("place", "url"),
    [
        ("s3://bucket/a", True),
        ("https://host/a-*.tar", True),
        ("gs://b", True),
        ("train-*.tar", False),
        ("/data/a:b", False),
        ("C:\\shards", False),
        (Path("https://host/a"), False),
    ],
)
def test_what_a_url_is(place: str | Path, url: bool):
    assert is_url(place) == url


@pytest.mark.parametrize("parts", [True, False])
@pytest.mark.parametrize("faults", [[], ["drop"], ["drop", "drop", "drop"], ["busy", "drop", "busy"]])
def test_a_file_arrives_in_spite_of_faults(server: WebServer, tmp_path: Path, parts: bool, faults: list[str]):
    server.parts = parts
    server.fail("a.tar", faults)
    (tmp_path / "a").write_bytes(b"what was there before")
    download(f"{server.url}/a.tar", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == DATA


def test_a_download_goes_on_where_it_broke_off(server: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(remote, "PART", 100_000)
    server.fail("a.tar", ["drop"])
    download(f"{server.url}/a.tar", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == DATA
    assert server.sent["a.tar"] == len(DATA)
    assert server.asked["a.tar"] == 1 + 6, "half of it at once, the other half in parts"


@pytest.mark.parametrize(
    ("fault", "key"),
    [("busy", "data.url.unreachable"), ("drop", "data.url.unreachable"), ("forbidden", "data.url.forbidden")],
)
def test_what_keeps_failing_is_one_line(server: WebServer, tmp_path: Path, fault: str, key: str):
    server.fail("a.tar", repeat(fault))
    with raises(key) as caught:
        download(f"{server.url}/a.tar", tmp_path / "a")
    assert "\n" not in str(caught.value)
    assert server.asked["a.tar"] == (1 if fault == "forbidden" else 5) or fault == "drop"


def test_a_server_that_is_gone(server: WebServer, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """Said once, at the first try."""
    server.stop()
    for action in (lambda: download(f"{server.url}/a.tar", tmp_path / "a"), lambda: version(f"{server.url}/a.tar")):
        caplog.clear()
        with raises("data.url.unreachable"):
            action()
        assert caplog.text.count("trying again") == 1
    server.start()
    assert version(f"{server.url}/a.tar")


def test_a_certificate_that_nobody_trusts_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(remote, "PAUSES", [10_000.0])
    (tmp_path / "pem").write_text(SELF_SIGNED)
    server = WebServer(tmp_path, tmp_path / "pem")
    for action in (lambda: download(f"{server.url}/pem", tmp_path / "a"), lambda: version(f"{server.url}/pem")):
        with raises("data.url.certificate"):
            action()
    server.stop()


def test_what_is_not_there(server: WebServer, tmp_path: Path):
    for action in (lambda: download(f"{server.url}/b.tar", tmp_path / "b"), lambda: version(f"{server.url}/b.tar")):
        with pytest.raises(NotThere):
            action()
    assert server.asked["b.tar"] == 0


def test_a_version_lasts_as_long_as_the_file(server: WebServer):
    first = version(f"{server.url}/a.tar")
    assert version(f"{server.url}/a.tar") == first != ""
    (server.folder / "a.tar").write_bytes(DATA[::-1])
    assert version(f"{server.url}/a.tar") != first


def test_a_full_disk_is_not_taken_for_a_bad_network(server: WebServer):
    with pytest.raises(OSError, match="No space left"):
        download(f"{server.url}/a.tar", Path("/dev/full"))
    assert server.asked["a.tar"] == 1


@pytest.mark.usefixtures("short_pauses")
def test_an_object_store(tmp_path: Path):
    """One in memory, in place of a bucket."""
    store = fsspec.filesystem("memory")
    store.pipe("/bucket/a.tar", DATA)
    first = version("memory://bucket/a.tar")
    download("memory://bucket/a.tar", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == DATA
    store.pipe("/bucket/a.tar", DATA[::-1])
    assert version("memory://bucket/a.tar") != first != ""
    with pytest.raises(NotThere):
        download("memory://bucket/b.tar", tmp_path / "b")


@pytest.mark.parametrize(("scheme", "extra"), [("s3", "s3"), ("gs", "gcs"), ("hdfs", "remote")])
def test_a_library_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str, extra: str):
    def missing(url: str, **options: Any) -> None:
        raise ImportError("Install what reads it")

    monkeypatch.setattr("fsspec.core.url_to_fs", missing)
    with raises("data.url") as caught:
        download(f"{scheme}://bucket/a.tar", tmp_path / "a")
    assert f"mae_kit[{extra}]" in caught.value.fix


def test_a_scheme_that_nobody_knows(tmp_path: Path):
    with raises("data.url"):
        download("htps://host/a.tar", tmp_path / "a")
