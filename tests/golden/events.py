#!/usr/bin/env python3
"""Writes finetune/tensorboard.events: what src/jobs/finetune/report/tensorboard.rs must write, made with TensorBoard's own messages and
its own writer, and read back with its own reader, also with the file of a second attempt behind it.

    pip install tensorboard==2.21.0
    python -P tests/golden/events.py    (next to it lies a file that is called as a module of Python)
"""

import pathlib
import tempfile

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.summary.writer.record_writer import RecordWriter

OUT = pathlib.Path(__file__).resolve().parent / "finetune" / "tensorboard.events"
BEGAN, TOLD = 1_700_000_000.25, 1_700_000_001.5

STEP = {"gradient_norm": 1.25, "learning_rate": 2e-4, "tokens_per_s": 2000.0, "memory_bytes": float(1 << 30), "device_use": 0.75}
PREFERENCES = {"preference_accuracy": 0.75, "margin": 0.75}
RECORDS = [
    (1, "train", {"loss": 2.5} | STEP),
    (2, "train", {"loss": 2.25} | STEP),
    (2, "validation", {"loss": 2.125, "perplexity": 8.375}),
    (300, "train", {"loss": 2.0} | STEP | PREFERENCES),
]


def first(step):
    session = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
    return [
        event_pb2.Event(wall_time=BEGAN, file_version="brain.Event:2"),
        event_pb2.Event(wall_time=BEGAN, step=step, session_log=session),
    ]


def event(step, group, scalars):
    values = [summary_pb2.Summary.Value(tag=f"{group}/{name}", simple_value=value) for name, value in scalars.items()]
    return event_pb2.Event(wall_time=TOLD, step=step, summary=summary_pb2.Summary(value=values))


def write(path, events):
    with open(path, "wb") as file:
        writer = RecordWriter(file)
        for each in events:
            writer.write(each.SerializeToString())


def read(folder):
    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return {tag: [(scalar.step, scalar.value) for scalar in accumulator.Scalars(tag)] for tag in accumulator.Tags()["scalars"]}


def main():
    write(OUT, first(1) + [event(*record) for record in RECORDS])
    with tempfile.TemporaryDirectory() as folder:
        name = "events.out.tfevents.1700000000.arriero."
        (pathlib.Path(folder) / f"{name}000").write_bytes(OUT.read_bytes())
        assert read(folder)["train/loss"] == [(1, 2.5), (2, 2.25), (300, 2.0)]
        assert read(folder)["validation/perplexity"] == [(2, 8.375)]
        # Goes on behind step 2: what was said of step 300 is forgotten.
        write(pathlib.Path(folder) / f"{name}001", first(3) + [event(3, "train", {"loss": 1.5})])
        assert read(folder)["train/loss"] == [(1, 2.5), (2, 2.25), (3, 1.5)], read(folder)


if __name__ == "__main__":
    main()
