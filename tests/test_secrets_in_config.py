"""Secrets are refused where they would be written down, without being repeated; what only sounds like one is kept."""

from __future__ import annotations

from typing import Any

import pytest

from uniformer_pose.errors import InputError
from uniformer_pose.overrides import given_values
from uniformer_pose.secrets_in_config import refuse_secrets


@pytest.mark.parametrize(
    "argument",
    [
        "+logger.wandb.settings.api_key=hunter2",
        "++logger.wandb.settings={api_key: hunter2}",
        "hf_token=hunter2",
        "+logger.neptune.api_token=hunter2",
        "+logger.mine.apiKey=hunter2",
        "+logger.mine.client-secret=hunter2",
        "password=hunter2,hunter3",
        "+a.b=[{WANDB_API_KEY: hunter2}]",
        "hydra.launcher.setup=[export WANDB_API_KEY\\=hunter2]",
        "token='hunter2'",
        "ckpt_path='https://me:hunter2@host.org/x.ckpt'",
        "ckpt_path='https://hunter2@host.org/x.ckpt'",
        "ckpt_path='https://h.org/x.ckpt?X-Amz-Signature=hunter2#sha256=abc'",
        "ckpt_path='https://h.org/x.ckpt?a=1&token=hunter2'",
        "data.if_missing='see https://me:hunter2@host.org/'",
    ],
)
def test_a_secret_argument_is_refused_with_what_to_do_and_not_repeated(argument: str) -> None:
    with pytest.raises(InputError) as caught:
        refuse_secrets(given_values([argument]))
    assert "environment variable" in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"num_tokens": 7, "token_dim": 3, "cls_token": "mean", "keypoints": "x", "key": "left", "tokens": ["a"]},
        {"token": None, "password": False, "api_key": 3, "secret": "???", "hf_token": ""},
        {
            "ckpt_path": "hf://owner/repo@main/file.safetensors",
            "url": "https://host.org/a@b/x.ckpt?download=true#sha256=ab",
        },
        {"source": "photos/?.jpg", "name": "token=3", "monkey": "yes", "patience": "x", "tokenizer": "bpe"},
        {"lines": ["export OMP_NUM_THREADS=1", "TOKEN == 3"]},
    ],
)
def test_what_only_sounds_like_a_secret_is_a_setting(settings: dict[str, Any]) -> None:
    refuse_secrets(settings)
