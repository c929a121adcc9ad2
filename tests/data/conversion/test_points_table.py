"""CSV tables of points to pixels, in both forms."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from uniformer_pose.data.conversion.points_table import read_points_table
from uniformer_pose.data.conversion.source import Problems, SourceDataset, SourceImage
from uniformer_pose.errors import InputError
from uniformer_pose.skeleton import load_skeleton

BY_POINT = """image,person,keypoint,x,y,visibility,split
a.png,1,nose,10,12,2,train
a.png,1,left_hand,20.5,30,1,train
a.png,2,left_hand,40,31,2,train
a.png,2,nose,44,8,,train
b.png,1,nose,5,6,2,val
b.png,1,right_hand,,,0,val
b.png,1,left_hand,25,26,2,val
"""
BY_PERSON = """image,split,nose_x,nose_y,left_hand_x,left_hand_y,left_hand_visibility,box_x,box_y,box_width,box_height
a.png,train,10,12,20.5,30,1,5,6,20,30
a.png,train,44,8,40,31,2,30,1,20,35
b.png,val,5,6,,,,1,2,30,35
"""


@pytest.fixture
def table(tmp_path: Path, picture: Callable[..., Path]) -> Callable[[str], Path]:
    """Writes a table beside the pictures a.png and b.png, 40x80 each."""
    for name in ("a.png", "b.png"):
        picture(tmp_path / name, 40, 80)

    def write(text: str) -> Path:
        (tmp_path / "points.csv").write_text(text, encoding="utf-8")
        return tmp_path / "points.csv"

    return write


def read(source: Path, name: str = "a.png", **settings: object) -> SourceImage:
    problems = Problems(allowed=True)
    dataset = read_points_table(source, name="hands", **settings)  # type: ignore[arg-type]
    image = dataset.read("train", name, problems)
    assert dataset.problems + problems.sentences == []
    assert image is not None
    return image


def problems_of(dataset: SourceDataset) -> list[str]:
    problems = Problems(allowed=True)
    for split, names in dataset.images.items():
        for name in names:
            dataset.read(split, name, problems)
    return dataset.problems + problems.sentences


def test_one_row_a_point(table: Callable[[str], Path]) -> None:
    source = table(BY_POINT)
    dataset = read_points_table(source, name="hands")
    assert dataset.skeleton.keypoint_names == ("nose", "left_hand", "right_hand")
    assert dataset.skeleton.left_right_pairs == (("left_hand", "right_hand"),)
    assert dataset.images == {"train": ["a.png"], "val": ["b.png"]}
    first, second = read(source).people
    assert first.keypoints.tolist() == [[10, 12, 2], [20.5, 30, 1], [0, 0, 0]]
    assert second.keypoints.tolist() == [[44, 8, 2], [40, 31, 2], [0, 0, 0]]
    assert read(source, "b.png").people[0].keypoints.tolist() == [[5, 6, 2], [25, 26, 2], [0, 0, 0]]
    assert first.box_xywh == pytest.approx([8.2, 10.2, 14.1, 21.6])


def test_one_row_a_person(table: Callable[[str], Path]) -> None:
    source = table(BY_PERSON)
    dataset = read_points_table(source, name="hands", category="hand")
    assert dataset.category == "hand"
    assert dataset.skeleton.keypoint_names == ("nose", "left_hand")
    assert dataset.images == {"train": ["a.png"], "val": ["b.png"]}
    first, second = read(source).people
    assert first.keypoints.tolist() == [[10, 12, 2], [20.5, 30, 1]]
    assert first.box_xywh.tolist() == [5, 6, 20, 30]
    assert second.keypoints.tolist() == [[44, 8, 2], [40, 31, 2]]
    assert read(source, "b.png").people[0].keypoints.tolist() == [[5, 6, 2], [0, 0, 0]]


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_other_delimiters_and_the_mark_of_spreadsheets_are_understood(
    table: Callable[[str], Path], delimiter: str
) -> None:
    source = table("\ufeff" + BY_PERSON.replace(",", delimiter))
    assert len(read(source).people) == 2


def test_rows_of_one_image_need_not_stand_together(table: Callable[[str], Path]) -> None:
    header, *rows = BY_POINT.splitlines()
    source = table("\n".join([header, *rows[::2], *rows[1::2]]))
    first, second = read(source).people
    names = read_points_table(source, name="hands").skeleton.keypoint_names
    assert dict(zip(names, first.keypoints.tolist(), strict=True))["nose"] == [10, 12, 2]
    assert dict(zip(names, second.keypoints.tolist(), strict=True))["left_hand"] == [40, 31, 2]


def test_without_a_person_an_image_shows_one(table: Callable[[str], Path]) -> None:
    source = table("image,keypoint,x,y\na.png,p,1,2\na.png,q,30,20\nb.png,p,1,2\nb.png,q,10,20\n")
    (person,) = read(source).people
    assert person.keypoints.tolist() == [[1, 2, 2], [30, 20, 2]]


def test_fractions_of_the_size_are_read_if_said(table: Callable[[str], Path]) -> None:
    text = "image,keypoint,x,y\na.png,p,0.5,0.25\na.png,q,0.75,0.5\nb.png,p,0.5,0.25\nb.png,q,0.1,0.2\n"
    assert read(table(text), normalised=True).people[0].keypoints.tolist() == [[40, 10, 2], [60, 20, 2]]
    sentences = problems_of(read_points_table(table(text), name="hands"))
    assert len(sentences) == 2
    assert "if they are fractions of the size, give normalised=true" in sentences[0]


def test_names_and_order_can_be_a_skeletons(table: Callable[[str], Path]) -> None:
    coco = load_skeleton("coco_17")
    source = table("image,keypoint,x,y\na.png,Left Ear,1,2\na.png,nose,30,20\nb.png,nose,1,2\nb.png,left_eye,9,9\n")
    person = read(source, skeleton=coco).people[0]
    assert person.keypoints.shape == (17, 3)
    assert person.keypoints[3].tolist() == [1, 2, 2]
    source = table("image,keypoint,x,y\na.png,tail,1,2\na.png,nose,30,20\nb.png,nose,1,2\nb.png,left_eye,9,9\n")
    (sentence,) = read_points_table(source, name="hands", skeleton=coco).problems
    assert sentence.endswith("points.csv:2: keypoint 'tail'; skeleton coco_17 has none of this name")


def test_columns_that_nobody_reads_are_told(table: Callable[[str], Path]) -> None:
    source = table(BY_PERSON.replace("split", "splitt"))
    assert "columns not used: splitt" in read_points_table(source, name="hands").notes


def test_an_exif_rotated_picture_needs_the_users_word(
    table: Callable[[str], Path], picture: Callable[..., Path]
) -> None:
    source = table(BY_PERSON)
    picture(source.parent / "a.png", 40, 80, 6)
    (sentence,) = problems_of(read_points_table(source, name="hands"))
    assert "has EXIF orientation 6; give exif=displayed if" in sentence
    assert read(source, exif="stored").people[0].keypoints[0].tolist() == [10, 12, 2]
    assert read(source, exif="displayed").people[0].keypoints[0].tolist() == [12, 29, 2]


HEADER = "image,person,keypoint,x,y,visibility,split,box_x,box_y,box_width,box_height\n"
BAD_LINES = {
    "a.png,1,nose,x,2,2,train,,,,": "nose: 'x' is no finite number",
    "a.png,1,nose,1,,2,train,,,,": "nose: '' is no finite number",
    "a.png,1,nose,1,inf,2,train,,,,": "nose: 'inf' is no finite number",
    "a.png,1,nose,,,2,train,,,,": "nose: visibility 2 without x and y",
    "a.png,1,nose,1,2,5,train,,,,": "nose: visibility '5' is none of",
    "a.png,1,nose,1,2,2,train,1,2,3,": "give all four, sizes above 0, or none",
    "a.png,1,nose,1,2,2,train,1,2,-3,4": "give all four, sizes above 0, or none",
    "a.png,1,nose,1,2,2,train,1,x,3,4": "box_y: 'x' is no finite number",
    "a.png,1,nose,1,2,2,val,,,,": "puts a.png into split 'val', an earlier line into 'train'",
    "a.png,1,nose,1,2,2,train": "has 7 fields, the header 11",
    ",1,nose,1,2,2,train,,,,": "has no image",
    "a.png,1,,1,2,2,train,,,,": "keypoint ''",
    "../a.png,1,nose,1,2,2,train,1,2,3,4": "'../a.png' leads out of",
    "/a.png,1,nose,1,2,2,train,1,2,3,4": "'/a.png' leads out of",
    "c.png,1,nose,1,2,2,train,1,2,3,4": "c.png: no such image",
    "a.png,1,nose,1,2,2,train,,,,\na.png,1,nose,3,4,2,train,,,,": "gives nose of person '1' again",
    "a.png,1,nose,1,2,2,train,1,2,3,4\na.png,1,ear,3,4,2,train,1,2,3,5": "has another box than line 4",
    "a.png,1,nose,1,2,2,train,,,,": "has no box, and 1 labelled keypoints",
}


@pytest.mark.parametrize("line", BAD_LINES)
def test_a_bad_line_is_named_with_its_number(table: Callable[[str], Path], line: str) -> None:
    good = "a.png,0,nose,1,2,2,train,1,2,30,40\nb.png,0,nose,1,2,2,val,1,2,30,40\n"
    sentences = problems_of(read_points_table(table(f"{HEADER}{good}{line}\n"), name="hands"))
    assert len(sentences) == 1
    assert BAD_LINES[line] in sentences[0]
    assert "points.csv:4: " in sentences[0]


def test_a_second_row_of_a_person_is_named(table: Callable[[str], Path]) -> None:
    rows = "a.png,x,1,2\na.png,x,3,4\nb.png,y,1,2\n"
    dataset = read_points_table(table(f"image,person,nose_x,nose_y\n{rows}"), name="hands")
    assert "points.csv:3: person 'x' of a.png has a row already" in dataset.problems[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "is of neither form"),
        ("a,b\n1,2\n", "is of neither form"),
        ("image,nose_x\n", "is of neither form"),
        ("image,keypoint,x,y,x\n", "the column 'x' stands twice"),
        ("image,keypoint,x,y,box_x\n", "has box_x of box_x, box_y, box_width, box_height; give all four or none"),
        ("image,keypoint,x,y\n", "has no usable rows below its header"),
        ("image,keypoint,x,y,split\na.png,p,1,2,test\n", "image a.png is in split 'test'; use train or val"),
        ('image,keypoint,x,y\n"a.png,p,1,2\n', "cannot be read as CSV"),
    ],
)
def test_a_table_that_cannot_be_used_is_told_in_one_line(
    table: Callable[[str], Path], text: str, expected: str
) -> None:
    with pytest.raises(InputError) as error:
        read_points_table(table(text), name="hands")
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_text_or_absent_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read as CSV"):
        read_points_table(tmp_path / "absent.csv", name="hands")
    (tmp_path / "a.csv").write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    with pytest.raises(InputError, match="cannot be read as CSV"):
        read_points_table(tmp_path / "a.csv", name="hands")
