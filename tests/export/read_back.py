#!/usr/bin/env python3
"""Exports the latest run of the working directory's project and reads it back by the real packages.

    tests/export/read_back.py PIPE

What TensorBoard and MLflow say of the run must be what `pipe show --json` and `runs.db` say.
MLflow reads the exported folder twice: as a file store, and after its own migration to SQLite.
"""

import json, math, os, pathlib, sqlite3, subprocess, sys, tempfile

os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"  # since MLflow 3.13 file stores are for migration
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

import mlflow, numpy, tensorboard
from mlflow.tracking import MlflowClient
from tensorboard.backend.event_processing import plugin_event_multiplexer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata as hparams
from tensorboard.util import tensor_util


def check(what, found, wanted):
    assert found == wanted, f"{what}: {found!r} is not {wanted!r}"


def same(a, b):
    return a == b or (a is None and math.isnan(b))


def tensorboard_says(folder, run, finals, steps, histograms):
    accumulator = EventAccumulator(str(folder / run["run"]), size_guidance={"scalars": 0})
    accumulator.Reload()
    tags = set(accumulator.Tags()["scalars"])
    for (stage, metric), value in finals.items():
        tag = f"{stage}/{metric}"
        tag = f"{tag}/final" if f"{tag}/final" in tags else tag
        (event,) = accumulator.Scalars(tag)
        assert same(None if value is None else numpy.float32(value), event.value), f"{tag}: {event.value} for {value}"
    for (stage, metric), points in steps.items():
        found = [(event.step, event.value) for event in accumulator.Scalars(f"{stage}/{metric}")]
        check(f"{stage}/{metric}", found, [(step, numpy.float32(value)) for step, value in points])

    # What the web pages are served from.
    multiplexer = plugin_event_multiplexer.EventMultiplexer(tensor_size_guidance={}, size_guidance={"tensors": 0})
    multiplexer.AddRunsFromDirectory(str(folder)).Reload()
    check("runs", list(multiplexer.Runs()), [run["run"]])
    content = multiplexer.PluginRunToTagToContent
    told = 0
    for tag in content("histograms")[run["run"]]:
        for event in multiplexer.Tensors(run["run"], tag):
            bins = tensor_util.make_ndarray(event.tensor_proto)
            edges, counts = histograms[tag.replace("/", ".", 1), event.step]
            check(tag, bins.tolist(), [list(it) for it in zip(edges, edges[1:], counts)])
            told += 1
    check("histograms", told, len(histograms))
    (event,) = multiplexer.Tensors(run["run"], "pipeline")
    assert b"```yaml" in tensor_util.make_ndarray(event.tensor_proto).item()
    start = hparams.parse_session_start_info_plugin_data(content("hparams")[run["run"]][hparams.SESSION_START_INFO_TAG])
    for stage in run["stages"]:
        for name, value in stage["params"].items():
            if type(value) in (int, float):
                check(f"hparam {stage['stage']}.{name}", start.hparams[f"{stage['stage']}.{name}"].number_value, value)
    end = hparams.parse_session_end_info_plugin_data(content("hparams")[run["run"]][hparams.SESSION_END_INFO_TAG])
    check("status", end.status, 1)
    print(f"tensorboard {tensorboard.__version__}: {len(finals)} final values, {len(steps)} series, "
          f"{told} histograms, {len(start.hparams)} hyper-parameters")


def mlflow_says(how, uri, run, finals, steps):
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(run["pipeline"])
    (found,) = client.search_runs([experiment.experiment_id])
    check("name", found.info.run_name, run["run"])
    check("status", found.info.status, "FINISHED")
    check("command", found.data.tags["mlflow.source.name"], "pipe " + " ".join(run["command"]))
    for (stage, metric), value in finals.items():
        name = f"{stage}.{metric}"
        written = found.data.metrics.get(f"{name}.final", found.data.metrics[name])
        assert same(value, written), f"{name}: {written} for {value}"
    for (stage, metric), points in steps.items():
        history = client.get_metric_history(found.info.run_id, f"{stage}.{metric}")
        check(f"{stage}.{metric}", sorted((it.step, it.value) for it in history), points)
    for stage in run["stages"]:
        for name, value in stage["params"].items():
            if not isinstance(value, dict):
                text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
                if not isinstance(value, float):
                    check(f"{stage['stage']}.{name}", found.data.params[f"{stage['stage']}.{name}"], text)
    folder = client.download_artifacts(found.info.run_id, "pipeline.yaml")
    assert "kind: " in pathlib.Path(folder).read_text()
    print(f"mlflow {mlflow.__version__} ({how}): {len(found.data.metrics)} metrics, {len(steps)} series, "
          f"{len(found.data.params)} parameters, {len(found.data.tags)} tags")


def main(pipe):
    def say(*arguments):
        return subprocess.run([pipe, *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout

    run = json.loads(say("show", "@last", "--json"))
    finals = {(stage["stage"], metric): value
              for stage in run["stages"] for metric, value in stage["execution"]["metrics"].items()}
    database = sqlite3.connect("file:runs.db?mode=ro", uri=True)
    number = int(run["run"].removeprefix("run_"))
    steps, histograms = {}, {}
    sql = "SELECT stage, metric, step, value FROM metric WHERE run = ? AND step IS NOT NULL ORDER BY step"
    for stage, metric, step, value in database.execute(sql, [number]):
        steps.setdefault((stage, metric.removeprefix(f"{stage}.")), []).append((step, value))
    for metric, step, edges, counts in database.execute(
            "SELECT metric, step, edges, counts FROM histogram WHERE run = ?", [number]):
        histograms[metric, step] = json.loads(edges), json.loads(counts)
    assert finals and steps and histograms, "the latest run measured something of each form"
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        say("export", "@last", "--to", "tensorboard", "--out", str(folder / "tensorboard"))
        tensorboard_says(folder / "tensorboard", run, finals, steps, histograms)
        say("export", "@last", "--to", "mlflow", "--out", str(folder / "mlruns"))
        mlflow_says("file store", (folder / "mlruns").as_uri(), run, finals, steps)
        target = f"sqlite:///{folder}/mlflow.db"
        command = [sys.executable, "-m", "mlflow", "migrate-filestore", "--source", folder / "mlruns", "--target", target]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        mlflow_says("migrated to SQLite", target, run, finals, steps)


if __name__ == "__main__":
    main(*sys.argv[1:])
