"""The command line: what it prints, its exit status, and that it leaves nothing but the dataset."""

from programs import require_one_line, run_here, run_in_own_process

SMALL = ("root=people", "num_train_images=10", "num_val_images=2", "image_height=64", "image_width=64", "workers=0")


def test_it_writes_once_says_so_and_refuses_other_settings_with_status_2(tmp_path):
    first = run_in_own_process("make_synthetic.py", SMALL, tmp_path)
    assert (first.returncode, first.stderr) == (0, "")
    assert "wrote 12 images to people" in first.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["people"]
    assert "nothing to do" in run_here("make_synthetic.py", SMALL, tmp_path).stdout
    refused = run_here("make_synthetic.py", [*SMALL, "seed=3"], tmp_path)
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: root=people holds a synthetic dataset with other settings (seed)")
    assert refused.stderr.count("\n") == 1


def test_it_says_what_the_figure_is_too_coarse_for_and_refuses_animals_in_one_line(tmp_path):
    written = run_here("make_synthetic.py", [*SMALL, "skeleton=coco_wholebody_133"], tmp_path)
    assert written.returncode == 0
    assert "unlabelled: 100 of the 133 keypoints of coco_wholebody_133, points of face and hands" in written.stdout
    refused = run_here("make_synthetic.py", [*SMALL, "root=animals", "skeleton=ap10k_17"], tmp_path)
    require_one_line(refused, "error: skeleton ap10k_17 is of figure animal, and only people are drawn")
    assert not (tmp_path / "animals").exists()
