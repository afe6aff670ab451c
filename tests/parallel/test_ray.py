"""Sharding and indexing on a Ray cluster that loses a node half-way: the job ends, nothing twice, nothing missing."""
# Also tests parallel/on_ray.py.

import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support import toy_tasks
from support.errors import raises
from support.photo_shards import write_shards
from support.processes import Programs

from mae_kit.commands.dedup import dedup
from mae_kit.commands.shard import shard
from mae_kit.data.index.open import open_index
from mae_kit.parallel import Engine, run_tasks

IMAGES = 600
SMALL: dict[str, Any] = {"resize": 64, "max_shard_size": 65_536}
SHARD = ["shard", "--resize", "64", "--max-shard-size", "65536", "--engine", "ray"]


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos large enough that to pack them takes seconds; no two alike."""
    root = tmp_path_factory.mktemp("many")
    for i in range(IMAGES):
        coarse = np.random.default_rng(i).integers(0, 256, (4, 4, 3), np.uint8)
        Image.fromarray(coarse).resize((640, 480)).save(root / f"{i}.jpg", quality=70)
    return root


@pytest.fixture(scope="module")
def whole(many: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their shards, as one process packs them."""
    out = tmp_path_factory.mktemp("whole") / "out"
    shard(str(many), out, **SMALL, workers=1)
    return out


def files(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


@pytest.mark.long
def test_sharding_survives_the_death_of_a_node(
    programs: Programs, cluster: Any, many: Path, whole: Path, tmp_path: Path
):
    out, node = tmp_path / "out", cluster.other()
    total = len(list(whole.glob("*.tar")))
    running = programs.start(*SHARD, many, out)
    running.wait_until(lambda: len(list(out.glob(".shards/*.json"))) >= total // 4)
    cluster.kill(node)
    assert running.alive() and len(list(out.glob(".shards/*.json"))) < total - 1
    ended = running.wait()
    cluster.bury(node)
    assert ended.code == 0, ended
    assert f"Ray cluster {cluster.address}: 2 nodes, 2 processors" in ended.out
    assert files(out) == files(whole), "each image once, and no leftovers"
    assert len(open_index(out)) == IMAGES


@pytest.mark.long
def test_indexing_survives_the_death_of_a_node(programs: Programs, cluster: Any, many: Path, tmp_path: Path):
    shard(str(many), tmp_path / "out", workers=1, max_shard_size=65_536)
    expected, node = open_index(tmp_path / "out").fingerprint, cluster.other()
    (tmp_path / "out/index.safetensors").unlink()
    total = len(list(tmp_path.glob("out/*.tar")))
    running = programs.start("index", tmp_path / "out", "--engine", "ray")
    running.wait_until(lambda: len(list(tmp_path.glob("out/.index/*.safetensors"))) >= total // 8)
    cluster.kill(node)
    assert running.alive()
    ended = running.wait()
    cluster.bury(node)
    assert ended.code == 0, ended
    assert open_index(tmp_path / "out").fingerprint == expected and not (tmp_path / "out/.index").exists()


@pytest.mark.long
def test_a_job_interrupted_by_ctrl_c_leaves_whole_shards_and_goes_on(
    programs: Programs, cluster: Any, many: Path, whole: Path, tmp_path: Path
):
    out = tmp_path / "out"
    running = programs.start(*SHARD, many, out)
    running.wait_until(lambda: len(list(out.glob(".shards/*.json"))) >= 3)
    running.send(signal.SIGINT)
    ended = running.wait()
    assert ended.code == 130, ended
    done = {path: path.stat().st_ino for path in out.glob("*.tar") if (out / f".shards/{path.name}.json").exists()}
    assert 3 <= len(done) < len(list(whole.glob("*.tar")))
    shard(str(many), out, **SMALL, engine="ray")
    assert files(out) == files(whole)
    assert all(path.stat().st_ino == number for path, number in done.items())


@pytest.mark.long
def test_fingerprints_and_features_are_the_same(cluster: Any, trained: Path, tmp_path: Path):
    kept = {}
    engines: tuple[Engine, Engine] = ("processes", "ray")
    for engine in engines:
        shards = write_shards(tmp_path / engine)
        found = dedup(shards / "val-*.tar", encoder=trained, similarity=0.01, engine=engine)
        lines = (shards / "duplicates.jsonl").read_text().splitlines()[1:]
        kept[engine] = [
            {n: found[n] for n in found.keys() - {"list", "keep_list", "page"}},
            lines,
            files(shards).keys(),
        ]
    assert kept["ray"] == kept["processes"] and len(kept["ray"][1]) > 0
    assert sum(".features-" in name for name in kept["ray"][2]) == 1  # shard


def test_a_cluster_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("ray", reason="mae_kit[ray] is not installed")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with raises("engine"):
        run_tasks(partial(toy_tasks.note, tmp_path), [""], lambda steps: None, engine="ray")


def test_without_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "ray" or name.endswith("on_ray")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ray", None)
    with raises("engine"):
        run_tasks(partial(toy_tasks.note, tmp_path), [""], lambda steps: None, engine="ray")
