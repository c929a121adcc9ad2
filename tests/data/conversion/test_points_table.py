"""CSV tables of points to pixels, in all forms."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from uniformer_pose.data.conversion.points_table import read_points_table
from uniformer_pose.errors import InputError
from uniformer_pose.skeleton import Skeleton, load_skeleton

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
def table(tmp_path: Path, picture: Callable[..., Path], convert: Callable[..., Any]) -> Callable[..., Any]:
    """Converts a table beside the pictures a.png and b.png, 40x80 each; one of them is for validation."""
    for name in ("a.png", "b.png"):
        picture(tmp_path / name)

    def run(text: str, **settings: Any) -> Any:
        (tmp_path / "points.csv").write_text(text, encoding="utf-8")
        return convert(read_points_table, tmp_path / "points.csv", **settings)

    return run


def everybody(converted: Any, name: str = "a.png") -> list[list[list[float]]]:
    """Keypoints in an image, of whichever split it is."""
    split = next(s for s in ("train", "val") if name in [i["file_name"] for i in converted.content(s)["images"]])
    return converted.keypoints(name, split)


def test_one_row_a_point_in_any_order(table: Callable[..., Any]) -> None:
    header, *rows = BY_POINT.splitlines()
    for text in (BY_POINT, "\n".join([header, *rows[::2], *rows[1::2]])):
        converted = table(text)
        names = converted.skeleton.keypoint_names
        assert sorted(names) == ["left_hand", "nose", "right_hand"]
        assert converted.skeleton.left_right_pairs == (("left_hand", "right_hand"),)
        people = [dict(zip(names, person, strict=True)) for person in converted.keypoints("a.png")]
        assert people[0] == {"nose": [10, 12, 2], "left_hand": [20.5, 30, 1], "right_hand": [0, 0, 0]}
        assert people[1] == {"nose": [44, 8, 2], "left_hand": [40, 31, 2], "right_hand": [0, 0, 0]}
        assert converted.box("a.png") == pytest.approx([8.2, 10.2, 14.1, 21.6])
        assert len(converted.keypoints("b.png", "val")) == 1


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_one_row_a_person_with_any_delimiter_and_the_mark_of_spreadsheets(
    table: Callable[..., Any], delimiter: str
) -> None:
    converted = table("\ufeff" + BY_PERSON.replace(",", delimiter), categories=["hand"])
    assert converted.content()["categories"][0]["name"] == "hand"
    assert converted.skeleton.keypoint_names == ("nose", "left_hand")
    assert converted.keypoints("a.png") == [[[10, 12, 2], [20.5, 30, 1]], [[44, 8, 2], [40, 31, 2]]]
    assert converted.box("a.png") == [5, 6, 20, 30]
    assert converted.keypoints("b.png", "val") == [[[5, 6, 2], [0, 0, 0]]]


def test_without_a_person_an_image_shows_one_and_without_a_split_some_are_for_validation(
    table: Callable[..., Any],
) -> None:
    converted = table("image,keypoint,x,y\na.png,p,1,2\na.png,q,30,20\nb.png,p,1,2\nb.png,q,10,20\n")
    assert everybody(converted) == [[[1, 2, 2], [30, 20, 2]]]
    assert any("1 of the images, drawn by their names" in note for note in converted.log.notes)


def test_fractions_of_the_size_are_read_if_said(table: Callable[..., Any]) -> None:
    text = "image,keypoint,x,y\na.png,p,0.5,0.25\na.png,q,0.75,0.5\nb.png,p,0.5,0.25\nb.png,q,0.1,0.2\n"
    assert everybody(table(text, normalised=True)) == [[[40, 10, 2], [60, 20, 2]]]
    with pytest.raises(InputError, match="if they are fractions of the size, give normalised=true"):
        table(text)


def test_names_and_order_can_be_a_skeletons(table: Callable[..., Any], skeleton_of_three: Skeleton) -> None:
    rows = "a.png,Left Ear,1,2\na.png,nose,30,20\nb.png,nose,1,2\nb.png,left_ear,9,9\n"
    converted = table(f"image,keypoint,x,y\n{rows}", skeleton=skeleton_of_three)
    assert everybody(converted) == [[[30, 20, 2], [1, 2, 2], [0, 0, 0]]]
    (sentence,) = table(
        f"image,keypoint,x,y\n{rows}a.png,tail,1,2\n", skeleton=skeleton_of_three, skip=True
    ).log.problems
    assert sentence.endswith("points.csv:6: keypoint 'tail'; the skeleton has none of this name")
    header = "image,right-ear_x,right-ear_y,Nose_x,Nose_y,left ear_x,left ear_y\n"
    converted = table(f"{header}a.png,1,2,30,31,20,21\nb.png,1,2,30,31,20,21\n", skeleton=skeleton_of_three)
    assert [point[0] for point in everybody(converted)[0]] == [30, 20, 1]
    with pytest.raises(InputError, match="are not the 17"):
        table(f"{header}a.png,1,2,30,31,20,21\n", skeleton=load_skeleton("coco_17"))


def test_columns_that_nobody_reads_are_told(table: Callable[..., Any]) -> None:
    assert "columns not used: splitt" in table(BY_PERSON.replace("split", "splitt")).log.notes


def test_an_exif_rotated_picture_needs_the_users_word(
    table: Callable[..., Any], picture: Callable[..., Path], tmp_path: Path
) -> None:
    picture(tmp_path / "a.png", 40, 80, 6)
    with pytest.raises(InputError, match="has EXIF orientation 6; give exif=displayed if"):
        table(BY_PERSON)
    assert table(BY_PERSON, exif="stored").keypoints("a.png")[0][0] == [27, 10, 2]
    assert table(BY_PERSON, exif="displayed").keypoints("a.png")[0][0] == [10, 12, 2]


HEADER = "image,person,keypoint,x,y,visibility,split,box_x,box_y,box_width,box_height\n"
BAD_LINES = {
    "a.png,1,nose,1,2,2,train,1,2,3,": "has no usable box, and 1 labelled",
    "a.png,1,nose,1,2,2,train,1,2,-3,4": "has no usable box, and 1 labelled",
    "a.png,1,nose,100,2,2,train,1,2,3,4": "all of its 1 labelled keypoints are outside the picture",
    "a.png,1,nose,1,2,2,val,,,,": "puts a.png into split 'val', an earlier line into 'train'",
    "a.png,1,nose,1,2,2,train": "has 7 fields, the header 11",
    ",1,nose,1,2,2,train,,,,": "has no image",
    "a.png,1,,1,2,2,train,1,2,30,40": "keypoint ''",
    "../c.png,1,nose,1,2,2,train,1,2,3,4": "'../c.png' is not in",
    "c.png,1,nose,1,2,2,train,1,2,3,4": "'c.png' is not in",
    "a.png,1,nose,1,2,2,train,1,2,3,4\na.png,1,nose,3,4,2,train,1,2,3,4": "gives nose of person '1' again",
    "a.png,1,nose,1,2,2,train,1,2,3,4\na.png,1,ear,3,4,2,train,1,2,3,5": "has another box than line 4",
}


@pytest.mark.parametrize("line", BAD_LINES)
def test_a_bad_line_is_named_with_its_number(table: Callable[..., Any], line: str) -> None:
    good = "a.png,0,nose,1,2,2,train,1,2,30,40\nb.png,0,nose,1,2,2,val,1,2,30,40\n"
    (sentence,) = table(f"{HEADER}{good}{line}\n", skip=True).log.problems
    assert BAD_LINES[line] in sentence
    assert f"points.csv:{4 + line.count(chr(10))}: " in sentence


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
        ("image,person,p_x,p_y\na.png,x,1,2\na.png,x,3,4\n", "points.csv:3: person 'x' of a.png has a row already"),
        ("scorer,me\n", "has no rows 'bodyparts' and 'coords'"),
        ("\ud800", "not UTF-8"),
    ],
)
def test_a_table_that_cannot_be_used_is_told_in_one_line(
    table: Callable[..., Any], tmp_path: Path, text: str, expected: str, convert: Callable[..., Any]
) -> None:
    (tmp_path / "points.csv").write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(InputError) as error:
        convert(read_points_table, tmp_path / "points.csv")
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


DEEPLABCUT = """scorer,me,me,me,me
bodyparts,nose,nose,left_hand,left_hand
coords,x,y,x,y
labeled-data/video/a.png,10,12,20.5,30
labeled-data/video/b.png,5,6,7,8
"""
SEVERAL_ANIMALS = """scorer,,,me,me,me,me,me,me
individuals,,,one,one,one,one,two,two
bodyparts,,,nose,nose,left_hand,left_hand,nose,nose
coords,,,x,y,x,y,x,y
labeled-data,video,a.png,10,12,20.5,30,44,8
labeled-data,video,b.png,5,6,7,8,,
"""


@pytest.mark.parametrize("text", [DEEPLABCUT, DEEPLABCUT.replace("\n", "\r\n"), "\ufeff" + DEEPLABCUT])
def test_deeplabcuts_header_of_three_lines_is_read(table: Callable[..., Any], text: str) -> None:
    converted = table(text)
    assert converted.skeleton.keypoint_names == ("nose", "left_hand")
    assert everybody(converted) == [[[10, 12, 2], [20.5, 30, 2]]]


def test_deeplabcuts_individuals_are_people(table: Callable[..., Any]) -> None:
    converted = table(SEVERAL_ANIMALS, skip=True)
    assert everybody(converted, "b.png") == [[[5, 6, 2], [7, 8, 2]]]
    assert everybody(converted) == [[[10, 12, 2], [20.5, 30, 2]]]
    assert "has no usable box, and 1 labelled keypoints" in converted.log.problems[0]  # of the second animal


def test_likelihoods_are_confidences_and_headers_may_have_capitals_and_empty_columns(
    table: Callable[..., Any],
) -> None:
    text = "image,nose.x,nose.y,nose.score,tail_x,tail_y,tail_likelihood,ear_x,ear_y\na.png,9,8,1.0,30,31,0.4,20,21\n"
    converted = table(text + "b.png,9,8,0.97,30,31,0.9,20,21\n")
    assert [point[2] for point in everybody(converted)[0]] == [2, 0, 2]
    assert [point[2] for point in everybody(converted, "b.png")[0]] == [2, 2, 2]
    header = "File_Name,Keypoint,X,Y,Likelihood,,\n"
    rows = (
        "a.png,Nose,10,12,1.0,,\na.png,tail,20,30,0.4,,\na.png,ear,4,5,1,,\nb.png,Nose,1,2,0.8,,\nb.png,tail,9,9,1,,\n"
    )
    converted = table(header + rows)
    assert converted.skeleton.keypoint_names == ("Nose", "tail", "ear")
    assert converted.log.repairs["confidences below 0.5 read as not labelled"] == 1


def test_a_spreadsheet_with_semicolons_has_decimal_commas(table: Callable[..., Any]) -> None:
    text = "Filename;Nose_X;Nose_Y;Tail_X;Tail_Y;Ear_X;Ear_Y\r\na.png;10,5;12;20,25;30;;\r\nb.png;1;2;NaN;nan;8;9\r\n"
    assert everybody(table("\ufeff" + text))[0][:2] == [[10.5, 12, 2], [20.25, 30, 2]]


@pytest.mark.parametrize("cells", ["x,2,", "1,,", "1,inf,", ",,2", "1,2,5", "1,2,-1", "90,2,2"])
def test_a_point_that_cannot_be_used_is_unlabelled_and_counted(table: Callable[..., Any], cells: str) -> None:
    good = "".join(f"{image},{name}\n" for image in ("a.png", "b.png") for name in ("left,10,11,2", "right,30,31,2"))
    converted = table(f"image,keypoint,x,y,visibility\na.png,nose,{cells}\n{good}")
    assert everybody(converted) == [[[0, 0, 0], [10, 11, 2], [30, 31, 2]]]
    assert sum(count for repair, count in converted.log.repairs.items() if "not labelled" in repair) == 1
