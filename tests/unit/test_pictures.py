"""Pictures: which images are chosen, that recorded points are those of the losses, and what is drawn and counted."""

from __future__ import annotations

import io
import itertools
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mmdet.models.dense_heads import FCOSHead, RetinaHead
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from PIL import Image
from test_head import CHANNELS, CLASSES, NORM, STRIDES, batch, dual_head

from date.catalogue import ROOT, Catalogue, Choice, load, load_tier
from date.errors import UserError
from date.experiments.fragments import fragment
from date.inference.pictures import (
    LONG_SIDE,
    Photographer,
    _network_objects,
    branch_pictures,
    choose,
    small_jpeg,
)
from date.models import DualAssignmentHead, branches, one_to_many
from date.reporting.pictures import picture_drawings, write_pictures
from date.reporting.report import write_report
from date.results import load_results
from sealed import add_pictures, add_run, coco, jpeg

DATE_F, ONENET, FCOS, RETINANET = (f"{name}-r50-coco-12e" for name in ("date_f", "onenet", "fcos", "retinanet"))


def info(image: int, *boxes: tuple[float, float, float, float, int], ignored: int = 0) -> dict[str, Any]:
    """Return MMDetection's record of an image with (x1, y1, x2, y2, class) boxes, the last few of them ignored."""
    instances = [
        {"bbox": list(box[:4]), "bbox_label": box[4], "ignore_flag": int(i >= len(boxes) - ignored)}
        for i, box in enumerate(boxes)
    ]
    return {"img_id": image, "instances": instances}


def chosen(infos: list[dict[str, Any]], **rule: Any) -> list[int]:
    return [found["img_id"] for found in choose(infos, Choice.model_validate(rule))]


def test_the_first_images_with_so_many_objects_are_chosen() -> None:
    box = (0, 0, 10, 10, 0)
    infos = [info(1), info(2, box), info(3, box, box), info(4, box, box, box, ignored=1), info(5, *[box] * 4)]
    assert chosen(infos, images=2, objects=[1, 2]) == [2, 3]
    assert chosen(infos, images=3, objects=[2, 3]) == [3, 4], "an ignored object does not count"
    assert chosen(infos, images=3, objects=[5, 9]) == []


def test_the_most_overlapping_images_are_chosen() -> None:
    # An IoU of 60/140 is below a half, of 80/120 above it, and between classes nothing counts.
    apart, near, same = (4, 0, 14, 10, 0), (2, 0, 12, 10, 0), (0, 0, 10, 10, 0)
    other = (0, 0, 10, 10, 1)
    infos = [
        info(1, same, apart),
        info(2, same, near),
        info(3, same, other),
        info(4, same, near, same),
        info(5, near, same),
    ]
    assert chosen(infos, images=5, objects=[2, 9], prefer="overlapping") == [4, 2, 5, 1, 3]


def test_recorded_images_are_small_and_never_enlarged(tmp_path: Path) -> None:
    for width, height, expected in ((1280, 400, (LONG_SIDE, 200)), (64, 48, (64, 48))):
        rng = np.random.default_rng(0)
        Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(tmp_path / "a.png")
        jpeg = small_jpeg(tmp_path / "a.png")
        assert Image.open(io.BytesIO(jpeg)).size == expected
        assert jpeg == small_jpeg(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(UserError, match="a.png can't be loaded .it can't be decoded as an image.; restore the file"):
        small_jpeg(tmp_path / "a.png")


def pictured_batch(counts: tuple[int, ...] = (3, 0, 5)) -> tuple[list[torch.Tensor], list[Any], list[Any]]:
    """Return features, samples for the loss, and the same as a photographer has them."""
    feats, samples = batch(counts)
    seen = []
    for sample in samples:
        found = InstanceData(bboxes=sample.gt_instances.bboxes.clone(), labels=sample.gt_instances.labels)
        seen.append(_Sample(found, sample.metainfo))
    return feats, samples, seen


class _Sample(SimpleNamespace):
    """A data sample as far as pictures look at one."""

    def __init__(self, gt_instances: InstanceData, metainfo: dict[str, Any]) -> None:
        super().__init__(gt_instances=gt_instances, metainfo=metainfo, **metainfo)

    def __contains__(self, name: str) -> bool:
        return hasattr(self, name)


def places(centers: torch.Tensor, strides: list[int], objects: list[int]) -> list[tuple[float, ...]]:
    """Return points in rows, in order; in annotated pixels, which are half of the network's here."""
    rows = zip((centers / 2).tolist(), strides, objects, strict=True)
    return sorted((round(x, 6), round(y, 6), stride, index) for (x, y), stride, index in rows)


def recorded(found: dict[str, Any]) -> list[tuple[float, ...]]:
    return sorted((round(x, 6), round(y, 6), int(s), int(o)) for x, y, s, o in found["points"].tolist())


def every_point(offset: float = 0.5) -> tuple[torch.Tensor, list[int]]:
    """Return the centres and strides of the cells of both levels, row by row, by hand; the offset is in strides."""
    centers, strides = [], []
    for stride, (height, width) in zip(STRIDES, ((12, 16), (6, 8)), strict=True):
        for y, x in itertools.product(range(height), range(width)):
            centers.append(((x + offset) * stride, (y + offset) * stride))
            strides.append(stride)
    return torch.tensor(centers, dtype=torch.float64), strides


@pytest.fixture
def assigned(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """What the losses of all branches assign, by the function that does it."""
    calls: dict[str, list[Any]] = {"assign_one_to_one": [], "assign_fcos": [], "assign_max_iou": []}

    def watch(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            calls[name].append((args, result))
            return result

        monkeypatch.setattr(owner, name, watched)

    watch(branches, "assign_one_to_one")
    watch(one_to_many, "assign_fcos")
    watch(one_to_many, "assign_max_iou")
    return calls


def test_points_of_the_one_to_one_branch_are_those_of_its_loss(assigned: dict[str, list[Any]]) -> None:
    head = dual_head("fcos")
    feats, samples, seen = pictured_batch()
    head.loss(feats, samples)
    ((_, matched),) = assigned["assign_one_to_one"]
    centers, strides = every_point()
    pictures = branch_pictures(head, feats, seen, 0.5)
    assert [len(m) for m in matched] == [3, 0, 5]
    for match, image in zip(matched, pictures, strict=True):
        points = match.tolist()
        expected = places(centers[match], [strides[i] for i in points], list(range(len(points))))
        assert recorded(image["o2o"]) == expected


def test_points_of_the_fcos_branch_are_those_of_its_loss(assigned: dict[str, list[Any]]) -> None:
    head = dual_head("fcos")
    feats, samples, seen = pictured_batch()
    head.loss(feats, samples)
    ((_, taken),) = assigned["assign_fcos"]
    centers, strides = every_point()
    total = 0
    for own, sample, image in zip(taken, samples, branch_pictures(head, feats, seen, 0.5), strict=True):
        objects = sample.gt_instances
        index = (own < 8).nonzero(as_tuple=True)[0]  # of all images' objects
        # By hand: of the objects around a point whose farthest side is in its level's range, the smallest.
        owners = []
        for point in index.tolist():
            low, high = ((-1, 32), (32, 1e8))[STRIDES.index(strides[point])]
            areas = {}
            for number, (x1, y1, x2, y2) in enumerate(objects.bboxes.tolist()):
                x, y = centers[point].tolist()
                sides = (x - x1, y - y1, x2 - x, y2 - y)
                if min(sides) > 0 and low <= max(sides) <= high:
                    areas[number] = (x2 - x1) * (y2 - y1)
            owners.append(min(areas, key=lambda number: areas[number]))
        assert recorded(image["o2m"]) == places(centers[index], [strides[i] for i in index], owners)
        total += len(owners)
    assert total > 20


def test_points_of_the_retinanet_branch_are_the_centres_of_its_losss_anchors(assigned: dict[str, list[Any]]) -> None:
    head = dual_head("retinanet")
    feats, samples, seen = pictured_batch()
    head.loss(feats, samples)
    centers, strides = every_point(offset=0.0)  # where MMDetection puts anchors
    total = 0
    ((_, taken),) = assigned["assign_max_iou"]
    firsts = (0, 3, 3)  # the images have 3, 0 and 5 objects
    for own, first, image in zip(taken, firsts, branch_pictures(head, feats, seen, 0.5), strict=True):
        index = ((own >= 0) & (own < 8)).nonzero(as_tuple=True)[0]
        cells = index // 9  # nine anchors around every point
        expected = places(centers[cells], [strides[i] for i in cells], (own[index] - first).tolist())
        assert recorded(image["o2m"]) == expected
        total += len(index)
    assert total > 20


def test_points_of_mmdetections_heads_are_those_of_their_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    config = fragment("models/retinanet.py")["model"]
    generator = config["bbox_head"]["anchor_generator"] | dict(strides=list(STRIDES))
    test_cfg = ConfigDict(nms_pre=1000, score_thr=0.0, nms=dict(type="nms", iou_threshold=0.5), max_per_img=100)
    shared = dict(feat_channels=CHANNELS, stacked_convs=1, norm_cfg=NORM, test_cfg=test_cfg)
    retina = RetinaHead(
        CLASSES, CHANNELS, anchor_generator=generator, bbox_coder=config["bbox_head"]["bbox_coder"],
        train_cfg=ConfigDict(config["train_cfg"]), **shared,
    )  # fmt: skip
    fcos = FCOSHead(CLASSES, CHANNELS, strides=STRIDES, regress_ranges=((-1, 32), (32, 1e8)), **shared)
    dual = {"fcos": dual_head("fcos"), "retinanet": dual_head("retinanet")}
    feats, _, seen = pictured_batch()
    feats = [level.float() for level in feats]
    for sample in seen:
        sample.gt_instances.bboxes = sample.gt_instances.bboxes.float()
    doubled = [level.double() for level in feats]
    for name, head in (("retinanet", retina), ("fcos", fcos)):
        labels: list[Any] = []
        original = head.get_targets

        def watched(*args: Any, original: Any = original, labels: list[Any] = labels, **kwargs: Any) -> Any:
            targets = original(*args, **kwargs)
            labels.append(targets[0])
            return targets

        monkeypatch.setattr(head, "get_targets", watched)
        head.loss_by_feat(*head(feats), [s.gt_instances for s in seen], [s.metainfo for s in seen])
        positive = sum(int(((level >= 0) & (level < CLASSES)).sum()) for level in labels[0])
        found = branch_pictures(head, feats, seen, 0.5)
        assert sum(len(image["head"]["points"]) for image in found) == positive > 20
        # Our branches assign as MMDetection's heads do (test_head.py), and theirs are checked above.
        ours = branch_pictures(dual[name], doubled, seen, 0.5)
        assert [recorded(image["head"]) for image in found] == [recorded(image["o2m"]) for image in ours]


def test_boxes_are_the_candidates_and_the_marked_ones_what_nms_leaves() -> None:
    head: DualAssignmentHead = dual_head("fcos")
    feats, samples, seen = pictured_batch((3, 5))
    pictures = branch_pictures(head, feats, seen, 0.02)
    dropped = 0
    for branch, name in enumerate(("o2o", "o2m")):
        head.predict_from = branch
        detected = head.predict(feats, samples, rescale=True)
        for image, found in zip(pictures, detected, strict=True):
            boxes = image[name]["boxes"]
            assert np.all(np.diff(boxes[:, 4]) <= 0), "best first"
            detections = boxes
            if name == "o2m":
                detections = boxes[_survivors(boxes, head.branch(1).test_cfg["nms"])][:100]
                dropped += len(boxes) - int(boxes[:, 6].sum())
            np.testing.assert_allclose(detections[:, :4], found.bboxes.detach().numpy(), rtol=1e-6)
            np.testing.assert_allclose(detections[:, 4], found.scores.detach().numpy(), rtol=1e-6)
            assert _survivors(boxes, 0.02)[:100] == np.flatnonzero(boxes[:, 6]).tolist()
    assert dropped > 0


def _survivors(boxes: np.ndarray, threshold: float) -> list[int]:
    """Return greedy NMS by class, of boxes that are sorted."""
    kept: list[int] = []
    for i, (x1, y1, x2, y2, _, label, _) in enumerate(boxes.tolist()):
        for j in kept:
            u1, v1, u2, v2, _, other, _ = boxes[j].tolist()
            shared = max(0.0, min(x2, u2) - max(x1, u1)) * max(0.0, min(y2, v2) - max(y1, v1))
            union = (x2 - x1) * (y2 - y1) + (u2 - u1) * (v2 - v1) - shared
            if label == other and shared > threshold * union:
                break
        else:
            kept.append(i)
    return kept


def test_objects_are_given_to_the_loss_in_the_networks_pixels_clipped_to_the_image() -> None:
    sample = SimpleNamespace(scale_factor=(2.0, 0.5), img_shape=(40, 100))
    objects = _network_objects(
        info(1, (10, 20, 30, 60, 2), (-5, 0, 60, 90, 0), (0, 0, 9, 9, 1), ignored=1), sample, torch.zeros(1)
    )
    assert objects.bboxes.tolist() == [[20, 10, 60, 30], [0, 0, 100, 40]]
    assert objects.labels.tolist() == [2, 0]


def test_a_training_without_pictures_says_why(tmp_path: Path) -> None:
    dataset = SimpleNamespace(metainfo={"classes": ("a",)}, get_data_info=lambda i: info(i), __len__=lambda: 1)
    nothing = Photographer(dataset, None, 0.1, 0.5).record()
    assert nothing == {"images": [], "none_because": "no figure of the catalogue shows pictures of this training"}

    class Dataset(list):
        metainfo = {"classes": ("a",)}

        def get_data_info(self, index: int) -> dict[str, Any]:
            return self[index]

    choice = Choice(images=2, objects=(3, 12))
    none_fits = Photographer(Dataset([info(7)]), choice, 0.1, 0.5).record()
    assert none_fits["images"] == [] and none_fits["none_because"] == "no validation image has 3 to 12 objects"


# The report's side, of constructed records.


@pytest.fixture
def pictured(tmp_path: Path) -> Path:
    """The four trainings of Figure 1 and the sheets on scenes, one seed each."""
    for training, variants, names in (
        (DATE_F, {"o2o": coco(30.0), "o2o_nms50": coco(30.0), "o2m": coco(31.0)}, ("o2o", "o2m")),
        (ONENET, {"o2o": coco(28.0)}, ("o2o",)),
        (FCOS, {"head": coco(33.0)}, ("head",)),
        (RETINANET, {"head": coco(25.0)}, ("head",)),
    ):
        add_pictures(add_run(tmp_path / "results", "mini", training, 0, variants), names)
    return tmp_path / "results"


def test_what_is_shown_is_counted(pictured: Path) -> None:
    page = write_report("mini", pictured, pictured.parent / "reports").read_text(encoding="utf-8")
    text = (pictured.parent / "reports/mini/figures.md").read_text()
    # Boxes from 0.3 on: two, of which NMS leaves the first; from 0.2 on three, of which it leaves two.
    assert (
        "- Image 2: 3 objects; one-to-one branch, no NMS: 2 boxes for 3 objects, NMS leaves 1; "
        "one-to-many branch before NMS: 3 boxes for 3 objects, NMS leaves 2." in text
    )
    assert "FCOS after NMS: 2 boxes for 3 objects." in text
    assert "DATE-F, one-to-one branch (POTO): 3 points for 3 objects" in text, "each place once"
    assert "RetinaNet, anchors: 4 anchors at 3 points for 3 objects" in text
    weights = {run.training: run.provenance["weights_sha256"][:12] for run in load_results(pictured, "mini")}
    assert f"{DATE_F} (seed 0), checkpoint {weights[DATE_F]}" in text
    for name in ("figure1", "pictures_date", "pictures_fcos"):
        assert f'<h2 id="{name}">' in page and f'href="#{name}"' in page
    assert "No pictures of date_f-r50-crowdhuman-30k: it is not trained yet." in page


def test_a_photo_stands_once_in_the_svg_however_often_it_is_drawn(pictured: Path) -> None:
    svg = write_report("mini", pictured, pictured.parent / "reports", ["figure1"]).read_text()
    assert svg.count("data:image/jpeg;base64,") == 1 and svg.count('<use xlink:href="#photo1"') == 3
    assert jpeg(0) in svg and "data:image/png" not in svg
    sheet = write_report("mini", pictured, pictured.parent / "reports", ["pictures_date"]).read_text()
    assert all(sheet.count(jpeg(i)) == 1 for i in range(3))


def test_pictures_are_made_again_byte_for_byte(pictured: Path) -> None:
    names = ["figure1", "pictures_date", "pictures_fcos"]
    made = []
    for reports in (pictured.parent / "a", pictured.parent / "b"):
        write_report("mini", pictured, reports, names)
        made.append({p.name: p.read_bytes() for p in (reports / "mini/figures").iterdir()})
    assert len(made[0]) == 9 and made[0] == made[1]


def test_changed_or_foreign_pictures_are_named(pictured: Path) -> None:
    path = pictured / "mini" / FCOS / "seed0" / "pictures.json"
    whole = path.read_text()
    for spoiled in (whole.replace("0.25", "0.35", 1), whole[:-40]):
        path.write_text(spoiled)
        with pytest.raises(UserError, match=f"{FCOS}/seed0/pictures.json .*(changed since|not valid JSON)"):
            write_report("mini", pictured, pictured.parent / "reports", ["table01"])
    record = json.loads(whole)
    path.write_text(json.dumps({k: v for k, v in record.items() if k != "content_sha256"}))
    with pytest.raises(UserError, match="pictures.json has changed since"):
        write_report("mini", pictured, pictured.parent / "reports", ["table01"])
    shutil.copy(pictured / "mini" / RETINANET / "seed0" / "pictures.json", path)
    with pytest.raises(UserError, match="pictures.json is of another run than"):
        write_report("mini", pictured, pictured.parent / "reports", ["table01"])


def test_what_is_missing_is_said_in_the_place_of_the_picture(pictured: Path) -> None:
    reports = pictured.parent / "reports"
    (pictured / "mini" / ONENET / "seed0" / "pictures.json").unlink()
    shutil.rmtree(pictured / "mini" / RETINANET)
    text = write_report("mini", pictured, reports, ["figures"]).read_text()
    assert f"No pictures of {ONENET}: it was evaluated before there were any, evaluate it again." in text
    assert f"No pictures of {RETINANET}: it is not trained yet." in text
    assert "RetinaNet, anchors: no result" in text
    with pytest.raises(
        UserError, match=r"pictures_crowd has nothing to show\. No pictures of .*: it is not trained yet"
    ):
        write_report("mini", pictured, reports, ["pictures_crowd"])


def test_a_network_that_saw_other_images_is_not_shown_on_these(pictured: Path) -> None:
    add_pictures(pictured / "mini" / ONENET / "seed0", ("o2o",), shade=40)
    text = write_report("mini", pictured, pictured.parent / "reports", ["figures"]).read_text()
    assert "OneNet, Hungarian matching: no result" in text
    assert "A view without an image is of a network that was evaluated on other images." in text


def test_a_file_of_pictures_that_are_gone_does_not_stay(pictured: Path) -> None:
    stem = pictured.parent / "pictures_fcos"
    (drawing,) = [d for d in picture_drawings(load()) if d.name == "pictures_fcos"]
    assert write_pictures(drawing, load(), load_tier("mini"), load_results(pictured, "mini"), stem)
    assert stem.with_suffix(".png").exists()
    assert not write_pictures(drawing, load(), load_tier("mini"), [], stem)
    assert not list(pictured.parent.glob("pictures_fcos.*"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("branch: o2m, score: 0.2", "branch: head, score: 0.2", "has no branch 'head'; branches that it has: o2m, o2o"),
        ("branch: o2m, score: 0.2", "branch: o2m, score: 0.05", "boxes from the score 0.05 on are not recorded"),
        ("branch: o2m, score: 0.2", "branch: o2m", "views of boxes have a 'score', others have none"),
        (
            "training: fcos-r50-coco-12e",
            "training: fcos-r50-coco-13e",
            "unknown training 'fcos-r50-coco-13e'; did you mean",
        ),
        (
            "training: fcos-r50-coco-12e",
            "training: fcos-r50-crowdhuman-30k",
            "need one dataset with a rule in 'choices'",
        ),
        ("objects: [3, 12]", "objects: [12, 3]", "the least number before the largest"),
    ],
)
def test_mistakes_in_the_catalogue_are_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    folder = tmp_path / "experiments"
    shutil.copytree(ROOT / "experiments", folder)
    path = folder / "pictures.yaml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(UserError, match=message):
        load(folder)


def test_every_view_is_of_a_training_that_is_pictured() -> None:
    catalogue: Catalogue = load()
    assert {DATE_F, ONENET, FCOS, RETINANET, "date_f-r50-crowdhuman-30k"} == set(catalogue.pictured)
    assert catalogue.picture_choice("onenet_poto-r50-coco-12e") is None
    crowd = catalogue.picture_choice("date_f-r50-crowdhuman-30k")
    assert crowd is not None and crowd.prefer == "overlapping"
