import torch

from snapvideo.components.weights import compress, expand


def test_large_weights_are_packed_in_a_byte_a_value():
    kernel = (
        torch.randn(64, 128, 3, 3, generator=torch.Generator().manual_seed(0))
        * torch.logspace(-4, 0, 64)[:, None, None, None]
    )
    kernel[3] = 0.0
    packed = compress(
        {"large.weight": kernel, "small.weight": kernel[:4, :4], "table": kernel, "count": torch.tensor([70000])}
    )
    kinds = {"large.weight": torch.int8, "small.weight": torch.float16, "table": torch.float16, "count": torch.int64}
    assert {name: packed[name].dtype for name in kinds} == kinds
    back = expand(packed)
    assert list(back) == list(kinds)
    step = kernel.abs().amax((1, 2, 3), keepdim=True) / 127
    assert ((back["large.weight"] - kernel).abs() <= 0.501 * step).all()
