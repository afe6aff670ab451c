"""A web server of a local folder that fails on request."""

import re
import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class WebServer:
    """Serve the files of a folder, byte ranges too, from a thread.

    Args:
        folder: What it serves.
        certificate: A PEM file with its key: it then speaks TLS.

    Attributes:
        faults: File name -> what goes wrong with its next requests, one word each: "drop" breaks off in the middle of
            the body, "short" sends half as if it were all, "wrong" flips a bit of every kilobyte, "page" sends a web
            page, "endless" the file without end, "busy" answers 503, "forbidden" 403, "missing" 404; "" is right.
        parts: Whether it serves parts.
        asked: Requests for the contents of each file.
        sent: Bytes of them.
        speed: Bytes a second of each connection.
    """

    def __init__(self, folder: Path, certificate: Path | None = None):
        self._certificate = certificate
        self.folder, self.parts, self.speed = folder, True, float("inf")
        self.faults: dict[str, Iterator[str]] = {}
        self.asked: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()
        self._port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http{'s' if self._certificate else ''}://127.0.0.1:{self._port}"

    def fail(self, name: str, faults: Iterable[str]) -> None:
        self.faults[name] = iter(faults)

    def start(self) -> None:
        """Accept connections, at the same port as before."""
        self._server = _Server(("127.0.0.1", self._port), _Handler)
        self._server.web, self._port = self, self._server.server_address[1]
        if self._certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self._certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """Refuse connections."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    web: WebServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that disconnect."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, *args: Any) -> None:
        pass

    def _answer(self, body: bool) -> None:
        web, path = self.server.web, self.server.web.folder / self.path.lstrip("/")
        if not path.is_file():
            return self._code(404)
        if body:
            web.asked[path.name] += 1
        fault = next(web.faults.get(path.name, iter(())), "")
        if code := {"busy": 503, "forbidden": 403, "missing": 404}.get(fault):
            return self._code(code)
        data = path.read_bytes()
        if fault == "page":
            data = b"<html>Sign in to this network</html>"
        if fault == "endless":
            return self._send_for_ever(data)
        if fault == "wrong":
            data = bytes(byte ^ (i % 1024 == 0) for i, byte in enumerate(data))
        self._send(path, data[: len(data) // 2] if fault == "short" else data, body, fault == "drop")
        return None

    def _send(self, path: Path, data: bytes, body: bool, drop: bool) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")) if self.server.web.parts else None
        start, stop = (int(wanted[1]), int(wanted[2]) + 1) if wanted else (0, len(data))
        if wanted and start >= len(data):
            return self._code(416)
        part = data[start:stop]
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("ETag", f'"{path.stat().st_mtime_ns}"')
        self.end_headers()
        if body:
            part = part[: len(part) // 2] if drop else part
            self.server.web.sent[path.name] += len(part)
            self._write(part)
        return None

    def _send_for_ever(self, data: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(2**50))
        self.end_headers()
        while True:
            self.wfile.write(data)

    def _write(self, data: bytes) -> None:
        block = 2**16
        for start in range(0, len(data), block):
            self.wfile.write(data[start : start + block])
            time.sleep(block / self.server.web.speed)

    def _code(self, code: int) -> None:
        self.send_response(code)
        self.send_header("Content-Length", "0")
        self.end_headers()
