"""CSV tables of points to pixels, in both forms."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from uniformer_pose.data.conversion.points_table import read_points_table
from uniformer_pose.data.conversion.source import ConversionSettings, Problems, SourceDataset, SourceImage
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


def table_of(source: Path, **settings: Any) -> SourceDataset:
    return read_points_table(source, ConversionSettings(**{"name": "hands", **settings}))


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
    dataset = table_of(source, **settings)
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
    dataset = table_of(source)
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
    dataset = table_of(source, category="hand")
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
    names = table_of(source).skeleton.keypoint_names
    assert dict(zip(names, first.keypoints.tolist(), strict=True))["nose"] == [10, 12, 2]
    assert dict(zip(names, second.keypoints.tolist(), strict=True))["left_hand"] == [40, 31, 2]


def test_without_a_person_an_image_shows_one(table: Callable[[str], Path]) -> None:
    source = table("image,keypoint,x,y\na.png,p,1,2\na.png,q,30,20\nb.png,p,1,2\nb.png,q,10,20\n")
    (person,) = read(source).people
    assert person.keypoints.tolist() == [[1, 2, 2], [30, 20, 2]]


def test_fractions_of_the_size_are_read_if_said(table: Callable[[str], Path]) -> None:
    text = "image,keypoint,x,y\na.png,p,0.5,0.25\na.png,q,0.75,0.5\nb.png,p,0.5,0.25\nb.png,q,0.1,0.2\n"
    assert read(table(text), normalised=True).people[0].keypoints.tolist() == [[40, 10, 2], [60, 20, 2]]
    sentences = problems_of(table_of(table(text)))
    assert len(sentences) == 2
    assert "if they are fractions of the size, give normalised=true" in sentences[0]


def test_names_and_order_can_be_a_skeletons(table: Callable[[str], Path]) -> None:
    coco = load_skeleton("coco_17")
    source = table("image,keypoint,x,y\na.png,Left Ear,1,2\na.png,nose,30,20\nb.png,nose,1,2\nb.png,left_eye,9,9\n")
    person = read(source, skeleton=coco).people[0]
    assert person.keypoints.shape == (17, 3)
    assert person.keypoints[3].tolist() == [1, 2, 2]
    source = table("image,keypoint,x,y\na.png,tail,1,2\na.png,nose,30,20\nb.png,nose,1,2\nb.png,left_eye,9,9\n")
    (sentence,) = table_of(source, skeleton=coco).problems
    assert sentence.endswith("points.csv:2: keypoint 'tail'; the skeleton has none of this name")


def test_columns_that_nobody_reads_are_told(table: Callable[[str], Path]) -> None:
    source = table(BY_PERSON.replace("split", "splitt"))
    assert "columns not used: splitt" in table_of(source).notes


def test_an_exif_rotated_picture_needs_the_users_word(
    table: Callable[[str], Path], picture: Callable[..., Path]
) -> None:
    source = table(BY_PERSON)
    picture(source.parent / "a.png", 40, 80, 6)
    (sentence,) = problems_of(table_of(source))
    assert "has EXIF orientation 6; give exif=displayed if" in sentence
    assert read(source, exif="stored").people[0].keypoints[0].tolist() == [27, 10, 2]
    assert read(source, exif="displayed").people[0].keypoints[0].tolist() == [10, 12, 2]


HEADER = "image,person,keypoint,x,y,visibility,split,box_x,box_y,box_width,box_height\n"
BAD_LINES = {
    "a.png,1,nose,1,2,2,train,1,2,3,": "has no usable box, and 1 labelled",
    "a.png,1,nose,1,2,2,train,1,2,-3,4": "has no usable box, and 1 labelled",
    "a.png,1,nose,1,2,2,train,1,x,3,4": "has no usable box, and 1 labelled",
    "a.png,1,nose,100,2,2,train,1,2,3,4": "all of its 1 labelled keypoints are outside the picture",
    "a.png,1,nose,1,2,2,val,,,,": "puts a.png into split 'val', an earlier line into 'train'",
    "a.png,1,nose,1,2,2,train": "has 7 fields, the header 11",
    ",1,nose,1,2,2,train,,,,": "has no image",
    "a.png,1,,1,2,2,train,,,,": "keypoint ''",
    "../a.png,1,nose,1,2,2,train,1,2,3,4": "'../a.png' leads out of",
    "/c.png,1,nose,1,2,2,train,1,2,3,4": "'/c.png' leads out of",
    "c.png,1,nose,1,2,2,train,1,2,3,4": "c.png: no such image",
    "a.png,1,nose,1,2,2,train,1,2,3,4\na.png,1,nose,3,4,2,train,1,2,3,4": "gives nose of person '1' again",
    "a.png,1,nose,1,2,2,train,1,2,3,4\na.png,1,ear,3,4,2,train,1,2,3,5": "has another box than line 4",
    "a.png,1,nose,1,2,2,train,,,,": "has no usable box, and 1 labelled keypoints",
}


@pytest.mark.parametrize("line", BAD_LINES)
def test_a_bad_line_is_named_with_its_number(table: Callable[[str], Path], line: str) -> None:
    good = "a.png,0,nose,1,2,2,train,1,2,30,40\nb.png,0,nose,1,2,2,val,1,2,30,40\n"
    sentences = problems_of(table_of(table(f"{HEADER}{good}{line}\n")))
    assert len(sentences) == 1
    assert BAD_LINES[line] in sentences[0]
    assert f"points.csv:{4 + line.count(chr(10))}: " in sentences[0]


def test_a_second_row_of_a_person_is_named(table: Callable[[str], Path]) -> None:
    rows = "a.png,x,1,2\na.png,x,3,4\nb.png,y,1,2\n"
    dataset = table_of(table(f"image,person,nose_x,nose_y\n{rows}"))
    assert "points.csv:3: person 'x' of a.png has a row already" in dataset.problems[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "is of no known form"),
        ("a,b\n1,2\n", "is of no known form"),
        ("image,nose_x\n", "is of no known form"),
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
        table_of(table(text))
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_text_or_absent_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.csv: cannot be read \(No such file"):
        table_of(tmp_path / "absent.csv")
    (tmp_path / "a.csv").write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    with pytest.raises(InputError, match=r"cannot be read .*UTF-8"):
        table_of(tmp_path / "a.csv")


DEEPLABCUT = """scorer,me,me,me,me
bodyparts,nose,nose,left_hand,left_hand
coords,x,y,x,y
labeled-data/video/a.png,10,12,20.5,30
labeled-data/video/b.png,5,6,,
"""
SEVERAL_ANIMALS = """scorer,,,me,me,me,me,me,me
individuals,,,one,one,one,one,two,two
bodyparts,,,nose,nose,left_hand,left_hand,nose,nose
coords,,,x,y,x,y,x,y
labeled-data,video,a.png,10,12,20.5,30,44,8
labeled-data,video,b.png,5,6,7,8,,
"""


@pytest.mark.parametrize("text", [DEEPLABCUT, DEEPLABCUT.replace("\n", "\r\n"), "\ufeff" + DEEPLABCUT])
def test_deeplabcuts_header_of_three_lines_is_read(table: Callable[[str], Path], text: str) -> None:
    source = table(text)
    dataset = table_of(source)
    assert dataset.skeleton.keypoint_names == ("nose", "left_hand")
    (person,) = read(source, "labeled-data/video/a.png").people
    assert person.keypoints.tolist() == [[10, 12, 2], [20.5, 30, 2]]
    assert person.box_xywh == pytest.approx([8.2, 10.2, 14.1, 21.6])


def test_deeplabcuts_individuals_are_people(table: Callable[[str], Path]) -> None:
    source = table(SEVERAL_ANIMALS)
    problems = Problems(allowed=True)
    image = table_of(source).read("train", "labeled-data/video/b.png", problems)
    assert image is not None
    assert [person.keypoints.tolist() for person in image.people] == [[[5, 6, 2], [7, 8, 2]]]
    table_of(source).read("train", "labeled-data/video/a.png", problems)
    assert "has no usable box, and 1 labelled keypoints" in problems.sentences[0]  # of the second animal


def test_likelihoods_are_confidences(table: Callable[[str], Path]) -> None:
    text = "image,nose.x,nose.y,nose.score,tail_x,tail_y,tail_likelihood,ear_x,ear_y\na.png,9,8,1.0,30,31,0.4,20,21\n"
    source = table(text + "b.png,9,8,0.97,30,31,0.9,20,21\n")
    assert read(source).people[0].keypoints[:, 2].tolist() == [2, 0, 2]
    assert read(source, "b.png").people[0].keypoints[:, 2].tolist() == [2, 2, 2]


def test_a_spreadsheet_with_semicolons_has_decimal_commas(table: Callable[[str], Path]) -> None:
    text = "Filename;Nose_X;Nose_Y;Tail_X;Tail_Y\r\na.png;10,5;12;20,25;30\r\nb.png;1;2;NaN;nan\r\n"
    source = table("\ufeff" + text)
    assert read(source).people[0].keypoints.tolist() == [[10.5, 12, 2], [20.25, 30, 2]]
    assert table_of(source).skeleton.keypoint_names == ("Nose", "Tail")


@pytest.mark.parametrize(
    ("x", "y", "visibility"),
    [
        ("x", "2", ""),
        ("1", "", ""),
        ("1", "inf", ""),
        ("", "", "2"),
        ("1", "2", "5"),
        ("1", "2", "-1"),
        ("90", "2", "2"),
    ],
)
def test_a_point_that_cannot_be_used_is_unlabelled_and_counted(
    table: Callable[[str], Path], x: str, y: str, visibility: str
) -> None:
    rows = f"a.png,nose,{x},{y},{visibility}\na.png,left,10,11,2\na.png,right,30,31,2\nb.png,nose,1,2,2\n"
    source = table(f"image,keypoint,x,y,visibility\n{rows}")
    dataset = table_of(source)
    image = dataset.read("train", "a.png", Problems(allowed=False))
    assert image is not None
    assert image.people[0].keypoints.tolist() == [[0, 0, 0], [10, 11, 2], [30, 31, 2]]
    assert sum(count for repair, count in dataset.repairs.items() if "not labelled" in repair) == 1


def test_columns_in_another_order_than_a_given_skeletons_are_read_by_name(
    table: Callable[[str], Path], fields_of_three: Path
) -> None:
    header = "image,right-ear_x,right-ear_y,Nose_x,Nose_y,left ear_x,left ear_y\n"
    source = table(f"{header}a.png,1,2,30,31,20,21\nb.png,1,2,30,31,20,21\n")
    image = read(source, skeleton=load_skeleton(fields_of_three))
    assert image.people[0].keypoints[:, 0].tolist() == [30, 20, 1]


def test_a_header_may_be_written_in_capitals_with_empty_columns_and_likelihoods(table: Callable[[str], Path]) -> None:
    source = table(
        "File_Name,Keypoint,X,Y,Likelihood,,\na.png,Nose,10,12,1.0,,\na.png,tail,20,30,0.4,,\nb.png,Nose,1,2,0.8,,\n"
    )
    dataset = table_of(source)
    assert dataset.skeleton.keypoint_names == ("Nose", "tail")
    assert not any("not used" in note for note in dataset.notes)
    dataset.read("train", "a.png", Problems(allowed=True))
    assert dataset.repairs["confidences below 0.5 read as not labelled"] == 1
