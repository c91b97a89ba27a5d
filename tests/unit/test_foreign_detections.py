"""Detections and annotations in the forms that other tools give them: read right, or refused in words that help."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from date.errors import UserError
from date.evaluation.coco import coco_metrics
from date.evaluation.crowdhuman import crowdhuman_metrics
from date.evaluation.detections import read_detections
from date.evaluation.ground_truth import read_ground_truth
from date.evaluation.score import score

NAMES = ["train/COCO_val2014_000000000042.jpg", "train/000000000007.jpg", "b.jpg"]
IDS = [3, 5, 8]
"""Of the images; none is the number in its name."""
CATEGORIES = {1: "a", 2: "b", 4: "c"}
"""With a gap, as COCO's."""


def annotations(**changes: Any) -> dict[str, Any]:
    images = [{"id": i, "file_name": n, "width": 100, "height": 80} for i, n in zip(IDS, NAMES, strict=True)]
    objects = [
        {"id": k, "image_id": IDS[k % 3], "category_id": [1, 2, 4][k % 3], "bbox": [10 + k, 5, 20, 30], "area": 600, "iscrowd": 0}
        for k in range(9)
    ]  # fmt: skip
    categories = [{"id": i, "name": name} for i, name in CATEGORIES.items()]
    return {"images": images, "annotations": objects, "categories": categories} | changes


def perfect() -> list[dict[str, Any]]:
    """Detections that are the annotations."""
    return [
        {"image_id": o["image_id"], "category_id": o["category_id"], "bbox": o["bbox"], "score": 0.9 - 0.05 * k}
        for k, o in enumerate(annotations()["annotations"])
    ]


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def writing(name: str, content: Any, lines: bool = False) -> Path:
        path = tmp_path / name
        text = "\n".join(map(json.dumps, content)) if lines else json.dumps(content)
        path.write_text(text)
        return path

    return writing


def ap(write: Any, detections: Any, lines: bool = False, **options: Any) -> tuple[float | None, list[str]]:
    scored = score("coco", write("gt.json", annotations()), write("found.json", detections, lines), **options)
    return scored.metrics["AP"], scored.notes


# ------------------------------------------------------------------------------------------------- whose image it is


@pytest.mark.parametrize("form", ["id", "float", "digits", "stem", "name", "path", "lines", "file_name"])
def test_every_way_to_name_an_image_scores_the_same(form: str, write: Any) -> None:
    named = dict(zip(IDS, NAMES, strict=True))
    forms: dict[str, Any] = {
        "float": float, "digits": str, "stem": lambda i: Path(named[i]).stem, "name": lambda i: Path(named[i]).name,
        "path": lambda i: named[i],
    }  # fmt: skip
    found = [record | {"image_id": forms.get(form, int)(record["image_id"])} for record in perfect()]
    if form == "file_name":  # ultralytics: the number in the name, which is another image's id or none
        found = [record | {"image_id": 7, "file_name": Path(named[record["image_id"]]).name} for record in found]
    value, notes = ap(write, found, lines=form == "lines")
    assert value == pytest.approx(100)
    assert any("9 detections have an 'image_id' that is not the annotations'; their 'file_name' says" in note for note in notes) == (form == "file_name")  # fmt: skip


# ------------------------------------------------------------------------------------------------- labels


@pytest.mark.parametrize("first", [0, 1])
def test_labels_in_place_of_category_ids_are_refused_unless_asked_for(first: int, write: Any) -> None:
    labels = {1: first, 2: first + 1, 4: first + 2}
    found = [record | {"category_id": labels[record["category_id"]]} for record in perfect()]
    with pytest.raises(UserError, match=rf"has the category ids {first} to {first + 2}, some of which .* does not have: they look like labels, places among its 3 categories; say --categories labels"):  # fmt: skip
        ap(write, found)
    value, _ = ap(write, found, categories="labels")
    assert value == pytest.approx(100)
    value, notes = ap(write, found, categories="ids")
    assert value is not None and value < 70 and "are of unknown categories" in " ".join(notes)


def test_ids_of_other_categories_are_no_labels(write: Any) -> None:
    found = [*perfect(), perfect()[0] | {"category_id": 77}]
    value, notes = ap(write, found)
    assert (
        value == pytest.approx(100) and "1 detection is of unknown categories, which no metric counts: 77 (1)." in notes
    )
    with pytest.raises(UserError, match="no labels of 3 categories; leave --categories out"):
        ap(write, found, categories="labels")


# ------------------------------------------------------------------------------------------------- boxes


def test_boxes_of_another_form_are_hinted_at(write: Any) -> None:
    corners = [r | {"bbox": [40 + k, 30, 95, 75]} for k, r in enumerate(perfect())]
    assert any("they look like x1, y1, x2, y2, and not" in note for note in ap(write, corners)[1])
    fractions = [r | {"bbox": [v / 100 for v in r["bbox"]]} for r in perfect()]
    assert any("they look like fractions of the image" in note for note in ap(write, fractions)[1])
    assert not any("they look like" in note for note in ap(write, perfect())[1])


# ------------------------------------------------------------------------------------------------- annotations


@pytest.mark.parametrize("form", ["gzip", "mark", "gzip and mark"])
def test_packed_and_marked_annotations(form: str, tmp_path: Path, write: Any) -> None:
    content = json.dumps(annotations()).encode()
    if "mark" in form:
        content = b"\xef\xbb\xbf" + content
    path = tmp_path / "packed"
    path.write_bytes(gzip.compress(content) if "gzip" in form else content)
    plain = read_ground_truth(write("gt.json", annotations()))
    np.testing.assert_array_equal(read_ground_truth(path).bboxes, plain.bboxes)
    if "gzip" in form:
        path.write_bytes(path.read_bytes()[:-9])
        with pytest.raises(UserError, match=r"is a damaged gzip file: .*; restore it from its source"):
            read_ground_truth(path)


def test_what_is_missing_or_not_looked_at_is_counted(write: Any) -> None:
    objects = annotations()["annotations"]
    del objects[0]["area"], objects[1]["iscrowd"], objects[2]["iscrowd"]
    objects[3]["ignore"] = 1
    ground_truth = read_ground_truth(write("gt.json", annotations(annotations=objects)))
    assert ground_truth.notes == [
        "1 annotation has no 'area': the areas of boxes are used.",
        "2 annotations have no 'iscrowd': counted as objects.",
        "1 annotation has 'ignore: 1', at which COCO's evaluation does not look: counted as objects.",
    ]
    found = np.array([[r["image_id"], *r["bbox"], r["score"], r["category_id"]] for r in perfect()])
    assert coco_metrics(ground_truth, found)["AP"] == pytest.approx(100), "without a difference"


# ------------------------------------------------------------------------------------------------- CrowdHuman


ODGT = [
    {"ID": "a", "gtboxes": [{"tag": "person", "fbox": [1, 1, 30, 40]}, {"tag": "mask", "fbox": [50, 1, 30, 40]}]},
    {"ID": "b", "gtboxes": [{"tag": "person", "fbox": [1, 1, -5, 40], "extra": {"ignore": 0}}]},
    {"ID": "c", "gtboxes": []},
]


def test_mmdetections_list_of_odgt_records(write: Any) -> None:
    """As its CrowdHumanMetric writes it, with format_only."""
    records = [{"ID": "a", "height": 50, "width": 90, "dtboxes": [{"box": [1, 1, 30, 40], "score": 0.9, "tag": 1}]}]
    ground_truth = read_ground_truth(write("gt.odgt", ODGT, lines=True))
    read = read_detections(write("found.json", records), ground_truth)
    assert read.rows.tolist() == [[1, 1, 1, 30, 40, 0.9, 1]] and read.sizes == {0: (90, 50)}


def test_masks_are_ignored_and_negative_sizes_always_missed(write: Any) -> None:
    ground_truth = read_ground_truth(write("gt.odgt", ODGT, lines=True))
    assert ground_truth.ignored.tolist() == [False, True, False]
    assert ground_truth.bboxes[2].tolist() == [1, 1, 0, 40]
    found = np.array([[1, 1, 1, 30, 40, 0.9, 1], [1, 50, 1, 30, 40, 0.8, 1]], dtype=np.float64)
    assert crowdhuman_metrics(ground_truth, found)["Recall"] == 50


def test_a_number_of_400_digits_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "gt.odgt").write_text(
        json.dumps({"ID": "a", "gtboxes": [{"tag": "person", "fbox": [0, 0, 10**400, 1]}]})
    )
    with pytest.raises(UserError, match="has boxes .'fbox'. that are not four finite numbers"):
        read_ground_truth(tmp_path / "gt.odgt")


def test_sizes_are_of_upright_images(tmp_path: Path, write: Any) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in "abc":
        Image.new("RGB", (90, 50)).save(tmp_path / f"{name}.jpg", exif=exif)
    ground_truth = read_ground_truth(write("gt.odgt", ODGT, lines=True), tmp_path)
    assert ground_truth.sizes.tolist() == [[50, 90]] * 3


def test_sizes_are_missed_where_there_is_something_to_clip(write: Any) -> None:
    records = [{"image_id": 1, "category_id": 1, "bbox": [1, 1, 30, 40], "score": 0.9}]
    scored = score("crowdhuman", write("gt.odgt", ODGT, lines=True), write("found.json", records))
    assert any("the size of 2 of 3 images is in neither file" in note for note in scored.notes)


def scored_annotations(**changes: Any) -> dict[str, Any]:
    """The perfect detections as annotations with scores, whose ids of images and categories are other ones."""
    files = dict(zip(IDS, NAMES, strict=True))
    images = [{"id": k, "file_name": Path(n).name} for k, n in enumerate(reversed(NAMES))]
    categories = [{"id": k, "name": n} for k, n in enumerate(sorted(CATEGORIES.values(), reverse=True), 1)]
    image_ids = {record["file_name"]: record["id"] for record in images}
    category_ids = {record["name"]: record["id"] for record in categories}
    objects = [
        {"id": k, "image_id": image_ids[Path(files[found["image_id"]]).name]}
        | {
            "category_id": category_ids[CATEGORIES[found["category_id"]]],
            "bbox": found["bbox"],
            "score": found["score"],
        }
        for k, found in enumerate(perfect())
    ]
    return {"images": images, "annotations": objects, "categories": categories} | changes


def test_annotations_with_scores_are_detections(write: Any) -> None:
    value, notes = ap(write, scored_annotations())
    assert value == pytest.approx(100)
    assert "images are matched by their files' names, categories by theirs." in notes
    strangers = scored_annotations()
    strangers["categories"].append({"id": 9, "name": "z"})
    strangers["annotations"] += [record | {"category_id": 9} for record in strangers["annotations"][:2]]
    value, notes = ap(write, strangers)
    assert value == pytest.approx(100)
    assert "2 detections are of unknown categories, which no metric counts: 'z' (2)." in notes
    assert ap(write, scored_annotations(), categories="ids")[0] == pytest.approx(100)


def test_ids_with_a_point_are_whole_numbers(write: Any) -> None:
    data = scored_annotations()
    for record in data["annotations"]:
        record["image_id"], record["category_id"] = float(record["image_id"]), float(record["category_id"])
    data["images"][0]["id"], data["categories"][1]["id"] = 0.0, 2.0
    assert ap(write, data)[0] == pytest.approx(100)
    truth = annotations()
    for record in truth["annotations"]:
        record["image_id"], record["category_id"] = float(record["image_id"]), float(record["category_id"])
    pointed, plain = (read_ground_truth(write(f"{n}.json", d)) for n, d in enumerate((truth, annotations())))
    assert (pointed.image_ids, pointed.categories) == (plain.image_ids, plain.categories)
    np.testing.assert_array_equal(pointed.image, plain.image)
    np.testing.assert_array_equal(pointed.category_ids, plain.category_ids)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": ...}, "has 9 annotations without a 'score', which detections have: annotation 0, "),
        ({"score": "0.5"}, r"has 9 scores that are not finite numbers: entry 0 \('0.5'\)"),
        ({"bbox": [1, 2, 3]}, r"has 9 boxes \('bbox'\) that are not four finite numbers"),
        ({"image_id": 77}, r"has 9 detections of images that it does not list: annotation 0 \(77\)"),
        ({"category_id": 1.5}, r"has 9 detections of categories that it does not list: annotation 0 \(1.5\)"),
    ],
)
def test_bad_annotations_with_scores_are_refused_in_words(write: Any, change: dict[str, Any], message: str) -> None:
    objects = [
        {key: value for key, value in (record | change).items() if value is not ...}
        for record in scored_annotations()["annotations"]
    ]
    with pytest.raises(UserError, match=message):
        ap(write, scored_annotations(annotations=objects))


def test_annotations_with_scores_of_other_names_are_refused_in_words(write: Any) -> None:
    with pytest.raises(UserError, match="names its categories, whatever their ids are; leave --categories out"):
        ap(write, scored_annotations(), categories="labels")
    others = [{"id": k, "name": n} for k, n in enumerate("xyz", 1)]
    with pytest.raises(UserError, match=r"is of an annotated category: it has 'z' \(3\), .*has .*'a'.*; give the categories"):  # fmt: skip
        ap(write, scored_annotations(categories=others))
    elsewhere = [{"id": k, "file_name": f"other{k}.jpg"} for k in range(3)]
    with pytest.raises(UserError, match=r"has 9 detections of unknown images: entry 0 \(image 'other"):
        ap(write, scored_annotations(images=elsewhere))


# ------------------------------------------------------------------------------------------------- texts of digits


def numbered(names: list[str]) -> dict[str, Any]:
    """Annotations of images 1, 2, 3 whose files are named by numbers, too."""
    images = [{"id": i, "file_name": n, "width": 100, "height": 80} for i, n in enumerate(names, 1)]
    objects = [o | {"image_id": 1 + IDS.index(o["image_id"])} for o in annotations()["annotations"]]
    return annotations(images=images, annotations=objects)


@pytest.mark.parametrize("lines", [False, True])
@pytest.mark.parametrize(
    ("names", "text"),
    [
        (["0.jpg", "1.jpg", "2.jpg"], lambda i: str(i)),  # "3" is no name, so that all are ids
        (["1.jpg", "2.jpg", "9.jpg"], lambda i: {1: "1", 2: "2", 3: "9"}[i]),  # the same image either way
        (["2.jpg", "3.jpg", "4.jpg"], lambda i: str(i + 1)),  # "4" is no id, so that all are names
        (["000002.jpg", "000003.jpg", "000001.jpg"], lambda i: f"{i % 3 + 1:06}.jpg"),
        (["2.jpg", "3.jpg", "1.jpg"], lambda i: f"{i % 3 + 1}.jpg"),
    ],
)
def test_texts_of_digits_are_what_fits_all_of_them(names: list[str], text: Any, lines: bool, write: Any) -> None:
    data = numbered(names)
    found = [r | {"image_id": text(1 + IDS.index(r["image_id"]))} for r in perfect()]
    scored = score("coco", write("gt.json", data), write("found.json", found, lines))
    assert scored.metrics["AP"] == pytest.approx(100)


@pytest.mark.parametrize("names", [["2.jpg", "3.jpg", "1.jpg"], ["2.jpg", "000003.jpg", "1.jpg"]])
def test_texts_that_are_an_id_and_another_images_name_are_refused(names: list[str], write: Any) -> None:
    found = [r | {"image_id": str(1 + IDS.index(r["image_id"]))} for r in perfect()]
    if "000003.jpg" in names:
        found += [found[0] | {"image_id": "000003"}]
    expected = r"has \d image ids that are texts, each the id of one image and the name of another: '?1.*; write ids as numbers, without"  # fmt: skip
    with pytest.raises(UserError, match=expected):
        score("coco", write("gt.json", numbered(names)), write("found.json", found))


@pytest.mark.parametrize("lines", [False, True])
def test_names_of_categories_have_to_be_the_annotations(write: Any, lines: bool) -> None:
    """`date detect --json` writes them for images without annotations; ids alone would score another class in silence."""
    right = [found | {"category": f" {CATEGORIES[found['category_id']].upper()}_"} for found in perfect()]
    assert ap(write, right, lines) == ap(write, perfect(), lines)
    wrong = [found | {"category": "disc"} if found["category_id"] == 2 else found for found in perfect()]
    with pytest.raises(
        UserError, match=r"categories of other names than the annotations: category 2 \('disc' in it, 'b' in "
    ):
        ap(write, wrong, lines)
    assert ap(write, wrong, lines, categories="ids")[0] == 100
    unknown = [*perfect(), perfect()[0] | {"category_id": 77, "category": "disc"}]
    assert ap(write, unknown, lines)[1] == ["1 detection is of unknown categories, which no metric counts: 77 (1)."]
