"""Convolutions in the pieces that processors are fast at: the same outputs and gradients."""

import copy

import pytest
import timm
import torch
from timm.layers import Conv2dSame
from torch import nn

from fastai_tl.acceleration import conv_kernels as convolve
from fastai_tl.acceleration.conv_kernels import fast_conv, same_padding
from fastai_tl.acceleration.fast_forward import quick_for

LAST = dict(memory_format=torch.channels_last)
SHAPES = [
    (32, 4, 5, 1, nn.Conv2d),
    (40, 8, 7, 1, nn.Conv2d),
    (96, 64, 3, 2, Conv2dSame),
    (144, 32, 5, 2, Conv2dSame),
    (12, 9, (3, 4), (1, 2), nn.Conv2d),
]


def depthwise(c, k, stride, cls):
    return cls(c, c, k, stride, 0 if cls is Conv2dSame else max(k) // 2 if isinstance(k, tuple) else k // 2, groups=c)


@pytest.mark.parametrize("c, size, k, stride, cls", SHAPES)
def test_gradients_are_as_near_to_those_in_double_precision_as_torchs_own(c, size, k, stride, cls):
    torch.manual_seed(0)
    conv, x = depthwise(c, k, stride, cls), torch.randn(16, c, size, size).contiguous(**LAST).requires_grad_()
    exact, ts = copy.deepcopy(conv).double(), (x, *conv.parameters())
    g = torch.randn_like(conv(x))
    mine, own = (torch.autograd.grad(y, ts, g) for y in (fast_conv(conv)(*ts), conv(x)))
    true = torch.autograd.grad(exact(xd := x.detach().double().requires_grad_()), (xd, *exact.parameters()), g.double())
    torch.testing.assert_close(fast_conv(conv)(*ts), conv(x), rtol=1e-5, atol=1e-5)
    for a, b, t in zip(mine, own, true):
        assert (a - t).abs().max() <= max(2 * (b - t).abs().max(), 1e-5 * t.abs().max())


def test_no_piece_has_more_columns_than_the_fast_kernel_takes(monkeypatch):
    seen, own = [], convolve._grad
    monkeypatch.setattr(
        convolve,
        "_grad",
        lambda which, g, x, w, *a: (seen.append((which[1], tuple(w.shape[2:]), len(x))), own(which, g, x, w, *a))[1],
    )
    conv = depthwise(144, 5, 1, nn.Conv2d)
    x = torch.randn(16, 144, 32, 32).contiguous(**LAST).requires_grad_()
    fast_conv(conv)(x, conv.weight, conv.bias).sum().backward()
    pieces = [(k, n) for weights, k, n in seen if weights]
    # a few items at a time
    assert {k for k, _ in pieces} == {(5, 3), (5, 2)} and sum(n for _, n in pieces) == 2 * 16 and len(pieces) > 2


def test_tensorflows_padding_is_that_of_timm():
    for n in range(1, 20):
        for k in (1, 2, 3, 5, 7):
            for s in (1, 2, 3, 4):
                a, b = same_padding(n, k, s)
                assert (n + a + b - k) // s + 1 == -(-n // s) and 0 <= b - a <= 1


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(8, 8, 5, groups=4),
        nn.Conv2d(8, 16, 5, groups=8),
        nn.Conv2d(8, 8, 5, groups=8, dilation=2),
        nn.Conv2d(8, 8, 3, groups=8),
        nn.Conv2d(8, 8, 5, groups=8, padding="same"),
        nn.Conv2d(8, 8, 5, groups=8, padding=2, padding_mode="reflect"),
        nn.Conv2d(8, 8, 3),
        nn.Conv2d(8, 8, 1, stride=2),
        nn.Conv2d(8, 8, 1, padding=1),
        nn.Conv1d(8, 8, 5, groups=8),
        nn.ConvTranspose2d(8, 8, 5, groups=8),
        Conv2dSame(8, 8, 3, 1, groups=8),
        nn.Linear(8, 8),
    ],
)
def test_other_layers_go_the_way_they_went(conv):
    assert fast_conv(conv) is None


def test_a_class_of_ones_own_goes_the_way_it_went():
    class Mine(nn.Conv2d):
        def forward(self, x):
            return super().forward(x) + 1

    assert fast_conv(Mine(8, 8, 5, groups=8)) is None
    normed = nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 8, 1))
    assert fast_conv(normed) is None


@pytest.mark.parametrize(
    "conv", [nn.Conv2d(8, 8, 5, padding=2, groups=8), Conv2dSame(8, 8, 3, 2, groups=8), nn.Conv2d(8, 6, 1)]
)
def test_inputs_that_are_laid_out_otherwise(conv, monkeypatch):
    run = fast_conv(conv)
    for cls in (convolve._Depthwise, convolve._Pointwise):
        monkeypatch.setattr(cls, "apply", None)
    x = torch.randn(4, 8, 6, 6)
    one = torch.randn(8, 6, 6)
    torch.testing.assert_close(run(x, conv.weight, conv.bias), conv(x))
    torch.testing.assert_close(
        run(x.double(), conv.weight.double(), conv.bias.double()), copy.deepcopy(conv).double()(x.double())
    )
    torch.testing.assert_close(run(one, conv.weight, conv.bias), conv(one))  # without a batch


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "mobilenetv3_small_050"])
def test_norms_that_follow_the_batches_stay_and_the_convolutions_before_them_are_fast(name):
    torch.manual_seed(0)
    net, x = timm.create_model(name, num_classes=3).double(), torch.randn(4, 3, 64, 64, dtype=torch.float64)
    other = copy.deepcopy(net)
    q = quick_for(net, (x[:2],), 4)
    assert len(q.single) > 9
    seen, conv = [], q.single[0][0]
    conv.register_forward_hook(lambda m, a, y: seen.append(y.shape))
    net.train()
    other.train()
    for m in (*net.modules(), *other.modules()):
        if isinstance(m, nn.Dropout):
            m.eval()
    with q.on():
        net(*q.inputs((x,))).square().sum().backward()
    other(x).square().sum().backward()
    assert len(seen) == 1 and not any("forward" in vars(m) for m in net.modules())
    for (n, a), b in zip(net.named_parameters(), other.parameters()):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-6, atol=1e-8, msg=n)
    for a, b in zip(net.buffers(), other.buffers()):
        torch.testing.assert_close(a, b)


def test_a_forward_that_somebody_has_replaced_stays():
    net, x = timm.create_model("tf_efficientnet_lite0", num_classes=3), torch.randn(2, 3, 64, 64)
    q = quick_for(net, (x,), 2)
    conv = q.single[-1][0]
    conv.forward = mine = lambda x: nn.Conv2d.forward(conv, x)
    with q.on():
        assert conv.forward is mine
    assert conv.forward is mine
