"""Tables of rows"""

import math


def t_interval(values):
    "Mean of paired differences and half the width of its 95 % t-interval; `nan` for one value"
    from scipy.stats import t

    n = len(values)
    mean = sum(values) / n
    if n < 2:
        return mean, math.nan
    sd = math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1))
    return mean, float(t.ppf(0.975, n - 1)) * sd / math.sqrt(n)


def by_cell(rows):
    "Rows by (network, size, set), then method, then seed"
    out = {}
    for r in rows:
        out.setdefault((r["network"], r["size"], r["set"]), {}).setdefault(r["method"], {})[r["seed"]] = r
    return out


def paired(cell, a, b):
    "Test accuracy of `a` minus that of `b` in points, for each seed that both have"
    return [100 * (cell[a][s]["test"] - cell[b][s]["test"]) for s in sorted(set(cell[a]) & set(cell[b]))]


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def table(cell, reference="our default"):
    """One line a method, the best first: mean test accuracy, difference to the reference in points, seeds paired, with
    its interval from three seeds on, processor seconds
    """
    gain = {m: mean(d) for m in cell if (d := paired(cell, m, reference) if reference in cell else [])}
    out = []
    for m in sorted(cell, key=lambda m: -gain.get(m, -100)):
        d = paired(cell, m, reference) if m in gain and m != reference else []
        mid, half = t_interval(d) if d else (0, 0)
        said = (f"{mid:+5.1f}" + (f" ± {half:4.1f}" if len(d) > 2 else "")) if d else ""
        by_seed = cell[m].values()
        out.append(
            f"  {m:26s}{100 * mean(r['test'] for r in by_seed):5.1f} %  {said:14s}"
            f"{mean(r['seconds'] for r in by_seed):7.1f} s  {len(by_seed)} seed{'s' * (len(by_seed) > 1)}"
        )
    return out


def text(rows):
    "A table for each network, size and set"
    out = []
    for (network, size, name), cell in by_cell(rows).items():
        first = next(iter(next(iter(cell.values())).values()))
        out.append(f"\n{network}, {size} px, {name}: {first['n_train']} train, {first['n_test']} test")
        out += table(cell)
    return "\n".join(out)


def summary(rows):
    "Mean accuracy on the test part, 0..1, by method: one row for each network, size and set"
    return [
        dict(network=network, size=size, set=name)
        | {m: round(mean(r["test"] for r in by_seed.values()), 4) for m, by_seed in cell.items()}
        for (network, size, name), cell in by_cell(rows).items()
    ]
