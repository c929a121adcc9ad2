"""Commands that are printed to be copied: the shell and Hydra read them as they are meant."""

from __future__ import annotations

import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from uniformer_pose.overrides import given_values, shell_command

TEXTS = [
    "runs/a/best.ckpt",
    "my runs [a=b]/best.ckpt",
    "a'b",
    'a"b',
    "a\\'b",
    "end\\",
    "a,b",
    "choice(a,b)",
    "null",
    "true",
]
TEXTS += ["12", "1e5", "nan", "a${x}b", "${oc.env:HOME}", "#a", "q?x=1&b", "~/a", "(a)", "{a: b}", "'a'", '"a"', " a"]
TEXTS += ["$(a)", "a;b", "!x", "*.jpg", "=", "C:\\a\\b", "hf://o/r@main/f"]


@pytest.mark.parametrize("text", TEXTS)
def test_a_printed_command_gives_the_text_back(text: str) -> None:
    line = shell_command("python", "src/eval.py", "--config-dir", text, ckpt_path=text, **{"data.prepared": text})
    *words, first, second = shlex.split(line)
    assert words == ["python", "src/eval.py", "--config-dir", text]
    for argument, key in ((first, "ckpt_path"), (second, "data.prepared")):
        parsed = OverridesParser.create().parse_override(argument)
        assert parsed.key_or_group == key
        assert OmegaConf.create({"x": "no", "value": parsed.value()}).value == text


def test_plain_values_are_printed_plainly() -> None:
    line = shell_command("python", "src/train.py", "...", **{"data.prepared": "data/coco/prepared"})
    assert line == "python src/train.py ... data.prepared=data/coco/prepared"


def test_the_given_values_are_those_of_the_arguments_that_have_one() -> None:
    arguments = ["++a.b='x y'", "+c={d: 'k', e: [1]}", "f=1,2", "-m", "~g", "--config-dir=x", "h=[", "i="]
    assert given_values(arguments) == {"a.b": "x y", "c": {"d": "k", "e": [1]}, "f": "1,2", "i": ""}
