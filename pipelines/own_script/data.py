"""Two clouds of points, drawn with a seed: a CSV with columns x, y, label."""

import argparse
import random

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--rows", type=int, required=True)
parser.add_argument("--seed", type=int, required=True)
parser.add_argument("--out", required=True)
options = parser.parse_args()

draw = random.Random(options.seed)
with open(options.out, "w") as file:
    file.write("x,y,label\n")
    for row in range(options.rows):
        label = row % 2
        x, y = draw.gauss(2 * label, 1), draw.gauss(-label, 1)
        file.write(f"{x:.6f},{y:.6f},{label}\n")
