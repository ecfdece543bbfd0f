"""Features on every family of backbones, and on networks that are not a plain sequence."""

import pytest
import torch
from every_backbone import OFTEN, by_family, data
from torch import nn

from fastai_tl.models.registry import backbone_names, facts, find_arch
from fastai_tl.cache.callback import frozen_cache
from fastai_tl.freezing.freeze import freeze_to
from fastai_tl.freezing.layer_groups import layer_groups
from fastai_tl.cache.split_point import NoCache, find_split_point, is_exact
from fastai_tl.core.progress import quiet
from fastai_tl.acceleration.channels_last import channels_last, runs_channels_last
from fastai_tl.models.transfer_learner import transfer_learner

# which these are on purpose
pytestmark = pytest.mark.filterwarnings("ignore:The batches are plain tensors:fastai_tl.core.errors.KitWarning")

TORCHVISION, TIMM = by_family("torchvision"), by_family("timm")
# torchvision's drop whole layers at random in training, frozen or not
RANDOM = {"convnext_tiny", "efficientnet_b0", "maxvit_t", "swin_t"}
SMALL = [n for k, n in TIMM.items() if k not in TORCHVISION and facts(find_arch(n))["gmacs"] < 0.5][:12]
NAMES = [
    pytest.param(n, marks=[] if n in OFTEN else [pytest.mark.zoo])
    for n in [*backbone_names("kit"), *TORCHVISION.values(), *SMALL]
]


@pytest.mark.medium
@pytest.mark.parametrize("name", NAMES)
def test_every_family_has_a_split_point_that_is_exact(name):
    f = facts(find_arch(name))
    size = f["input_size"] if f["fixed"] else max(f["min_size"] or 32, 64)
    learn = transfer_learner(data(size), name, pretrained=False)
    torch.manual_seed(0)
    xb, groups = (torch.randn(3, 3, size, size),), list(layer_groups(learn))
    split = find_split_point(learn.model, xb, eval_stochastic=True)
    assert is_exact(split, xb, eval_stochastic=True) and len(split.shape) == (
        2 if name == "vit_b_32" else 1
    )  # after pooling
    n = sum(p.numel() for ps in list(layer_groups(learn).values())[:-1] for p in ps)
    # the whole body
    assert (
        sum(p.numel() for p in {id(t): t for t in split.tensors().values() if isinstance(t, nn.Parameter)}.values())
        >= 0.9 * n
    )
    if name in RANDOM:
        assert find_split_point(learn.model, xb).path != split.path
    freeze_to(learn, groups[len(groups) // 2])
    try:
        mid = find_split_point(learn.model, xb, eval_stochastic=True)
    except NoCache as e:
        assert "first layers train" in e.why and name.startswith("efficientvim")
        return
    assert is_exact(mid, xb, eval_stochastic=True) and mid.path != split.path
    assert not any(t.requires_grad for t in mid.tensors().values())


@pytest.mark.medium
@pytest.mark.parametrize("name", NAMES)
def test_every_family_is_the_same_function_with_channels_last(name):
    "Outputs and gradients in double precision, where roundings do not matter, with norms that are not as new"
    f = facts(find_arch(name))
    size = f["input_size"] if f["fixed"] else max(f["min_size"] or 32, 64)
    torch.manual_seed(0)
    m = transfer_learner(data(size), name, pretrained=False).model.double().eval().requires_grad_(True)
    xb = (torch.randn(2, 3, size, size, dtype=torch.float64),)
    with torch.no_grad():
        for b in m.modules():
            if isinstance(b, nn.BatchNorm2d):
                b.running_mean.normal_(0, 0.1)
                b.running_var.uniform_(0.5, 1.5)
                b.weight.uniform_(0.5, 1.5)
                b.bias.normal_(0, 0.1)
    before, own = {k: v.clone() for k, v in m.state_dict().items()}, [o for o in m.modules() if "forward" in vars(o)]
    if not runs_channels_last(m, xb):
        assert not any(isinstance(o, nn.Conv2d) for o in m.modules())
        return

    def step(xb):
        out = m(*xb)
        return out, *torch.autograd.grad(out.square().sum(), list(m.parameters()), allow_unused=True)

    plain = step(xb)
    fast = step(tuple(map(channels_last, xb)))
    for a, b in zip(plain, fast):
        if a is None or b is None:
            assert (a is None or not a.any()) and (b is None or not b.any())
        else:
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8 * max(1.0, float(a.detach().abs().max())))
    assert [o for o in m.modules() if "forward" in vars(o)] == own and all(
        torch.equal(v, m.state_dict()[k]) for k, v in before.items()
    )


def test_the_check_can_fail():
    "A split point that leaves something out is not exact"

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(8, 2)
            for m in (self.a, self.b):
                m.requires_grad_(False)

        def forward(self, x):
            return self.head(torch.cat([self.a(x), self.b(x)], 1))

    with pytest.raises(NoCache, match="no place|trains"):
        find_split_point(Two(), (torch.randn(4, 4),))

    class Remembers(Two):
        def forward(self, x):
            if self.training:
                x = x * 2  # not the same in training and evaluation
            return nn.functional.linear(self.b(self.a(x)), self.head.weight[:, :4])

    with pytest.raises(NoCache):
        find_split_point(Remembers(), (torch.randn(4, 4),))


def test_shared_layers_and_the_shape_of_the_input():
    class Shared(nn.Module):
        """One activation before and after the split point, a frozen layer used on both sides, and a forward that
        looks at its input's shape at the end
        """

        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)
            self.act = nn.ReLU(inplace=True)
            self.norm = nn.GroupNorm(1, 3)
            self.last = nn.Conv2d(3, 2, 1)
            self.conv.requires_grad_(False)

        def forward(self, x):
            y = self.act(self.conv(x))
            y = self.act(self.conv(y))
            y = self.act(self.norm(y))
            return nn.functional.interpolate(self.last(self.conv(y)), size=x.shape[-2:])

    net, x = Shared(), torch.randn(4, 3, 8, 10)
    split = find_split_point(net, (x,))
    assert split.path == "act" and split.call.nth == 1
    torch.testing.assert_close(split.forward_from_features(split.features((x,))), net(x))
    x2 = torch.randn(7, 3, 8, 10)
    torch.testing.assert_close(split.forward_from_features(split.features((x2,))), net(x2))


@pytest.mark.medium
def test_a_timm_network_of_the_users_own_and_a_partly_frozen_stage():
    import timm

    net = timm.create_model("resnet10t", num_classes=2)
    learn = transfer_learner(data(64), net)
    from fastai_tl.freezing.freeze import set_frozen, train_only

    train_only(learn, ["head", "*layer4*"])
    xb = (torch.randn(4, 3, 64, 64),)
    assert find_split_point(learn.model, xb).path.endswith("layer3")
    set_frozen(learn, "*layer4.0.conv1*")  # a frozen layer behind nothing that trains
    split = find_split_point(learn.model, xb)
    assert is_exact(split, xb)
    with quiet(learn), frozen_cache(learn, on_progress=lambda *a: None):
        learn.fit(1, 1e-3)
