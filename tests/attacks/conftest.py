import json
import time
from pathlib import Path

import pytest

RESULTS = Path(__file__).parent.parent.parent / "benchmarks" / "results"


@pytest.fixture
def counts(request, capsys):
    """`counts(file, subject, **numbers)` prints what was tried; the long tests (mark `attacks`) write it into
    `benchmarks/results/attacks_FILE.json`, from which the page "What was tried against it" is made
    """
    start = time.monotonic()

    def f(file, subject, **numbers):
        with capsys.disabled():
            print(f"\n{subject}: " + ", ".join(f"{v:,} {k.replace('_', ' ')}" for k, v in numbers.items()))
        if request.node.get_closest_marker("attacks"):
            path = RESULTS / f"attacks_{file}.json"
            rows = json.loads(path.read_text()) if path.exists() else {}
            rows[subject] = {**numbers, "seconds": round(time.monotonic() - start)}
            path.write_text(json.dumps(dict(sorted(rows.items())), indent=1) + "\n")

    return f
