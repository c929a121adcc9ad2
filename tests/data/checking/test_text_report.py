"""The screen of text about a dataset."""

from __future__ import annotations

from uniformer_pose.data.checking.text_report import text_report


def test_a_sound_dataset_is_described_and_nothing_is_wrong(dataset) -> None:
    lines = text_report(dataset.check()).splitlines()
    assert lines[1] == "  60 images, 60 annotations: 60 people in 60 images; 60 images read"
    assert lines[2].startswith("  boxes: 0 small, ")
    assert lines.count("  nothing wrong") == 2
    assert lines[-1] == "0 errors, 0 remarks"


def test_errors_come_first_with_their_number_and_first_example(dataset) -> None:
    for number in range(3):
        dataset.train["annotations"][number]["bbox"] = [1, 2, 3]
    dataset.train["annotations"][4]["num_keypoints"] = 1
    text = text_report(dataset.check(read_images=False))
    error, remark = (line for line in text.splitlines() if line.startswith(("  error", "  remark")))
    name = next(
        entry["file_name"]
        for entry in dataset.train["images"]
        if entry["id"] == dataset.train["annotations"][0]["image_id"]
    )
    assert error.startswith(f"  error       3  box_malformed: {name}: annotation 1 has 3 numbers in 'bbox'")
    assert "num_keypoints_wrong" in remark
    assert text.endswith("3 errors, 1 remark (no image was opened)")


def test_the_report_fits_a_screen_however_much_is_wrong(dataset) -> None:
    from test_dataset_check import PLANTS

    for plant in PLANTS.values():
        plant(dataset)
    lines = text_report(dataset.check()).splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 160
    assert any("more kinds, which the JSON report lists" in line for line in lines)
