"""Write the lessons that the package ships, from the solution notebooks in nbs/lessons: copies for students, and the
pages beside them. The solutions stay in nbs/lessons: students install the package.

Run: python tools/make_lessons.py
"""

import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE, TARGET = ROOT / "nbs" / "lessons", ROOT / "fastai_tl" / "data" / "lessons"


def lesson_files() -> dict[str, str]:
    "Text of each file below `TARGET`, by its path there"
    sys.path.insert(0, str(ROOT))
    from fastai_tl.course.student_notebooks import notebook_text, read_notebook, student_copy

    out = {}
    for p in sorted(SOURCE.glob("*.ipynb")):
        nb = read_notebook(p)
        out[p.name] = notebook_text(student_copy(nb, p.name))
    return out | {p.name: p.read_text(encoding="utf-8") for p in sorted(SOURCE.glob("*.md"))}


def lessons_now() -> dict[str, str]:
    "The same for what is there"
    return {
        p.relative_to(TARGET).as_posix(): p.read_text(encoding="utf-8")
        for p in sorted(TARGET.rglob("*"))
        if p.suffix in (".ipynb", ".md") and ".ipynb_checkpoints" not in p.parts
    }


def main():
    files = lesson_files()
    shutil.rmtree(TARGET, ignore_errors=True)
    for name, text in files.items():
        (TARGET / name).parent.mkdir(parents=True, exist_ok=True)
        (TARGET / name).write_text(text, encoding="utf-8")
    print(f"{len(files)} files written to {TARGET.relative_to(ROOT)}.")


if __name__ == "__main__":
    main()
