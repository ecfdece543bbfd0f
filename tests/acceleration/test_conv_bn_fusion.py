"""Batch norms within frozen convolutions, while features are made."""

import pytest
import timm
import torch
from torch import nn

from fastai_tl.acceleration.conv_bn_fusion import foldable, folded
from fastai_tl.cache.split_point import find_cut


def lively(net):
    "Statistics and weights of norms as after training, not 0 and 1"
    torch.manual_seed(1)
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.normal_()
            m.running_var.uniform_(0.3, 2)
            with torch.no_grad():
                m.weight.uniform_(0.5, 1.5)
                m.bias.normal_()
    return net.eval()


@pytest.mark.parametrize(
    "name, n", [("resnet18", 20), ("tf_efficientnet_lite0", 49), ("mobilenetv3_small_050", 34), ("vgg11_bn", 8)]
)
def test_networks_of_timm_are_the_same(name, n):
    net, x = lively(timm.create_model(name, num_classes=0)), torch.randn(3, 3, 64, 64)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with torch.no_grad():
        want = net(x)
        pairs = foldable(net.modules(), lambda: net(x))
        with folded(pairs):
            got = net(x)
    assert len(pairs) == n
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5 * float(want.abs().max()))
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items()) and not any(
        "forward" in vars(m) for m in net.modules()
    )


class Both(nn.Module):
    "What is between convolution and norm is used twice"

    def __init__(self, twice):
        super().__init__()
        self.conv, self.bn, self.twice = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), twice

    def forward(self, x):
        y = self.conv(x)
        return self.bn(y) + y if self.twice else self.bn(y)


@pytest.mark.parametrize("twice", [False, True])
def test_what_is_used_elsewhere_is_not_folded(twice):
    net = lively(nn.Sequential(Both(twice), nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))))
    for p in net[0].parameters():
        p.requires_grad_(False)
    net[0].bn.train = lambda mode=True: net[0].bn  # holds its statistics
    x = torch.randn(4, 3, 8, 8)
    cut = find_cut(net, (x,))
    assert len(cut.pairs) == (not twice)
    with cut.quick():
        got = cut.features((x,))
    torch.testing.assert_close(got, net[0](x).mean((2, 3)), rtol=1e-4, atol=1e-5)


def test_what_cannot_be_folded():
    conv, bn, x = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), torch.randn(2, 3, 8, 8)
    stands = nn.BatchNorm2d(4, track_running_stats=False)
    assert foldable([conv, stands], lambda: stands(conv(x))) == []  # the statistics of the batch
    assert foldable([conv, bn], lambda: bn(conv(x)) + bn(conv(x))) == []  # called twice
    assert foldable([conv, bn], lambda: bn(conv(x).relu())) == []  # something between them
    pairs = foldable([conv, bn], lambda: bn(conv(x)))
    assert pairs == [(conv, bn)]
    conv.forward = lambda x: torch.zeros(2, 4, 6, 6)  # somebody's own
    mine = conv.forward
    with folded(pairs):
        assert conv.forward is mine and "forward" not in vars(bn)
    assert conv.forward is mine
    del conv.forward
    assert foldable([conv, bn], lambda: bn(conv(x))) == pairs
    with pytest.raises(ZeroDivisionError), folded(pairs):
        _ = 1 / 0
    assert "forward" not in vars(conv) and "forward" not in vars(bn)


def test_the_weights_of_the_moment_are_used():
    conv, bn, x = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4).eval(), torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        pairs = foldable([conv, bn], lambda: bn(conv(x)))
        conv.weight.mul_(2)
        bn.running_mean.add_(1)
        want = bn(conv(x))
        with folded(pairs):
            torch.testing.assert_close(bn(conv(x)), want, rtol=1e-4, atol=1e-5)
