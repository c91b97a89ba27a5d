"""Parts of `date rehearse`: children and their deadline, samples, experiments, order, lines."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from date.catalogue import Dataset, load, load_tier
from date.errors import UserError
from date.experiments.fragments import schedule_fragment
from date.planning.durations import kind
from date.rehearsal import children
from date.rehearsal.experiments import _schedule, steps_and_epochs
from date.rehearsal.machine import Machine
from date.rehearsal.network import Measured, StageFailedError, _check_resumed, count_parameters, last_words
from date.rehearsal.rehearsal import Rehearsal, Result, kinds_first
from date.rehearsal.sample import Sample, Wanted, choose, take_sample


def soon() -> float:
    return time.monotonic() + 60


# ------------------------------------------------------------------------------------------------------- children


def test_a_child_leaves_its_status_and_its_words(tmp_path: Path) -> None:
    log, out = tmp_path / "log", tmp_path / "out"

    def work() -> int:
        print("to the file")
        print("to the log", file=sys.stderr)
        return 3

    assert children.run(work, log, soon(), out) == 3
    assert (out.read_text(), log.read_text()) == ("to the file\n", "to the log\n")
    assert children.run(lambda: None, log, soon()) == 0
    assert children.run(lambda: 1 // 0, log, soon()) == 1
    assert "ZeroDivisionError" in log.read_text()


@pytest.mark.timed
def test_a_child_is_killed_with_its_own_children_when_told_or_late(tmp_path: Path) -> None:
    pid = tmp_path / "pid"

    def work() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        grandchild = subprocess.Popen(["sleep", "600"])
        pid.write_text(str(grandchild.pid))
        time.sleep(600)

    def gone() -> bool:
        try:
            return Path(f"/proc/{pid.read_text()}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
        except FileNotFoundError:
            return True

    assert children.run(work, tmp_path / "log", soon(), until=lambda: pid.exists() and bool(pid.read_text())) is None
    end = soon()
    while not gone():
        assert time.monotonic() < end
    began = time.monotonic()
    with pytest.raises(children.TimeIsUpError):
        children.run(work, tmp_path / "log", began + 0.3)
    assert 0.3 <= time.monotonic() - began < 30


# ------------------------------------------------------------------------------------------------------- samples


@given(st.integers(1, 40), st.lists(st.integers(1, 30), min_size=1, max_size=3))
def test_chosen_places_are_as_many_as_there_are_and_apart_where_there_is_room(number: int, counts: list[int]) -> None:
    chosen = choose(number, counts)
    assert [len(part) for part in chosen] == [min(number, count) for count in counts]
    assert all(part == sorted(set(part)) and part[0] >= 0 and part[-1] < number for part in chosen)
    if sum(counts) <= number:
        assert len({place for part in chosen for place in part}) == sum(counts)
    assert chosen == choose(number, counts)


def test_a_sample_of_scenes_has_their_images_and_their_boxes(tmp_path: Path) -> None:
    from date.catalogue import load_dataset

    dataset = load_dataset("scenes-smoke")
    sample = take_sample(dataset, tmp_path / "data", tmp_path / "folder", Wanted(8, 5, 6, 32))
    assert sample == Sample("rehearsal-scenes-smoke", {"train": 24, "val": 8}, 8, 5, 6)
    (whole,) = (tmp_path / "data").glob("scenes-smoke-*/annotations/instances_train.json")
    everything = json.loads(whole.read_text())
    names = []
    for part in ("train", "loading"):
        content = json.loads((tmp_path / f"folder/data/rehearsal-scenes-smoke/{part}.json").read_text())
        ids = {image["id"] for image in content["images"]}
        assert content["annotations"] == [a for a in everything["annotations"] if a["image_id"] in ids]
        assert all(image in everything["images"] for image in content["images"])
        names += [image["file_name"] for image in content["images"]]
    assert len(set(names)) == 14
    entry = json.loads((tmp_path / "folder/datasets/rehearsal-scenes-smoke.yaml").read_text())
    assert Dataset.model_validate({"name": "x"} | entry).classes == dataset.classes
    assert all((Path(entry["train"]["images"]) / name).is_file() for name in names)


def test_a_sample_of_crowdhuman_has_its_lines_and_none_without_people_to_train_on(tmp_path: Path) -> None:
    import cv2
    import numpy as np

    folder = tmp_path / "data" / "crowd"
    (folder / "Images").mkdir(parents=True)
    for split, number in (("train", 12), ("val", 4)):
        lines = []
        for image in range(number):
            cv2.imwrite(str(folder / f"Images/{split}{image}.jpg"), np.zeros((50, 60, 3), np.uint8))
            box = {
                "tag": "mask" if image % 3 == 0 else "person",
                "fbox": [1, 2, 10, 20],
                "vbox": [1, 2, 9, 9],
                "hbox": [1, 2, 3, 4],
            }
            lines.append(json.dumps({"ID": f"{split}{image}", "gtboxes": [box]}))
        (folder / f"{split}.odgt").write_text("\n".join(lines) + "\n")
    splits = {s: {"annotations": f"{s}.odgt", "images": "Images"} for s in ("train", "val")}
    dataset = Dataset.model_validate(
        {
            "name": "crowd",
            "classes": ["person"],
            "format": "crowdhuman",
            "protocol": "crowdhuman",
            "root": "crowd",
            **splits,
        }
    )
    sample = take_sample(dataset, tmp_path / "data", tmp_path / "folder", Wanted(5, 3, 5, 32))
    assert (sample.train, sample.val, sample.loading) == (5, 3, 5)
    chosen = (tmp_path / "folder/data/rehearsal-crowd/train.odgt").read_text().splitlines()
    assert all(line in (folder / "train.odgt").read_text().splitlines() and "mask" not in line for line in chosen)


def test_a_dataset_that_is_not_there_is_the_sentence_of_the_data(tmp_path: Path) -> None:
    from date.catalogue import load_dataset

    with pytest.raises(UserError, match="is not complete below"):
        take_sample(load_dataset("coco2017"), tmp_path, tmp_path / "folder", Wanted(8, 5, 6, 32))


# ------------------------------------------------------------------------------------------------------- experiments


@pytest.mark.parametrize("name", ["12e", "36e", "30k", "30k_crowdhuman", "defcn_3x"])
def test_a_rehearsed_schedule_differs_in_its_length_alone(name: str, tmp_path: Path) -> None:
    found: dict[str, Any] = {}
    exec(_schedule(name, 3), found)
    real = schedule_fragment(name)
    assert found["epochs"] == 3
    for key in ("train_pipeline", "test_pipeline", "optim_wrapper", "modules"):
        assert found.get(key) == real.get(key)
    assert "iterations" not in found


def test_an_epoch_is_short_and_there_are_twenty_steps() -> None:
    def sampled(images: int) -> Sample:
        return Sample("x", {}, images, 50, 640)

    assert steps_and_epochs(sampled(160), 16) == (10, 2)
    assert steps_and_epochs(sampled(24), 4) == (6, 4)
    assert steps_and_epochs(sampled(3), 4) == (1, 20)
    assert steps_and_epochs(sampled(1000), 4) == (250, 2)


def test_every_kind_of_network_comes_before_other_schedules() -> None:
    trainings = load().chosen(load_tier("paper"))
    chosen = kinds_first(trainings)
    kinds = len({kind(t) for t in trainings})
    assert len({kind(t) for t in chosen[:kinds]}) == kinds
    assert {(kind(t), t.schedule) for t in chosen} == {(kind(t), t.schedule) for t in trainings}
    assert len(chosen) == len({(kind(t), t.schedule) for t in trainings})


# ------------------------------------------------------------------------------------------------------- networks


def test_parameters_are_counted_without_buffers(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(4, 2))
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    assert count_parameters(tmp_path / "w.safetensors") == sum(p.numel() for p in model.parameters())


def test_the_last_words_are_the_users_sentence_or_the_last_line(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("step 1\nerror: the disk is full; make room.\nbye\n")
    assert last_words(log) == "the disk is full; make room."
    log.write_text("Traceback\nValueError: what\n\n")
    assert last_words(log) == "ValueError: what"


@pytest.mark.parametrize(
    "segments", [[("finished", 0)], [("killed", 0), ("finished", 0)], [("killed", 0), ("killed", 10), ("finished", 10)]]
)
def test_a_training_that_did_not_resume_is_a_failure(segments: list[tuple[str, int]], tmp_path: Path) -> None:
    recorded = [{"reason": reason, "from_step": step} for reason, step in segments]
    (tmp_path / "provenance.json").write_text(json.dumps({"segments": recorded}))
    with pytest.raises(StageFailedError, match="did not resume"):
        _check_resumed(tmp_path)


# ------------------------------------------------------------------------------------------------------- all of them


class Clock:
    """Stands for the module `time`."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


class Timed(Rehearsal):
    """Networks that take 100 seconds each, without any work."""

    clock: Clock

    def _rehearse(self, training: Any) -> Result:
        self.clock.now += 100
        return Result(training, failure="it burns")


def rehearsal(
    tmp_path: Path, kind: type[Rehearsal] = Rehearsal, minutes: float = 10, tier: str = "paper", **changes: Any
) -> Any:
    trainings = kinds_first(load().chosen(load_tier(tier)))
    given = {"command": lambda words: 0, "threads": None, "images_per_pass": None} | changes
    return kind(load_tier(tier), trainings, minutes, tmp_path / "runs", tmp_path / "results", **given)


def test_no_network_is_begun_that_would_take_too_long_and_the_rest_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Timed.clock = Clock()
    monkeypatch.setattr("date.rehearsal.rehearsal.time", Timed.clock)
    found = rehearsal(tmp_path, Timed, minutes=11)
    done = list(found.results_of_networks())
    assert len(done) == 6 and Timed.clock.now == 600
    left = len(found.trainings) - 6
    said = f"no time for {left} of {len(found.trainings)} networks (about {round(100 * left / 60)} minutes): the same"
    assert found.rest(done).startswith(said)
    assert found.rest([Result(t) for t in found.trainings]) is None


def test_a_network_that_the_end_came_upon_is_left_for_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = rehearsal(tmp_path)
    monkeypatch.setattr(found, "_rehearse", lambda training: Result(training, stopped=True))
    assert list(found.results_of_networks()) == []
    assert found.rest([]).startswith(f"no time for {len(found.trainings)} of {len(found.trainings)} networks: ")


MACHINE = Machine("a GPU", 24 * 1024, 8, 8, {})


def test_a_line_tells_speed_memory_and_data_and_what_to_do_where_data_are_late(tmp_path: Path) -> None:
    found = rehearsal(tmp_path)
    found.machine = MACHINE
    training = load().training("fcos-r50-coco-12e")
    measured = Measured(0.32, 0.01, 21_504, 32_000_000)
    line = found.line(Result(training, measured, 12.4), 20)
    assert line == "fcos-r50-coco-12e       50.0 images/s  21.0 of 24.0 GiB  data  12 %  ok"
    late = found.line(Result(training, measured, 150.0), 20)
    assert late.startswith(line.replace("data  12 %", "data 150 %")) and "a CPU each" in late
    assert found.line(Result(training, failure="it burns"), 20).endswith("FAILED: it burns")


def test_too_little_memory_has_a_number_of_images_that_fits(tmp_path: Path) -> None:
    training = load().training("date_r-r50-coco-12e")
    found = rehearsal(tmp_path)
    found.machine = Machine("a GPU", 12 * 1024, 8, 8, {})
    said = found._remedy(training, "memory ran out at step 1; let fewer images through")
    number = int(said.partition("--images-per-pass ")[2].split()[0])
    from date.planning.memory import RESERVED, memory

    assert memory(training, found.tier, number) <= 12 * 1024 - RESERVED < memory(training, found.tier, number + 1)
    found = rehearsal(tmp_path, images_per_pass=2)
    found.machine = Machine("a GPU", 2 * 1024, 8, 8, {})
    assert "--images-per-pass 1 " in found._remedy(training, "memory ran out at step 1")
    assert "log: " in found._remedy(training, "something else")


@pytest.mark.timed
def test_sigterm_ends_it_without_a_child_left(tmp_path: Path) -> None:
    script = (
        "import os, sys, time; from pathlib import Path; from date.rehearsal import children\n"
        "def work():\n    Path(sys.argv[1]).write_text(str(os.getpid())); time.sleep(600)\n"
        "with children.ended_politely():\n    children.run(work, Path(sys.argv[1] + '.log'), time.monotonic() + 600)\n"
    )
    pid = tmp_path / "pid"
    process = subprocess.Popen([sys.executable, "-c", script, str(pid)])
    end = soon()
    while not (pid.exists() and pid.read_text()):
        assert time.monotonic() < end
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)
