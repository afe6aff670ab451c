"""The doorway to object stores and web servers: whole files, through fsspec, that arrive in spite of a bad network.

A download that breaks off resumes, or starts over where the server does not serve ranges. What keeps failing raises an
error that names the URL and the reason.
"""

import contextlib
import errno
import logging
import math
import re
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from mae_kit.errors import UserError

log = logging.getLogger(__name__)

Place = str | Path
"""Where data lie: a path, or a URL such as s3://bucket/shards; a URL made a Path would lose a slash."""

PAUSES = [0.5, 1.0, 2.0, 4.0, 8.0, 16.0]  # seconds between two attempts: half a minute in all
PART = 2**24  # bytes requested at once when a download resumes
CONNECT, SILENCE = 30.0, 60.0  # seconds until a server counts as gone
_URL = re.compile(r"[a-z][a-z0-9+]+://", re.IGNORECASE)
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_VERSION = ("size", "ETag", "etag", "Last-Modified", "LastModified", "mtime", "updated", "created")
_Result = TypeVar("_Result")


class NotThere(Exception):
    """The server answers that there is no such file."""


def is_url(place: Place) -> bool:
    """Whether it is not a path of this machine."""
    return isinstance(place, str) and _URL.match(place) is not None


def version(url: str) -> str:
    """What changes when the file does: size, and the server's tag or time; empty where it gives neither.

    Raises:
        NotThere: The server has no such file.
        UserError: It cannot be asked; names the reason.
    """
    system, path = _open(url)
    known = _persist(url, lambda: system.info(path), known=False)
    marks = {name: str(known[name]) for name in _VERSION if known.get(name) is not None}
    return str(marks) if len(marks) > 1 else ""


def download(
    url: str, target: Path, size: float = math.inf, fault_of: Callable[[Path], str] = lambda target: ""
) -> None:
    """Fetch a file that is known to be on the server; what is at `target` is overwritten.

    Args:
        url: Of the file.
        target: Where it goes.
        size: Bytes of the file; what a server sends behind them is not received.
        fault_of: Says what is wrong with the file that arrived, which is then fetched again; empty where nothing is.

    Raises:
        NotThere: The server has no such file, however often it is asked.
        OSError: The local disk is full or read-only.
        UserError: It cannot be fetched; names the reason.
    """
    system, path = _open(url)
    target.write_bytes(b"")

    def attempt() -> None:
        if target.exists() and target.stat().st_size:
            _resume(system, path, target, size)
        else:
            _get(system, path, target, size)
        if fault := fault_of(target):
            target.write_bytes(b"")
            raise _Wrong(fault)

    _persist(url, attempt)


class _Enough(Exception):
    """All bytes of the file are here."""


def _get(system: Any, path: str, target: Path, size: float) -> None:
    """Fetch a file whole, which no library does in bounds: a server may send without end."""
    from fsspec.callbacks import Callback

    class Counter(Callback):
        def relative_update(self, inc: int = 1) -> None:
            super().relative_update(inc)
            if self.value > size:
                raise _Enough

    with contextlib.suppress(_Enough):
        system.get_file(path, str(target), callback=Counter())


def _resume(system: Any, path: str, target: Path, most: float) -> None:
    """Append what is missing of a download that broke off."""
    size = system.info(path)["size"]
    size = None if size is None else min(size, most)
    with open(target, "ab") as file:
        while size is not None and (have := file.tell()) < size:
            end = min(have + PART, size)
            part = system.cat_file(path, start=have, end=end)
            if len(part) != end - have:
                break
            file.write(part)
        whole = file.tell() == size
    if not whole:  # the server does not serve parts
        target.write_bytes(b"")
        _get(system, path, target, most)


def _open(url: str) -> tuple[Any, str]:
    """The file system for a URL, and the path in it.

    Raises:
        UserError: A library is missing, or nobody knows the scheme.
    """
    scheme = url.partition("://")[0].lower()
    try:
        from fsspec.core import url_to_fs

        return url_to_fs(url, **_web_options() if scheme in ("http", "https") else {})
    except ImportError as error:
        extra = _EXTRAS.get(scheme, "remote")
        raise UserError(
            "data.url.library", f"{scheme}:// needs a library ({error})", f"pip install 'mae_kit[{extra}]'"
        ) from None
    except ValueError as error:
        raise UserError(
            "data.url.scheme", f"{url} cannot be opened ({error})", "give s3://, gs://, https:// or a path"
        ) from None


def _web_options() -> dict[str, Any]:
    from aiohttp import ClientTimeout

    limits = ClientTimeout(total=None, sock_connect=CONNECT, sock_read=SILENCE)
    plain = {"Accept-Encoding": "identity"}  # parts of a compressed answer would be parts of another file
    return {"client_kwargs": {"timeout": limits, "trust_env": True, "headers": plain}}


class _Wrong(Exception):
    """What arrived is not the file."""


def _persist(url: str, action: Callable[[], _Result], known: bool = True) -> _Result:
    """Try until it works, with growing pauses; an answer that will stay the same ends it at once.

    Args:
        url: For messages.
        action: What is tried.
        known: Whether the file is on the server, so that it is asked for again where the server denies it.
    """
    for attempt, pause in enumerate((*PAUSES, None)):
        try:
            return action()
        except Exception as raised:  # every store raises its own kinds
            error = _plain(raised)
            status = getattr(error, "status", 0)
            reason = " ".join(str(error).split()).replace(": ", " ") or type(error).__name__
            gone = status == 404 or isinstance(error, FileNotFoundError)
            if gone and not (known and pause):
                raise NotThere(f"{url} is not there") from None
            if isinstance(error, OSError) and error.errno in _DISK:
                raise
            if isinstance(error, ssl.CertificateError):
                fix = "make this machine trust the server's certificate, for example by SSL_CERT_FILE"
                raise UserError("data.url.certificate", f"{url} cannot be read ({reason})", fix) from None
            if status in (401, 403) or isinstance(error, PermissionError):
                raise UserError(
                    "data.url.forbidden", f"access to {url} is denied ({reason})", "check the credentials"
                ) from None
            if pause is None:
                fix = "check that the server can be reached, and start again; a run resumes with --resume"
                raise UserError("data.url.unreachable", f"{url} cannot be read ({reason})", fix) from None
            if getattr(error, "errno", 0) == errno.ECONNREFUSED and not attempt:
                log.warning(f"{url} cannot be read ({reason}); trying again for {sum(PAUSES):.0f} s")
            time.sleep(pause)
    raise AssertionError


def _plain(error: BaseException) -> BaseException:
    """What went wrong: fsspec's `info` calls whatever fails over HTTP a missing file."""
    cause = error.__cause__
    hidden = isinstance(error, FileNotFoundError) and type(cause).__module__.startswith("aiohttp")
    return cause if hidden and cause else error
