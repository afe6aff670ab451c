"""Gate R19: one file operation of a command fails, with any errno at any moment; the command repeated then succeeds."""

import errno
import random
import shutil
from pathlib import Path

import pytest
import yaml
from support.boxed_folders import some_boxes, write_coco
from support.gates import Measured
from support.photo_shards import jpeg, write_shard
from support.processes import Ended, Programs
from support.shapes import write_shapes

import mae_kit as mk
from mae_kit.files.recipe_file import FOLDER

pytestmark = [pytest.mark.long, pytest.mark.gate("R19")]

ERRNOS = ("EIO", "ENOSPC", "EACCES", "EMFILE", "ESTALE", "EDQUOT", "EROFS", "ENFILE", "EBUSY", "ETIMEDOUT")
TIMES, FEW = 3, 1  # moments for each error; errors without --campaign
FAIL = """
import atexit, os, sys
OPERATIONS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.listdir", "os.scandir", "os.truncate")
count = 0
def fail(event, path):
    global count
    if isinstance(path, (str, os.PathLike)) and os.fspath(path).startswith({places!r}):
        count += 1
        if count == {moment}:
            raise OSError({number}, os.strerror({number}), os.fspath(path))
sync = os.fsync
def fsync(number):
    fail("fsync", os.readlink(f"/proc/self/fd/{{number}}"))
    sync(number)
os.fsync = fsync
sys.addaudithook(lambda event, args: fail(event, args[0]) if event in OPERATIONS else None)
def tell():
    with open({told!r}, "w") as file:
        file.write(str(count))
atexit.register(tell)
"""
TOKENIZER = """
model:
  class_path: mae_kit.encoders.tokenizers.DVAE
  init_args: {codes: 300, stride: 8, width: 4, blocks: 1, code_dim: 8}
data: {batch_size: 16, image_size: 16}
optimization: {epochs: 1, learning_rate: 1.0e-3}
intervals: {log_every_n_steps: 3, checkpoint_every_n_steps: 5, eval_every_n_steps: 6}
machine: {num_workers: 0, precision: fp32}
"""
COMPARISON = """
data: HERE/train-0.tar
val: HERE/val-0.tar
images_seen: 48
entries: {mae: {config: HERE/pretrain.yaml}, scratch: {config: null}}
finetune: {config: HERE/finetune.yaml, overrides: {optimization.epochs: 1, optimization.warmup_epochs: 0}}
"""
SHORT = """
from mae_kit.commands import demo
demo.PHOTOS = demo.PHOTOS._replace(pretrain_images=128, few_images=50, all_images=50)
"""
DETECTOR = {"detector": "detr", "queries": 6, "layers": [0, 1], "width": 32, "heads": 4}
TASKS = {  # by what the images of a folder of shards have: the class, its settings, what it writes
    "masks": ("segmentation.Segmentation", {"width": 16}, "segmenter"),
    "boxes": ("detection.Detection", DETECTOR, "detector"),
    "numbers": ("regression.Regression", {}, "regressor"),
}
TRAINING = "--optimization.epochs 1 --optimization.warmup_epochs 0 --run OUT --resume auto"
# The words of each, and a file that has to be the same after a fault; "" for what it prints, None for neither.
COMMANDS = {
    "shard": ("shard HERE/images OUT --workers 1", "out/train-000000.tar"),
    "index": ("index HERE/*.tar --workers 1", "**/index*.safetensors"),  # next to the shards, or in the cache
    "dedup": ("dedup HERE/train-0.tar --out OUT/gone.jsonl --workers 1", "out/gone.jsonl"),
    "report": ("report HERE/run", ""),  # the page says when it was written
    "reconstruct": ("reconstruct HERE/run HERE/images --out OUT.png", "out.png"),
    "inspect": ("inspect HERE/run --images HERE/images --show positions", "run/inside/positions.png"),
    "predict": ("predict HERE/classifier HERE/images --json", ""),
    "export": ("export HERE/run --out OUT", "out/model.safetensors"),
    "hub": ("export HERE/run --hub-dir OUT --format original", "out/README.md"),
    "import": ("import HERE/exported OUT", "out/encoder.safetensors"),
    "evaluate": (
        "evaluate HERE/run --train HERE/train-0.tar --val HERE/val-0.tar --methods knn --workers 1",
        "run/evaluation.json",
    ),
    "pretrain": (
        f"pretrain --config HERE/pretrain.yaml --data.path HERE/train-0.tar {TRAINING}",
        "out/encoder.safetensors",
    ),
    "finetune": (
        f"finetune --config HERE/finetune.yaml --data.path HERE/train-0.tar --data.val HERE/val-0.tar {TRAINING}",
        "out/classifier.safetensors",
    ),
    "tokenizer": (
        "tokenizer --config HERE/dvae.yaml --data.path HERE/train-0.tar --run OUT --resume auto",
        "out/tokenizer.safetensors",
    ),
    "compare": ("compare HERE/compare.yaml --out OUT", "out/mae-seed0/pretrain/encoder.safetensors"),
    "demo": ("demo --images HERE/classes --out OUT --seeds 1", "out/pretrain/encoder.safetensors"),
    "plan": ("plan --config HERE/pretrain.yaml --data.path HERE/train-0.tar", "**/index*.safetensors"),
    "bench": ("bench HERE/run --out OUT.png --sizes 16 --batch-size 2", None),  # it shows what was measured
    "doctor": ("doctor --folder HERE", None),
    "recipes": ("recipes mae_vit_b16", ""),
    "embed": ("embed HERE/run --data HERE/train-0.tar --out OUT/features.npy --workers 1", "out/features.npy"),
}
for _kind, (*_, _file) in TASKS.items():
    _data = f"--config HERE/{_kind}.yaml --data.path HERE/{_kind}"
    COMMANDS[f"finetune-{_kind}"] = (f"finetune {_data} {TRAINING}", f"out/{_file}.safetensors")
    _left = {"masks": "out/0.png", "boxes": "out/detections.json", "numbers": "out.csv"}[_kind]
    _out = "OUT.csv" if _kind == "numbers" else "OUT"
    COMMANDS[f"predict-{_kind}"] = (f"predict HERE/{_file} HERE/images --out {_out}", _left)


@pytest.fixture(scope="module")
def source(programs: Programs, trained: Path, recipes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything that the commands read, to be copied."""
    folder = tmp_path_factory.mktemp("source")
    write_shard(folder / "train-0.tar", range(48))
    write_shard(folder / "val-0.tar", range(100, 116))
    shutil.copytree(trained, folder / "run")
    for recipe in recipes.iterdir():
        shutil.copy(recipe, folder)
    (folder / "dvae.yaml").write_text(TOKENIZER)
    (folder / "images").mkdir()
    for number in range(6):
        (folder / "images" / f"{number}.jpg").write_bytes(jpeg(number))
    for number in range(24):
        photo = folder / "classes" / ("cat", "dog")[number % 2] / f"{number}.jpg"
        photo.parent.mkdir(parents=True, exist_ok=True)
        photo.write_bytes(jpeg(number))
    assert programs.run("export", trained, "--out", folder / "exported").code == 0
    words = ["--config", folder / "finetune.yaml", "--data.path", folder / "train-0.tar", "--optimization.epochs", "1"]
    words += ["--data.val", folder / "val-0.tar", "--run", folder / "classifier"]
    assert programs.run("finetune", *words).code == 0
    prepare_tasks(programs, folder)
    for made in folder.rglob("index*.safetensors"):
        made.unlink()
    return folder


def prepare_tasks(programs: Programs, folder: Path) -> None:
    """Shards with masks, boxes and numbers, a recipe for each, and a run."""
    drawn = {f"{split}/{number}.png": some_boxes(number) for split in ("train", "val") for number in range(8)}
    masked, boxed = write_shapes(folder / "shapes", 8, 8), write_coco(folder / "boxed", drawn)
    table, names = folder / "table.csv", [f"{'train' if number < 8 else 'val'}/{number}.png" for number in range(16)]
    table.write_text("\n".join(["file,size", *(f"{name},{number}" for number, name in enumerate(names))]))
    mk.shard(str(masked), folder / "masks", workers=1)
    mk.shard(str(boxed), folder / "boxes", workers=1)
    mk.shard(str(masked / "images"), folder / "numbers", labels=str(table), workers=1)
    for kind, (name, settings, file) in TASKS.items():
        task = {"class_path": f"mae_kit.tasks.{name}", "init_args": settings}
        recipe = yaml.safe_load((folder / "finetune.yaml").read_text()) | {"task": task, "augmentation": {}}
        recipe["data"] = {"batch_size": 4, "image_size": 32}
        (folder / f"{kind}.yaml").write_text(yaml.safe_dump(recipe))
        words = ["--config", folder / f"{kind}.yaml", "--data.path", folder / kind, "--optimization.epochs", "1"]
        ended = programs.run("finetune", *words, "--run", folder / file)
        assert ended.code == 0, ended
    for source in (masked, boxed):
        shutil.rmtree(source)


class Place:
    """A folder in which a command is run again and again, each time on the same files."""

    def __init__(self, programs: Programs, source: Path, folder: Path, command: str):
        self.programs, self.source, self.here, self.told = programs, source, folder / "here", folder / "count"
        words, self.left = COMMANDS[command]
        put = words.replace("HERE", str(self.here)).replace("OUT", str(self.here / "out"))
        self.words = put.split()

    def renew(self) -> None:
        shutil.rmtree(self.here, ignore_errors=True)
        shutil.copytree(self.source, self.here)

    def run(self, moment: int, number: int) -> Ended:
        """Let one operation fail, or none: moment 0."""
        (self.here / "compare.yaml").write_text(COMPARISON.replace("HERE", str(self.here)))
        how = {"places": (f"{self.here}/", f"{FOLDER}/"), "moment": moment, "number": number, "told": str(self.told)}
        patch = SHORT * (self.words[0] == "demo") + FAIL.format(**how)
        return self.programs.run(*self.words, patch=patch, XDG_CACHE_HOME=str(self.here / "cache"))

    def outcome(self, ended: Ended) -> bytes | str:
        if self.left is None:
            return ""
        if not self.left:
            return ended.out
        (file,) = self.here.glob(self.left)
        return file.read_bytes()


@pytest.mark.parametrize("command", COMMANDS)
def test_an_operation_that_fails_once(
    programs: Programs, source: Path, command: str, campaign: bool, measured: Measured, tmp_path: Path
):
    dice, place, went_on = random.Random(command), Place(programs, source, tmp_path, command), 0
    place.renew()
    sound = place.run(0, 0)
    assert sound.code == 0, sound
    expected, operations = place.outcome(sound), int(place.told.read_text())
    faults = [name for name in ERRNOS for _ in range(TIMES)] if campaign else dice.sample(ERRNOS, FEW)
    for name in faults:
        moment = dice.randint(1, operations)
        place.renew()
        ended = place.run(moment, getattr(errno, name))
        told = (name, moment, ended)
        assert ended.code in (0, 2) and "Traceback" not in ended.err, told
        assert ended.code == 0 or ended.err.splitlines()[-1].startswith("mae-kit: error: "), told
        went_on += ended.code == 0
        repeated = place.run(0, 0) if ended.code else ended
        assert repeated.code == 0, (*told, repeated)
        assert place.outcome(repeated) == expected, told
    measured(f"{command}: {len(faults)} faults, {went_on} went on")
