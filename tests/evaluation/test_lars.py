"""LARS against golden steps of the original."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from mae_kit.evaluation.lars import Lars


def test_three_steps(shared: Path):
    with safe_open(shared / "golden/mae_lars.safetensors", "pt") as file:
        golden = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        settings = {name: float(value) for name, value in file.metadata().items()}
    settings["trust"] = settings.pop("trust_coefficient")
    matrix, vector = (torch.nn.Parameter(golden[name].clone()) for name in ("w0", "b0"))
    optimizer = Lars([matrix, vector], **settings)
    for step in range(3):
        matrix.grad, vector.grad = golden[f"gw{step}"], golden[f"gb{step}"]
        optimizer.step()
        torch.testing.assert_close(matrix.detach(), golden[f"w{step + 1}"], rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(vector.detach(), golden[f"b{step + 1}"], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("start", "gradient"), [(0.0, 2.0), (2.0, 0.0), (0.0, 0.0)])
def test_without_a_length_there_is_no_ratio(start: float, gradient: float):
    matrix = torch.nn.Parameter(torch.full((2, 2), start))
    matrix.grad = torch.full((2, 2), gradient)
    Lars([matrix], lr=0.5).step()
    assert torch.equal(matrix.detach(), torch.full((2, 2), start - 0.5 * gradient))


def test_the_scale_of_gradients_is_no_matter_to_matrices():
    steps = []
    for scale in (1.0, 1000.0):
        matrix = torch.nn.Parameter(torch.ones(3, 2))
        matrix.grad = scale * torch.arange(6.0).view(3, 2)
        Lars([matrix], lr=1.0).step()
        steps.append(matrix.detach())
    torch.testing.assert_close(*steps)
    assert (torch.ones(3, 2) - steps[0]).norm() == pytest.approx(0.001 * 6**0.5, rel=1e-3)
