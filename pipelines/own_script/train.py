"""Logistic regression on a CSV of numbers whose last column is 0 or 1; the standard library alone."""

import argparse
import csv
import json
import math


def read(path):
    with open(path, newline="") as file:
        rows = [[float(value) for value in row] for row in list(csv.reader(file))[1:]]
    return [row[:-1] for row in rows], [row[-1] for row in rows]


def predict(weights, features):
    score = weights[0] + sum(weight * value for weight, value in zip(weights[1:], features))
    return 1 / (1 + math.exp(-score))


def loss(weights, rows, labels):
    total = 0.0
    for features, label in zip(rows, labels):
        probability = min(max(predict(weights, features), 1e-12), 1 - 1e-12)
        total -= label * math.log(probability) + (1 - label) * math.log(1 - probability)
    return total / len(rows)


def train(rows, labels, lr, epochs):
    weights = [0.0] * (len(rows[0]) + 1)
    losses = []
    for _ in range(epochs):
        gradient = [0.0] * len(weights)
        for features, label in zip(rows, labels):
            error = predict(weights, features) - label
            for at, value in enumerate([1.0, *features]):
                gradient[at] += error * value / len(rows)
        weights = [weight - lr * slope for weight, slope in zip(weights, gradient)]
        losses.append(loss(weights, rows, labels))
    return weights, losses


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", required=True)
    parser.add_argument("--test", required=True)
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--model", required=True)
    parser.add_argument("--metrics", required=True)
    options = parser.parse_args()

    weights, losses = train(*read(options.train), options.lr, options.epochs)
    rows, labels = read(options.test)
    right = sum((predict(weights, row) > 0.5) == (label > 0.5) for row, label in zip(rows, labels))
    print(f"loss {losses[-1]:.4f} after {options.epochs} epochs")

    with open(options.model, "w") as file:
        json.dump(weights, file)
    with open(options.metrics, "w") as file:
        json.dump({"loss": losses, "test": {"accuracy": right / len(rows), "rows": len(rows)}}, file)


main()
