"""Remote shards as files of a local cache: fetched when somebody reads them, or a little before."""

import hashlib
import os
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path

from filelock import FileLock

from mae_kit.data.remote.cache import GIGABYTE, Cache
from mae_kit.data.remote.filesystem import NotThere, download, version
from mae_kit.errors import UserError
from mae_kit.files.durable import replacing

Stamp = tuple[int, int]  # bytes, time of change in ns
Stamps = dict[str, Stamp]  # of each shard
Damage = Callable[[Path], int]  # a shard's file -> samples in it that are not what was indexed

CONNECTIONS = 2  # of each process, in addition to the one its reader may wait for
LARGEST_BESIDE = 2**36  # bytes of an index: a billion samples
WINDOWS = 3  # of shards that the cache has to hold: the one being left, the one being read, the next


class Store:
    """The shards of one URL.

    Safe to fork and to pickle at any time: it holds names, and what its threads do is seen from the cache alone.

    Args:
        url: Of the folder, without a slash at its end.
        stamps: As the index has them.
        cache: Where they go.
    """

    def __init__(self, url: str, stamps: Stamps, cache: Cache):
        self.url, self.stamps, self.cache = url, stamps, cache
        self._asked: tuple[int, list[str]] = (0, [])
        self._queue: deque[tuple[str, Damage]] = deque()

    def open(self, shard: str, damage: Damage) -> int:
        """A descriptor of a shard.

        Args:
            shard: Its name.
            damage: Counts the samples in its file that are not what was indexed; a file with any is fetched again.

        Raises:
            UserError: The server cannot be reached, has no such shard or another, or the cache has no room.
        """
        return self.cache.open(self._name(shard), partial(self._fetch, shard, damage))

    def forget(self, shard: str) -> None:
        """Remove a shard from the cache, whose disk has changed it."""
        (self.cache.folder / self._name(shard)).unlink(missing_ok=True)

    def ahead(self, wanted: list[tuple[str, Damage]]) -> None:
        """Fetch shards in the background, in this order; what was wanted before and not started is forgotten."""
        asked = (os.getpid(), [shard for shard, _ in wanted])  # threads do not live on in a forked process
        if asked == self._asked:
            return
        self._asked, self._queue = asked, deque(wanted)
        for _ in range(CONNECTIONS):
            threading.Thread(target=self._work, args=(self._queue,), daemon=True).start()

    def check_capacity(self, shards: list[str], mix: int) -> None:
        """Refuse to mix more shards at a time than the cache can hold.

        Args:
            shards: All that are read.
            mix: Shards at a time; 0 = all.

        Raises:
            UserError: Names a number that it can hold.
        """
        sizes = sorted((self.stamps[shard][0] for shard in shards), reverse=True)
        total, room = sum(sizes), self.cache.size
        fitting = sum(WINDOWS * sum(sizes[: n + 1]) <= room for n in range(len(sizes)))
        if total <= room or 0 < mix <= fitting:
            return
        wanted = f"{self.url} holds {total / GIGABYTE:.3g} GB of shards, the cache {room / GIGABYTE:.3g} GB"
        if fitting:
            raise UserError(
                "data.mix_shards.too_many",
                wanted,
                f"give --data.mix_shards {fitting} or less, or a larger --machine.cache_size",
            )
        least = min(total, WINDOWS * sizes[0]) / GIGABYTE
        raise UserError(
            "data.mix_shards.cache_size",
            wanted,
            f"give --machine.cache_size {least:.3g} or more, and --data.mix_shards 1",
        )

    def _work(self, queue: deque[tuple[str, Damage]]) -> None:
        while queue is self._queue and queue:
            try:
                shard, damage = queue.popleft()
                self.cache.fetch(self._name(shard), partial(self._fetch, shard, damage), wait=False)
            except (IndexError, UserError):
                return  # the queue has run dry, or the reader of the shard will raise the same

    def _name(self, shard: str) -> str:
        size, changed = self.stamps[shard]
        return f"{_hash(f'{self.url}/{shard} {changed}')}-{size}"

    def _fetch(self, shard: str, damage: Damage, making: Path) -> None:
        size = self.stamps[shard][0]

        def fault_of(file: Path) -> str:
            os.truncate(file, min(size, file.stat().st_size))
            damaged = damage(file)
            return f"{damaged} samples are not what was indexed" if damaged else ""

        try:
            download(f"{self.url}/{shard}", making, size, fault_of)
        except NotThere as error:
            fix = "upload it again, then start again; a run resumes with --resume"
            raise UserError("data.url.gone", f"{error}, though the index lists it", fix) from None


def fetch_beside(url: str, file: str, cache: Cache) -> Path:
    """A file next to remote shards, downloaded unless the server's is known; kept next to the cache's files.

    Args:
        url: Of the folder.
        file: Its name: the index or the statistics.
        cache: Where it goes; it is small, and does not count there.

    Raises:
        NotThere: There is none.
        UserError: It cannot be fetched.
    """
    folder, place = cache.folder / ".index", f"{url}/{file}"
    folder.mkdir(parents=True, exist_ok=True)
    tag = version(place)
    path = folder / f"{_hash(place)}.{_hash(tag)}"
    with FileLock(folder / f"{_hash(place)}.lock"):
        if not (tag and path.exists()):
            with replacing(path) as making:
                download(place, making, LARGEST_BESIDE)
    return path


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
