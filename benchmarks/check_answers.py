"""How often are the checks of the course wrong? Every answer in `tests/course/answers`, those of
`tests/course/lesson_cases.py`, and every choice and slider, judged; a table by exercise.

Run: python benchmarks/check_answers.py [EXERCISE ...]   (writes benchmarks/results/check_answers.json without names)

An answer is text, as a student would type it. `#== NAME` begins an exercise, `#= setup` what its cells share, `#= R …`
a right answer in a style of its own, `#= W …` a wrong one. They are written from the texts of the lessons. "Hint named"
counts the wrong answers that are told a mistake of the exercise by name, and not only that something is off.
"""

import json
import re
import sys
import time
import warnings
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ANSWERS = ROOT / "tests" / "course" / "answers"
VAGUE = {"other", "kind", "error", "nothing", "unsolved"}
warnings.filterwarnings("ignore")


def read_answers(folder: Path = ANSWERS) -> list[tuple[str, str, str, str, str]]:
    "(exercise, 'R' or 'W', what it is, setup, code) of every answer"
    out = []
    for f in sorted(folder.glob("*.txt")):
        for part in re.split(r"^#== ", f.read_text(encoding="utf-8"), flags=re.M)[1:]:
            name, _, body = part.partition("\n")
            setup = ""
            for block in re.split(r"^#= ", body, flags=re.M)[1:]:
                head, _, code = block.partition("\n")
                if head.strip() == "setup":
                    setup = code
                else:
                    out.append((name.strip(), head[0], head[1:].strip(), setup, code))
    return out


def namespace(setup: str, code: str) -> dict:
    "The names of a notebook in which the cells have run; an answer that stops with an error leaves what it has made"
    import contextlib
    import io

    ns = {"__name__": "answer"}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(setup, "<setup>", "exec"), ns)
        try:
            exec(compile(code, "<answer>", "exec"), ns)
        except Exception as e:
            ns["_error"] = e
    return ns


def texts(only):
    from fastai_tl.course.grading import judge

    for name, kind, what, setup, code in read_answers():
        if not only or name in only:
            yield name, kind, what, judge(name, namespace(setup, code))


def cases(only):
    sys.path.insert(0, str(ROOT / "tests" / "course"))
    from lesson_cases import RIGHT, SEEDS, WRONG

    from fastai_tl.course.grading import judge

    made = lambda o: o() if callable(o) else o
    for name, right in RIGHT.items():
        if only and name not in only:
            continue
        yield name, "R", "solution", judge(name, made(right))
        for m, wrong in WRONG[name].items():
            yield name, "W", m, judge(name, made(wrong), seed=SEEDS.get((name, m)))


def questions(only):
    from fastai_tl.course.grading import judge
    from fastai_tl.course.questions import QUESTIONS, ChoiceQuestion, QuestionBox, variable

    for name, q in QUESTIONS.items():
        if only and name not in only:
            continue
        for seed in (0, 3):
            box = QuestionBox(q, seed)
            if isinstance(q, ChoiceQuestion):
                tries = [("R" if c.right else "W", c.key) for c in q.choices]
            else:
                truth = q.truth(box.facts)
                wrongs = [v for _, f, _ in q.wrong if f and abs((v := f(box.facts)) - truth) > q.tol]
                wrongs += [q.low, q.high, q.truth(q.facts(seed + 1)), truth + 3 * q.tol, truth - 3 * q.tol]
                tries = [("R", truth)] + [("W", v) for v in wrongs if abs(v - truth) > q.tol]
            for kind, v in tries:
                box.value = v
                yield name, kind, str(v), judge(name, {variable(name): box}, seed=seed)
                if kind == "R" and not isinstance(q, ChoiceQuestion):
                    yield name, "W", f"bare {v}", judge(name, {variable(name): v}, seed=seed)


def table(only=(), say=print):
    "Counts by exercise, and every verdict that is wrong"
    from fastai_tl.course.lessons import LESSONS, load_exercises

    for o in LESSONS:
        load_exercises(o.name)
    rows, bad, slowest = defaultdict(lambda: dict(right=0, accepted=0, wrong=0, refused=0, named=0)), [], 0
    for source in (texts, cases, questions):
        t = time.perf_counter()
        for name, kind, what, v in source(only):
            r = rows[name]
            r["right" if kind == "R" else "wrong"] += 1
            r["accepted" if kind == "R" else "refused"] += v.passed if kind == "R" else not v.passed
            r["named"] += kind == "W" and not v.passed and v.mistake not in VAGUE
            if v.passed != (kind == "R"):
                bad.append((name, kind, what, v.text))
                say(f"WRONG VERDICT  {name}: {kind} {what}: {v.text}", flush=True)
            slowest, t = max(slowest, time.perf_counter() - t), time.perf_counter()
    return dict(rows), bad, slowest


def main():
    rows, bad, slowest = table(sys.argv[1:])
    total = {k: sum(r[k] for r in rows.values()) for k in next(iter(rows.values()))}
    print(f"{'exercise':20} {'right':>6} {'accepted':>9} {'wrong':>6} {'refused':>8} {'hint named':>11}")
    for name, r in [*sorted(rows.items()), ("all", total)]:
        print(f"{name:20} {r['right']:6} {r['accepted']:9} {r['wrong']:6} {r['refused']:8} {r['named']:11}")
    print(
        f"{total['right'] + total['wrong']} answers; {total['wrong'] - total['refused']} wrong ones pass, "
        f"{total['right'] - total['accepted']} right ones fail; slowest {slowest:.1f} s"
    )
    if not sys.argv[1:]:
        out = dict(rows=rows, total=total, wrong_verdicts=bad)
        (ROOT / "benchmarks/results/check_answers.json").write_text(json.dumps(out, indent=1) + "\n")


if __name__ == "__main__":
    main()
