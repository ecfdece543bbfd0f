"""Right and wrong answers to the exercises of the lessons: for each exercise one that passes, and one for each
mistake that its check knows.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

RIGHT, WRONG = {}, {}


def case(exercise, answer, /, **wrong):
    "`answer` and `wrong` are answers by name, or functions that make them"
    RIGHT[exercise], WRONG[exercise] = answer, wrong


def only(name):
    return lambda value: {name: value}


def kit():
    import fastai_tl.all as k

    return k


# ---------------------------------------------------------------- 0 setup

share = only("share_of_valid")
n = lambda d: (len(d.train_ds), len(d.valid_ds))
case(
    "setup-share",
    share(lambda d: n(d)[1] / sum(n(d))),
    percent=share(lambda d: 100 * n(d)[1] / sum(n(d))),
    train=share(lambda d: n(d)[0] / sum(n(d))),
    ratio=share(lambda d: n(d)[1] / n(d)[0]),
    batches=share(lambda d: len(d.valid) / (len(d.train) + len(d.valid))),
    fixed=share(lambda d: 0.2),
    other=share(lambda d: n(d)[1] / sum(n(d)) / 3),
)


def counted_in_batches(d):
    out = dict.fromkeys(d.vocab, 0)
    for _, y in d.train:
        for o in y:
            out[d.vocab[int(o)]] += 1
    return out


def counts(*parts, key=lambda p, d: p.parent.name):
    def per_class(d):
        out = {}
        for part in parts:
            for p in getattr(d, part).items:
                out[key(p, d)] = out.get(key(p, d), 0) + 1
        return out

    return dict(per_class=per_class)


case(
    "setup-classes",
    counts("train_ds"),
    valid=counts("valid_ds"),
    every=counts("train_ds", "valid_ds"),
    keys=counts("train_ds", key=lambda p, d: d.vocab.o2i[p.parent.name]),
    even=dict(per_class=lambda d: {c: len(d.train_ds) // len(d.vocab) for c in d.vocab}),
    batches=dict(per_class=lambda d: counted_in_batches(d)),
    fixed=dict(per_class=lambda d: {"1": 6, "7": 6}),
    other=dict(per_class=lambda d: {c: 77 - len(d.vocab) + i for i, c in enumerate(d.vocab)}),
)


def dls_of(train, valid):
    from fastai.data.core import DataLoaders

    return DataLoaders(train, valid)


cure = only("cure")
case(
    "setup-doctor",
    cure(lambda d: dls_of(d.train.new(bs=max(2, len(d.train_ds) // 2)), d.valid)),
    same=cure(lambda d: d),
    lost=cure(lambda d: dls_of(d.valid.new(bs=2), d.valid)),
    valid=cure(lambda d: dls_of(d.train.new(bs=2), d.train)),
    one=cure(lambda d: dls_of(d.train.new(bs=1), d.valid)),
    fixed=cure(lambda d: dls_of(d.train.new(bs=8), d.valid)),
    order=cure(lambda d: dls_of(d.train.new(bs=len(d.train_ds) // 2, shuffle=False), d.valid)),
    steps=cure(lambda d: dls_of(bare_loader(d), d.valid)),
)


def bare_loader(d):
    from fastai.data.core import TfmdDL

    return TfmdDL(d.train_ds, bs=len(d.train_ds) // 2, shuffle=True, drop_last=True)


def lite0(change, **kw):
    "A Learner of the offline backbone on a few digits, changed"

    def make():
        from fastai_tl.course.exercises.fixtures import tiny_dls

        learn = kit().transfer_learner(tiny_dls("01", 4, 2, size=32), "tf_efficientnet_lite0", **kw)
        change(learn)
        return dict(net=learn)

    return make


case(
    "setup-panel",
    lite0(lambda o: kit().freeze_to(o, "stage7")),
    all=lite0(lambda o: kit().unfreeze(o)),
    head=lite0(lambda o: None),
    late=lite0(lambda o: (kit().freeze_to(o, "stage6"), kit().set_frozen(o, "stage7"))),
    early=lite0(lambda o: kit().freeze_to(o, "stage6")),
    norms=lite0(lambda o: kit().freeze_to(o, "stage7", bn="affine")),
    stats=lite0(lambda o: kit().freeze_to(o, "stage7"), bn="train"),
)

# ---------------------------------------------------------------- 1 why

top = lambda xs: max(sorted(set(xs)), key=xs.count)
majority = only("majority")
case(
    "why-baseline",
    majority(lambda t, v: v.count(top(t)) / len(v)),
    valid=majority(lambda t, v: v.count(top(v)) / len(v)),
    chance=majority(lambda t, v: 1 / len(set(t + v))),
    share=majority(lambda t, v: t.count(top(t)) / len(t)),
    percent=majority(lambda t, v: 100 * v.count(top(t)) / len(v)),
    count=majority(lambda t, v: v.count(top(t))),
    fixed=majority(lambda t, v: 0.77),
    other=majority(lambda t, v: 0.7 + len(v) / 100),
)
gain = only("gain")
case(
    "why-gain",
    gain(lambda a, b: 100 * (b.accuracy - a.accuracy)),
    share=gain(lambda a, b: b.accuracy - a.accuracy),
    relative=gain(lambda a, b: 100 * (b.accuracy / a.accuracy - 1)),
    sign=gain(lambda a, b: 100 * (a.accuracy - b.accuracy)),
    fixed=gain(lambda a, b: 12),
    other=gain(lambda a, b: 7 * b.accuracy),
)


def lite(name="tf_efficientnet_lite0", change=None, **kw):
    def make(dls):
        learn = kit().transfer_learner(dls, name, **kw)
        if change:
            learn = change(learn) or learn
        return learn

    return dict(make=make)


def other_norm(learn):
    from fastai.data.transforms import Normalize

    for dl in learn.dls.loaders:
        for t in dl.after_batch.fs:
            if isinstance(t, Normalize):
                t.mean = t.mean + 0.3


def other_data(dls):
    from fastai_tl.course.exercises.fixtures import tiny_dls

    return kit().transfer_learner(tiny_dls("89"), "tf_efficientnet_lite0")


case(
    "why-pretrained",
    lite(),
    scratch=lite(pretrained=False),
    unfrozen=lite(change=lambda o: kit().unfreeze(o)),
    head=lite(change=lambda o: [p.requires_grad_(False) for p in o.model.parameters()] and None),
    norms=lite(bn="affine"),
    stats=lite(bn="train"),
    classes=lite(n_out=8),
    norm=lite(change=other_norm),
    other=lite("resnet_mini"),
    data=dict(make=other_data),
)


def confused(pick):
    def make():
        from fastai_tl.course.exercises.fixtures import tiny_dls, tiny_learner

        learn = tiny_learner(dls=tiny_dls("0127", 6, 12), seed=3)
        learn.fit(4, 5e-3)
        pairs = kit().evaluate(learn, on_progress=lambda *a: None).most_confused()
        return dict(learn=learn, confused=pick(pairs))

    return make


def unequal(pairs):
    "The mirror image of the most frequent mistake, which happens less often"
    return next(p for p in ((b, a) for a, b, _ in pairs[:1]))


case(
    "why-panel",
    confused(lambda ps: ps[0][:2]),
    same=confused(lambda ps: ("0", "0")),
    names=confused(lambda ps: ("cat", "dog")),
    turned=confused(unequal),
    never=confused(
        lambda ps: next(
            (a, b)
            for a in "0127"
            for b in "0127"
            if a != b and (a, b) not in {p[:2] for p in ps} and (b, a, ps[0][2]) not in ps
        )
    ),
    less=confused(lambda ps: next(p[:2] for p in ps if p[2] < ps[0][2] and p[:2] != unequal(ps))),
)

# ---------------------------------------------------------------- 2 backbone

size = lambda m: sum(p.numel() for p in m.parameters())
count = only("count")
case(
    "backbone-count",
    count(lambda o: (size(o.model[0]), size(o.model[1]))),
    together=count(lambda o: size(o.model)),
    buffers=count(lambda o: tuple(sum(v.numel() for v in m.state_dict().values()) for m in o.model)),
    trains=count(lambda o: tuple(sum(p.numel() for p in m.parameters() if p.requires_grad) for m in o.model)),
    layers=count(lambda o: tuple(len(list(m.parameters())) for m in o.model)),
    turned=count(lambda o: (size(o.model[1]), size(o.model[0]))),
    units=count(lambda o: (size(o.model[0]) / 1e6, size(o.model[1]) / 1e6)),
    fixed=None,
    other=count(lambda o: (size(o.model[0]) + 1, size(o.model[1]))),
)


def first_seen():
    "Answers with what it saw the first time"
    seen = []

    def count(learn):
        seen.append((size(learn.model[0]), size(learn.model[1])))
        return seen[0]

    return dict(count=count)


WRONG["backbone-count"]["fixed"] = first_seen
best = lambda rows: max(a for *_, a in rows)
look = only("worth_a_look")


def beaten(rows, strict=False, sign=1):
    out = []
    for m, c, a in rows:
        others = [(d, b) for k, d, b in rows if k != m]
        lost = any(
            (d <= c and sign * b >= sign * a) if strict else (d <= c and sign * b >= sign * a and (d < c or b != a))
            for d, b in others
        )
        if not lost:
            out.append(m)
    return out


case(
    "backbone-pareto",
    look(beaten),
    nothing=look(lambda rows: []),
    ends=look(lambda rows: [m for m, c, a in rows if a == best(rows) or c == min(c for _, c, _ in rows)]),
    best=look(lambda rows: [m for m, _, a in rows if a == best(rows)]),
    cheap=look(lambda rows: [m for m, c, _ in rows if c == min(c for _, c, _ in rows)]),
    all=look(lambda rows: [m for m, *_ in rows]),
    ties=look(lambda rows: beaten(rows, strict=True)),
    turned=look(lambda rows: beaten(rows, sign=-1)),
    names=look(lambda rows: [1, 2]),
    other=look(lambda rows: beaten(rows)[1:]),
)


def learners(each=lambda a, i, dls: kit().transfer_learner(dls(0), a)):
    def f(archs):
        made = {}
        dls = lambda seed, size=28: made.setdefault(
            (seed, size), kit().sample_dls("digits", size=size, n_per_class=2, channels=1, seed=seed)
        )
        return {a: each(a, i, dls) for i, a in enumerate(archs)}

    return dict(learners=f)


def shared(archs):
    one = learners()["learners"](archs[:1])[archs[0]]
    return dict.fromkeys(archs, one)


def on_validation(dls, a):
    return kit().transfer_learner(dls_of(dls.valid.new(shuffle=True, drop_last=True), dls.valid), a)


def with_rate(learn, lr):
    learn.lr = lr
    return learn


def trained_once(learn):
    learn.fit(1)
    return learn


def unfrozen(a, i, dls):
    learn = kit().transfer_learner(dls(0), a)
    kit().unfreeze(learn)
    return learn


case(
    "backbone-fair",
    learners(),
    split=learners(lambda a, i, dls: kit().transfer_learner(dls(i), a)),
    unfrozen=learners(unfrozen),
    scratch=learners(lambda a, i, dls: kit().transfer_learner(dls(0), a, pretrained=False)),
    shared=dict(learners=shared),
    leak=learners(lambda a, i, dls: on_validation(dls(0), a)),
    norms=learners(lambda a, i, dls: kit().transfer_learner(dls(0), a, bn="train" if i else "frozen")),
    head=learners(lambda a, i, dls: kit().transfer_learner(dls(0), a, head="fastai" if i else "linear")),
    training=learners(lambda a, i, dls: with_rate(kit().transfer_learner(dls(0), a), 0.1 if i else 0.001)),
    trained=learners(lambda a, i, dls: trained_once(kit().transfer_learner(dls(0), a))),
    size=learners(lambda a, i, dls: kit().transfer_learner(dls(0, 28 + 4 * i), a)),
    missing=dict(learners=lambda archs: learners()["learners"](archs[:1])),
    other=learners(lambda a, i, dls: kit().transfer_learner(dls(0), "mobilenet_mini")),
)


def heaviest(name):
    def make():
        from fastai_tl.course.exercises.fixtures import tiny_learner

        return dict(net=tiny_learner("resnet_mini"), heaviest=name)

    return make


case(
    "backbone-panel",
    heaviest("layer4"),
    head=heaviest("head"),
    first=None,
    fewest=None,
    names=heaviest("stage7"),
    net=None,
    other=heaviest("layer2"),
)


def first_of_lite0():
    from fastai_tl.course.exercises.fixtures import tiny_dls

    return dict(net=kit().transfer_learner(tiny_dls("01", 4, 2, size=32), "tf_efficientnet_lite0"), heaviest="stem")


def fewest_of_lite0():
    net = kit().transfer_learner(kit().sample_dls("clipart", size=32, n_per_class=2), "tf_efficientnet_lite0")
    return dict(net=net, heaviest="stage1")


WRONG["backbone-panel"].update(first=first_of_lite0, fewest=fewest_of_lite0, net=heaviest("layer4"))
SEEDS = {("backbone-panel", "net"): 0}  # of a student whose figures differ from those of the text

# ---------------------------------------------------------------- 3 frozen

head = only("my_head")
pooled = lambda c, k, *more: nn.Sequential(
    nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(c, k), *more
)


class AlwaysDrops(nn.Module):
    def __init__(self, c, k):
        super().__init__()
        self.fc = nn.Linear(c, k)

    def forward(self, x):
        return self.fc(F.dropout(x.mean((2, 3)), 0.5))


case(
    "frozen-head",
    head(pooled),
    sizes=head(lambda c, k: pooled(128, k)),
    pool=head(lambda c, k: nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(c * 49, k))),
    shape=head(lambda c, k: pooled(c, 8)),
    softmax=head(lambda c, k: pooled(c, k, nn.Softmax(1))),
    end=head(lambda c, k: pooled(c, k, nn.ReLU())),
    share=head(lambda c, k: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.1), nn.Linear(c, k))),
    after=head(lambda c, k: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, k), nn.Dropout(0.5))),
    dropout=head(lambda c, k: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, k))),
    always=head(AlwaysDrops),
    deep=head(
        lambda c, k: nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, 8), nn.Dropout(0.5), nn.Linear(8, k)
        )
    ),
)


def step(eval_body=True, train_head=True, through=False, zero="all", go=True, loss_of=F.cross_entropy, times=1):
    def step(body, head, x, y, opt):
        if eval_body:
            body.eval()
        if train_head:
            head.train()
        if zero == "all":
            opt.zero_grad()
        if zero == "head":
            for p in head.parameters():
                p.grad = None
        with torch.set_grad_enabled(through):
            f = body(x)
        for _ in range(times):
            loss = loss_of(head(f), y)
            if go:
                opt.zero_grad() if zero == "all" else None
                loss.backward()
                opt.step()

    return dict(step=step)


case(
    "frozen-step",
    step(),
    stats=step(eval_body=False),
    weights=step(through=True),
    stale=step(zero="head"),
    eval=step(train_head=False),
    still=step(go=False),
    piled=None,
    sign=step(loss_of=lambda o, y: -F.cross_entropy(o, y)),
    loss=step(loss_of=lambda o, y: o.mean()),
    times=step(times=2),
    opt=step(loss_of=lambda o, y: 7 * F.cross_entropy(o, y)),
)


def piled(body, head, x, y, opt):
    body.eval()
    head.train()
    for p in body.parameters():
        p.grad = None
    with torch.no_grad():
        f = body(x)
    F.cross_entropy(head(f), y).backward()
    opt.step()


WRONG["frozen-step"]["piled"] = dict(step=piled)
hold = only("freeze_body")


def no_gradient(learn, evaluate=False, part=0):
    for p in learn.model[part].parameters():
        p.requires_grad, p.grad = False, None
    if evaluate:
        learn.model[part].eval()


case(
    "frozen-trap",
    hold(lambda o: kit().freeze_to(o, "head", bn="frozen")),
    once=hold(lambda o: no_gradient(o, True)),
    stats=hold(no_gradient),
    weights=hold(lambda o: kit().set_bn(o, "frozen")),
    head=None,
)


def everything(learn):
    "Holds the body, and puts the head back after each fit"
    kit().freeze_to(learn, "head", bn="frozen")
    keep = {k: v.clone() for k, v in learn.model[1].state_dict().items()}
    from fastai.callback.core import Callback

    class Back(Callback):
        order = 90

        def after_fit(self):
            self.model[1].load_state_dict(keep)

    learn.add_cb(Back())


WRONG["frozen-trap"]["head"] = hold(everything)


def mini(change, bn="frozen"):
    def make():
        from fastai_tl.course.exercises.fixtures import tiny_learner

        learn = tiny_learner(bn=bn)
        kit().unfreeze(learn)
        change(learn)
        return dict(net=learn)

    return make


MIDDLE = ["layer1", "layer2", "layer3", "layer4"]
case(
    "frozen-panel",
    mini(lambda o: kit().set_frozen(o, MIDDLE)),
    all=mini(lambda o: None),
    stem=mini(lambda o: kit().set_frozen(o, ["stem", *MIDDLE])),
    head=mini(lambda o: kit().set_frozen(o, [*MIDDLE, "head"])),
    middle=mini(lambda o: kit().set_frozen(o, MIDDLE[:3])),
    norms=mini(lambda o: kit().set_frozen(o, MIDDLE), bn="affine"),
    stats=mini(lambda o: kit().set_frozen(o, MIDDLE), bn="train"),
)

# ---------------------------------------------------------------- 4 rates

sweep = only("sweep")
geo = lambda lo, hi, k: list(np.geomspace(lo, hi, k))
case(
    "rates-sweep",
    sweep(geo),
    linear=sweep(lambda lo, hi, k: list(np.linspace(lo, hi, k))),
    count=sweep(lambda lo, hi, k: geo(lo, hi, k)[:-1]),
    ends=sweep(lambda lo, hi, k: geo(lo, hi, k + 1)[:-1]),
    falling=sweep(lambda lo, hi, k: geo(lo, hi, k)[::-1]),
    logs=sweep(lambda lo, hi, k: list(np.linspace(np.log10(lo), np.log10(hi), k))),
    fixed=sweep(lambda lo, hi, k: geo(1e-6, 1, 13)),
    other=sweep(lambda lo, hi, k: [lo, *[hi / 2] * (k - 2), hi]),
)
stop = only("stop_at")


def stopping(limit, nan=True, none=len, shift=0):
    def stop_at(xs):
        for i, v in enumerate(xs):
            if v > 4 * limit(xs, i) or nan and not np.isfinite(v):
                return i + shift
        return none(xs)

    return stop_at


lowest = lambda xs, i: min((v for v in xs[:i]), default=float("inf"))
case(
    "rates-stop",
    stop(stopping(lowest)),
    start=stop(stopping(lambda xs, i: xs[0])),
    future=stop(stopping(lambda xs, i: np.nanmin(xs))),
    last=stop(stopping(lambda xs, i: xs[i - 1] if i else float("inf"))),
    limit=stop(lambda xs: next((i for i, v in enumerate(xs) if not np.isfinite(v) or v >= 4 * lowest(xs, i)), len(xs))),
    value=stop(lambda xs: next((v for i, v in enumerate(xs) if v > 4 * lowest(xs, i)), len(xs))),
    nan=stop(stopping(lowest, nan=False)),
    never=stop(stopping(lowest, none=lambda xs: -1)),
    off=stop(stopping(lowest, shift=1)),
    fixed=stop(lambda xs: 2),
    other=stop(lambda xs: 20 + len(xs)),
)


def safely(copied=True, buffers=True, keep="finally", result=True):
    def safely(learn, sweep):
        state = learn.model.state_dict() if buffers else dict(learn.model.named_parameters())
        before = {k: v.detach().clone() for k, v in state.items()} if copied else state
        back = lambda: learn.model.load_state_dict(before, strict=False)
        if keep == "end":
            out = sweep(learn)
            back()
        else:
            try:
                out = sweep(learn)
            except Exception:
                back()
                if keep == "swallow":
                    return None
                raise
            except BaseException:
                if keep == "finally":
                    back()
                raise
            back()
        return out if result else 0

    return dict(safely=safely)


def wrapped(learn, sweep):
    try:
        return safely()["safely"](learn, sweep)
    except BaseException as e:
        raise ValueError("the sweep failed") from e


def elsewhere(learn, sweep):
    import copy

    return sweep(copy.deepcopy(learn))


def all_train(learn, sweep):
    for p in learn.model.parameters():
        p.requires_grad_(True)
    return safely()["safely"](learn, sweep)


case(
    "rates-restore",
    safely(),
    alias=safely(copied=False),
    buffers=safely(buffers=False),
    error=safely(keep="end"),
    interrupt=safely(keep="exception"),
    swallowed=safely(keep="swallow"),
    result=safely(result=False),
    changed=dict(safely=lambda learn, sweep: wrapped(learn, sweep)),
    calls=dict(safely=lambda learn, sweep: (safely()["safely"](learn, sweep), safely()["safely"](learn, sweep))[1]),
    learner=dict(safely=lambda learn, sweep: elsewhere(learn, sweep)),
    flags=dict(safely=lambda learn, sweep: all_train(learn, sweep)),
)


def picked(rate):
    def make():
        learn = kit().transfer_learner(
            kit().sample_dls("digits", size=28, bs=16, n_per_class=20, channels=1), "resnet_mini"
        )
        if rate:
            kit().set_lrs(learn, rate * kit().find_lr(learn, seeds=3, on_progress=lambda *a: None).suggested)
        return dict(learn=learn)

    return make


case("rates-pick", picked(1), default=picked(None), sign=None, high=picked(100), low=picked(1e-3))


def negative():
    learn = picked(None)()["learn"]
    learn.lr = [-0.01] * len(kit().layer_groups(learn))
    return dict(learn=learn)


WRONG["rates-pick"]["sign"] = negative

# ---------------------------------------------------------------- 5 finetune

rates = only("rates")
falling = lambda lr, k, f: [lr / f ** (k - 1 - i) for i in range(k)]
case(
    "finetune-rates",
    rates(falling),
    turned=rates(lambda *a: falling(*a)[::-1]),
    linear=rates(lambda lr, k, f: list(np.linspace(lr / k, lr, k))),
    whole=rates(lambda lr, k, f: list(np.geomspace(lr / f, lr, k))),
    count=rates(lambda lr, k, f: falling(lr, k + 1, f)),
    flat=rates(lambda lr, k, f: [lr] * k),
    shift=rates(lambda lr, k, f: falling(lr / f, k, f)),
    fixed=None,
    other=rates(lambda lr, k, f: falling(3 * lr, k, 2 * f)),
)


def same_rates():
    seen = []

    def rates(*a):
        seen.append(falling(*a))
        return seen[0]

    return dict(rates=rates)


WRONG["finetune-rates"]["fixed"] = same_rates


def plan_panel(*stages):
    def make():
        from fastai_tl.course.exercises.fixtures import tiny_learner
        from fastai_tl.panels.plan import PlanPanel

        k = kit()
        plan = (
            stages[0](k.Plan)
            if callable(stages[0])
            else k.Plan(tuple(k.Stage(f"stage {i}", **{"epochs": 1, "lr": 0.01, **s}) for i, s in enumerate(stages)))
        )
        return dict(panel=PlanPanel(tiny_learner(), plan))

    return make


UP = [dict(train=g, lr_decay=2.6) for g in ("head", "layer4", "layer3", "layer2", "layer1", "all")]
case(
    "finetune-plan",
    plan_panel(lambda P: P.gradual(1, 1, factor=2.6)),
    all=plan_panel(dict(train="all", lr_decay=2.6)),
    steps=plan_panel(UP[0], UP[2]),
    end=plan_panel(*UP[:3]),
    back=plan_panel(*UP, UP[0]),
    flat=plan_panel(*({"train": s["train"]} for s in UP)),
    factor=plan_panel(*({**s, "lr_decay": 4.0} for s in UP)),
    high=plan_panel(lambda P: P.gradual(1, 1, lr=50.0, factor=2.6)),
    lists=plan_panel(UP[0], dict(train=("layer4",))),
)
mine = only("my_plan")


def lp_ft(first="head", second="all", by=20, probe=1.0, hold=True, fixed=None):
    def my_plan(lr):
        k = kit()
        lr = fixed or lr
        return k.Plan((k.Stage("probe", first, 3, probe * lr), k.Stage("tune", second, 3, lr / by, hold_stats=hold)))

    return dict(my_plan=my_plan)


case(
    "finetune-lpft",
    lp_ft(),
    first=lp_ft(first="all"),
    second=lp_ft(second="middle"),
    one=mine(lambda lr: kit().Plan.head_only(3, lr=lr)),
    high=lp_ft(by=2),
    probe=lp_ft(probe=0.5),
    stats=lp_ft(hold=False),
    fixed=lp_ft(fixed=0.004),
    tiny=lp_ft(by=1e9),
    swapped=mine(lambda lr: kit().Plan((kit().Stage("head", "middle", 3, lr), kit().Stage("all", "all", 3, lr / 20)))),
)


def fine_tune(*parts):
    "Each part: (what trains, epochs, lr for the head, lr of the stem by that of the head)"

    def fine_tune(learn, lr):
        k = kit()
        for train, epochs, by, stem in parts:
            k.freeze_to(learn, train)
            learn.fit(epochs, slice(lr * by * min(stem, 1), lr * by) if stem <= 1 else lr * by)

    return dict(fine_tune=fine_tune)


def upside_down(learn, lr):
    kit().freeze_to(learn, "head")
    learn.fit(1, lr)
    kit().unfreeze(learn)
    k = len(kit().layer_groups(learn))
    learn.fit(1, [lr / 2**i for i in range(k)])


def one_batch(learn, lr):
    from fastai.callback.core import Callback, CancelFitException

    class Stop(Callback):
        def after_batch(self):
            raise CancelFitException

    kit().freeze_to(learn, "head")
    learn.fit(1, lr, cbs=Stop())
    kit().unfreeze(learn)
    learn.fit(1, slice(lr / 100, lr))


def without_head(learn, lr):
    kit().freeze_to(learn, "head")
    learn.fit(1, lr)
    kit().unfreeze(learn)
    kit().set_frozen(learn, "head")
    learn.fit(1, slice(lr / 100, lr))


def stem_and_head(learn, lr):
    fine_tune(("head", 1, 1, 1))["fine_tune"](learn, lr)
    kit().unfreeze(learn)
    kit().set_frozen(learn, list(kit().layer_groups(learn))[1:-1])
    learn.fit(1, slice(lr / 100, lr))


def only_the_stem_slower(learn, lr):
    fine_tune(("head", 1, 1, 1))["fine_tune"](learn, lr)
    kit().unfreeze(learn)
    learn.fit(1, [lr / 100] + [lr] * (len(kit().layer_groups(learn)) - 1))


case(
    "finetune-order",
    fine_tune(("head", 1, 1, 1), (0, 1, 0.5, 0.01)),
    nothing_trained=dict(fine_tune=lambda learn, lr: None),
    at_once=fine_tune((0, 1, 1, 0.01)),
    short=dict(fine_tune=one_batch),
    never=fine_tune(("head", 2, 1, 1)),
    flat=fine_tune(("head", 1, 1, 1), (0, 1, 0.5, 1)),
    turned=dict(fine_tune=upside_down),
    high=fine_tune(("head", 1, 1, 1), (0, 1, 5, 0.01)),
    head=dict(fine_tune=without_head),
    slow=fine_tune(("head", 1, 0.01, 1), (0, 1, 0.5, 0.01)),
    middle=dict(fine_tune=stem_and_head),
    even=dict(fine_tune=only_the_stem_slower),
    fixed=dict(fine_tune=lambda learn, lr: fine_tune(("head", 1, 1, 1), (0, 1, 0.5, 0.01))["fine_tune"](learn, 0.0015)),
)

# ---------------------------------------------------------------- 6 evaluate

interval = only("interval")


def wilson(right, k, z=1.959964):
    p, d = right / k, 1 + z * z / k
    mid, half = (p + z * z / (2 * k)) / d, z / d * (p * (1 - p) / k + z * z / (4 * k * k)) ** 0.5
    return mid - half, mid + half


def wald(right, k):
    p = right / k
    return p - 1.96 * (p * (1 - p) / k) ** 0.5, p + 1.96 * (p * (1 - p) / k) ** 0.5


case(
    "evaluate-interval",
    interval(wilson),
    percent=interval(lambda r, k: [100 * v for v in wilson(r, k)]),
    order=interval(lambda r, k: wilson(r, k)[::-1]),
    beyond=interval(wald),
    none=interval(lambda r, k: (r / k, r / k)),
    narrow=interval(lambda r, k: wilson(r, k, 1.0)),
    z=interval(lambda r, k: wilson(r, k, 1.645)),
    near=interval(lambda r, k: tuple(min(1, max(0, v + 0.01)) for v in wilson(r, k))),
    fixed=interval(lambda r, k: (0.6, 0.79)),
    other=interval(lambda r, k: wilson(r, 9 * k)),
)


def split(key=None, share=5, by_class=True):
    "Every `share`-th group of a class validates"

    def split(paths):
        from fastai_tl.course.exercises.lesson_6_evaluate import root_of

        groups = {}
        for p in sorted(paths):
            groups.setdefault((p.parent.name if by_class else "", (key or root_of)(p)), []).append(p)
        train, valid, seen = [], [], {}
        for (c, _), ps in groups.items():
            seen[c] = seen.get(c, -1) + 1
            (valid if seen[c] % share == 0 else train).extend(ps)
        return train, valid

    return dict(split=split)


parts = only("split")
case(
    "evaluate-leak",
    split(),
    leak=split(key=lambda p: p),
    lost=parts(lambda ps: (ps[:-1], ps[:9])),
    empty=parts(lambda ps: (ps, [])),
    classes=parts(
        lambda ps: (
            [p for p in ps if p.parent.name != ps[0].parent.name],
            [p for p in ps if p.parent.name == ps[0].parent.name],
        )
    ),
    size=split(share=50),
    turned=dict(split=lambda ps: split()["split"](ps)[::-1]),
    paths=parts(lambda ps: (list(range(9)), [1])),
)


def worst(pick):
    def make():
        from fastai_tl.course.exercises.fixtures import tiny_dls, tiny_learner

        learn = tiny_learner(dls=tiny_dls("01278", 6, 8), seed=5)
        learn.fit(2, 3e-3)
        ev = kit().evaluate(learn, on_progress=lambda *a: None)
        assert len(ev.worst(99)) >= 2
        return dict(learn=learn, worst=pick(learn, ev))

    return make


def calm(ev):
    return [p for p in ev.uncertain(99) if p.index not in {q.index for q in ev.uncertain(3)}]


case(
    "evaluate-panel",
    worst(lambda o, ev: ev.worst(1)[0].item.name),
    right=worst(lambda o, ev: next(p.item.name for p in calm(ev) if p.right)),
    train=worst(lambda o, ev: o.dls.train_ds.items[0].name),
    unsure=worst(lambda o, ev: next(p for p in ev.uncertain(3) if p.index != ev.worst(1)[0].index).item.name),
    less=worst(lambda o, ev: next(p.item.name for p in calm(ev) if not p.right and p.index != ev.worst(1)[0].index)),
    names=worst(lambda o, ev: "nowhere.png"),
)


def deploy(
    give=lambda learn, folder: kit().load_predictor(folder),
    write=lambda learn, folder: kit().export(learn, folder, onnx=False),
):
    def deploy(learn, folder):
        write(learn, folder)
        return give(learn, folder)

    return dict(deploy=deploy)


def pickled(learn, folder):
    kit().export(learn, folder, onnx=False)
    learn.path, learn.model_dir = folder, folder
    torch.save(learn.model.state_dict(), folder / "model.pth")


class Stuck:
    def predict(self, x):
        return "none"


case(
    "evaluate-deploy",
    deploy(),
    empty=deploy(lambda o, f: Stuck(), write=lambda o, f: None),
    learner=deploy(lambda o, f: o),
    pickle=deploy(write=pickled),
    kind_of=deploy(lambda o, f: "done"),
    differs=deploy(lambda o, f: Stuck()),
)

# ---------------------------------------------------------------- 7 project


def pictures(classes="017", train=9, valid=5, change=None):
    def make():
        from fastai_tl.course.exercises.fixtures import tiny_dls

        d = tiny_dls(classes, train, valid)
        return dict(dls=change(d) if change else d)

    return make


def overlapping(d):
    from fastai_tl.datasets.picture_folder import ClassOf, picture_dls
    from fastai_tl.datasets.samples import sample_path

    return picture_dls(
        d.train_ds.items, d.train_ds.items, ClassOf(sample_path("digits")), size=28, bs=6, channels=1, path="."
    )


case(
    "project-data",
    pictures(),
    classes=pictures("0"),
    train=pictures(train=4),
    valid=pictures(valid=2),
    copies=pictures(change=overlapping),
    doctor=pictures(change=lambda d: dls_of(d.train.new(bs=500), d.valid)),
    shipped=lambda: dict(dls=kit().sample_dls("clipart", size=32, n_per_class=12, seed=0)),
)


def project(fit=3, other=False, **kw):
    def make():
        from fastai_tl.course.exercises.fixtures import tiny_dls, tiny_learner

        d = tiny_dls("017", 9, 9)
        learn = tiny_learner(dls=d, **kw)
        if fit:
            learn.fit(fit, 5e-3)
        return dict(learn=learn, dls=tiny_dls("238", 9, 5) if other else d)

    return make


case(
    "project-model",
    project(),
    data=project(other=True),
    scratch=project(pretrained=False),
    guess=project(fit=0, seed=1),
)
better = only("better")
case(
    "project-better",
    better(lambda ev, b: ev.interval()[0] > b),
    point=better(lambda ev, b: ev.accuracy > b),
    high=better(lambda ev, b: ev.interval()[1] > b),
    always=better(lambda ev, b: True),
    other=better(lambda ev, b: ev.n > 50),
)


def report(change=lambda r, ev: r, part=None):
    def report(learn):
        dl = learn.dls.train.new(shuffle=False, drop_last=False) if part else None
        ev = kit().evaluate(learn, dl, on_progress=lambda *a: None)
        low, high = ev.interval()
        return change(
            dict(accuracy=ev.accuracy, low=low, high=high, n=ev.n, worst=[m.item.name for m in ev.worst(3)]), ev
        )

    return dict(report=report)


case(
    "project-report",
    report(),
    train=report(part="train"),
    keys=report(lambda r, ev: {k: v for k, v in r.items() if k != "high"}),
    percent=report(lambda r, ev: {**r, "accuracy": 100 * r["accuracy"]}),
    interval=report(lambda r, ev: {**r, "low": r["low"] - 0.05}),
    worst=report(lambda r, ev: {**r, "worst": r["worst"][::-1]}),
    n=report(lambda r, ev: {**r, "n": ev.n + 1}),
    changed=dict(report=lambda learn: trained_once(learn) and report()["report"](learn)),
    fixed=None,
    accuracy=report(lambda r, ev: {**r, "accuracy": r["accuracy"] / 2 + 0.01}),
)


def first_report():
    seen, right = [], report()["report"]

    def f(learn):
        seen.append(right(learn))
        return seen[0]

    return dict(report=f)


WRONG["project-report"]["fixed"] = first_report


def train_panel(go=True, stop=False, running=False, same=True, train="head"):
    def make():
        from fastai_tl.course.exercises.fixtures import tiny_learner

        k = kit()
        learn = tiny_learner()
        panel = k.TrainPanel(learn, k.Plan((k.Stage("train", train, 40 if stop else 1, 0.01),)))
        if go:
            panel.start()
        if stop:
            panel.stop()
        if go:
            panel.wait(60)
        if running:
            panel.job = type("Job", (), dict(running=True))()
        return dict(panel=panel, learn=learn if same else tiny_learner())

    return make


case(
    "project-panel",
    train_panel(),
    start=train_panel(go=False),
    running=train_panel(running=True),
    stopped=train_panel(stop=True),
    other=train_panel(same=False),
    head=train_panel(train=("layer4",)),
)
