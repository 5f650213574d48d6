"""CUDA graphs compute what the network computes step by step."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from mobileutr_monai.inference.engines.table import ENGINES, start_engine
from mobileutr_monai.networks import CudaGraphTraining, MobileUtr

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
SHAPE = (4, 3, 64, 64)


@pytest.fixture
def network() -> MobileUtr:
    torch.manual_seed(0)
    return MobileUtr(2, 3, 1, drop_path=0.0)


def test_training_needs_a_gpu(network):
    with pytest.raises(ValueError, match=r"need a GPU, but device is cpu; train without gpu_train"):
        CudaGraphTraining(network, SHAPE)


@pytest.fixture
def exact():
    """Float32 without TF32, so that only the order of sums is left to differ."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


@needs_gpu
def test_training_makes_the_steps_of_the_network_itself(network, exact):
    generator = torch.Generator("cuda").manual_seed(0)
    images = [torch.randn(SHAPE, device="cuda", generator=generator) for _ in range(4)]
    target = (torch.randn(4, 1, 64, 64, device="cuda", generator=generator) > 0).float()

    def train(network: nn.Module, call: nn.Module) -> list[float]:
        optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
        losses = []
        for image in images:
            call.train()
            optimizer.zero_grad(set_to_none=True)
            loss = nn.functional.binary_cross_entropy_with_logits(call(image), target)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    eager = copy.deepcopy(network).cuda()
    graphed = copy.deepcopy(network).cuda()
    expected = train(eager, eager)
    assert train(graphed, CudaGraphTraining(graphed, SHAPE)) == pytest.approx(expected, rel=1e-4)
    for name, value in graphed.state_dict().items():
        torch.testing.assert_close(value, eager.state_dict()[name], rtol=1e-3, atol=1e-4, msg=name)
    images[0] = images[0][:2]  # another shape, as in validation: computed by the network itself
    with torch.no_grad():
        torch.testing.assert_close(graphed.eval()(images[0]), eager.eval()(images[0]), rtol=1e-3, atol=1e-3)


@needs_gpu
@pytest.mark.parametrize(("name", "tolerance"), [("torch-folded", 1e-3), ("torch-bf16", 0.2), ("torch-fp16", 0.05)])
@pytest.mark.parametrize("dims", [2, 3])
def test_engines_on_a_gpu_give_the_network_s_logits_for_any_number_of_images(name, tolerance, dims, exact):
    torch.manual_seed(0)
    network = MobileUtr(dims, 1, 2).eval().cuda()
    assert "cuda" in ENGINES[name].devices
    predict = start_engine(name, network, torch.device("cuda"), 2)
    for number in (1, 3):
        images = torch.randn(number, 1, *(32,) * dims, device="cuda")
        with torch.inference_mode():
            expected = network(images)
            torch.testing.assert_close(predict(images), expected, rtol=tolerance, atol=tolerance)
