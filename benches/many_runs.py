#!/usr/bin/env python3
"""Times `pipe runs`, `pipe compare` and `pipe report` on a database of many runs.

    cargo build --release && benches/many_runs.py [RUNS …]        # 1000 and 100000 unless given

A first run is made by `pipe` itself, so that the layout is its own; the others are copies of it with
20 metrics and a parameter of their own each. Wall time, best of five, file cache warm.
"""

import pathlib
import sqlite3
import subprocess
import sys
import tempfile
import time

PIPE = pathlib.Path(__file__).resolve().parent.parent / "target/release/pipe"
PIPELINE = 'stages:\n  train: { kind: shell, with: { command: "true", params: { rank: 1 } } }\n'


def fill(path: pathlib.Path, runs: int) -> None:
    database = sqlite3.connect(path)

    def copies(table: str, change) -> None:
        rows = database.execute(f"SELECT * FROM {table}")
        names = [column[0] for column in rows.description]
        first = dict(zip(names, rows.fetchone()))
        made = ({**first, **change(number)} for number in range(2, runs + 1))
        marks = ", ".join(f":{name}" for name in names)
        database.executemany(f"INSERT INTO {table} VALUES ({marks})", made)

    copies("run", lambda number: {"id": number})
    copies("execution", lambda number: {"id": number, "name": f"{number:032x}", "run": number})
    params = '{"params": {"rank": %d}}'
    copies("definition", lambda number: {"id": number, "hash": number.to_bytes(32, "big"), "params": params % number})
    copies("stage_record", lambda number: {"run": number, "definition": number, "execution": number})
    database.executemany("INSERT INTO metric_name VALUES (?, ?)", ((100 + at, f"m{at}") for at in range(20)))
    values = ((run, 100 + at, run / runs + at) for run in range(1, runs + 1) for at in range(20))
    database.executemany("INSERT INTO final_value VALUES (?, ?, ?)", values)
    database.commit()


def timed(root: str, *words: str) -> None:
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run([PIPE, *words, "--root", root], check=True, stdout=subprocess.DEVNULL)
        best = min(best, time.perf_counter() - start)
    print(f"  {best * 1e3:8.1f} ms  pipe {' '.join(words)}")


def main() -> None:
    for runs in [int(word) for word in sys.argv[1:]] or [1000, 100_000]:
        with tempfile.TemporaryDirectory() as root:
            pipeline = pathlib.Path(root, "pipelines", "p.yaml")
            pipeline.parent.mkdir()
            pipeline.write_text(PIPELINE)
            subprocess.run([PIPE, "run", pipeline], check=True, capture_output=True)
            fill(pathlib.Path(root, "runs.db"), runs)
            print(f"{runs} runs of 20 metrics")
            timed(root, "runs")
            timed(root, "runs", "--all")
            timed(root, "runs", "--where", "train.m3 > 3.5 and train.params.rank <= 700")
            timed(root, "runs", "--sort", "-train.m3", "--columns", "train.m3,train.m4")
            timed(root, "compare", "1", str(runs))
            timed(root, "report", "1", str(runs), "--out", str(pathlib.Path(root, "report.html")))


if __name__ == "__main__":
    main()
