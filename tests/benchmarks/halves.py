"""kNN and linear scores of frozen features that were computed in fp32 and in bf16, of the same images.

    python tests/benchmarks/halves.py ENCODER DATA

A processor without bf16 arithmetic computes the same numbers, slowly. The features are cached next to the shards.
"""

import sys
from pathlib import Path

import torch

import mae_kit as mk
from mae_kit.evaluation import features


def main(encoder: str, data: str) -> None:
    print("| features | method | token | top-1, % | macro-F1, % |")
    for name, half in (("fp32", None), ("bf16", torch.bfloat16)):
        features.half_type = lambda *_, half=half: half  # type: ignore[assignment]
        for score in mk.evaluate(Path(encoder), data=data, methods="knn,probe", workers=1)["scores"]:
            ends = (("top1", "low", "high"), ("macro_f1", "macro_low", "macro_high"))
            shown = ["{:.1f} [{:.1f}, {:.1f}]".format(*(100 * score[key] for key in keys)) for keys in ends]
            print("|", " | ".join([name, score["method"], score["token"], *shown]), "|")


if __name__ == "__main__":
    main(*sys.argv[1:])
