import pytest
import torch

from mae_kit.weights.names import Names, prefixed

TABLE = {
    "embed.cls": "cls_token",
    **prefixed({"a.query.bias": "attn.q_bias", "a.query.*": "attn.qkv.*|q"}, "layer.#.", "blocks.#."),
    **prefixed({"a.key.*": "attn.qkv.*|k", "a.value.*": "attn.qkv.*|v"}, "layer.#.", "blocks.#."),
    "layer.#.down.*": "blocks.#+1.down.*",
}


def test_thirds_are_fused_in_order_and_the_first_entry_counts():
    parts = {name: torch.full((2, 4), float(i)) for i, name in enumerate(("value", "query", "key"))}
    theirs = {f"layer.10.a.{name}.weight": tensor for name, tensor in parts.items()}
    ours, _, unknown = Names(TABLE).ours({**theirs, "layer.10.a.query.bias": torch.ones(4)})
    assert unknown == [] and set(ours) == {"blocks.10.attn.qkv.weight", "blocks.10.attn.q_bias"}
    assert ours["blocks.10.attn.qkv.weight"][:, 0].tolist() == [1, 1, 2, 2, 0, 0]


def test_there_and_back():
    theirs = {f"layer.0.a.{part}.weight": torch.randn(2, 4) for part in ("query", "key", "value")}
    theirs["embed.cls"] = torch.randn(3)
    names = Names({name: entry for name, entry in TABLE.items() if "+1" not in entry})
    back = names.theirs(names.ours(theirs)[0])
    assert back.keys() == theirs.keys() and all(torch.equal(back[name], theirs[name]) for name in theirs)


def test_a_number_may_be_one_higher_on_our_side():
    ours, *_ = Names(TABLE).ours({"layer.1.down.weight": torch.ones(1)})
    assert list(ours) == ["blocks.2.down.weight"]


def test_what_has_no_place_is_named():
    theirs = {name: torch.ones(1) for name in ("layer.x.a.key.weight", "mask_token", "layer.0.a.key.weights")}
    ours, left_out, unknown = Names(TABLE, left_out="mask.*").ours(theirs)
    assert ours == {} and unknown == ["layer.x.a.key.weight", "layer.0.a.key.weights"] and left_out == ["mask_token"]
    ours, *_ = Names(TABLE).ours({"layer.0.a.key.weight": torch.ones(1)})
    assert list(ours) == ["blocks.0.attn.qkv.weight|k"]
    with pytest.raises(ValueError, match="no name for head"):
        Names(TABLE).theirs({"head": torch.ones(1)})
