"""Models on the Hugging Face hub, or in a folder of the same form: ``config.json`` and ``model.safetensors``."""

from __future__ import annotations

import tempfile
from pathlib import Path

from huggingface_hub import HfApi

from uniformer_pose.errors import InputError, one_line
from uniformer_pose.model.other_network import NetworkClass
from uniformer_pose.saved_model import SavedModel
from uniformer_pose.weights.export import save_pretrained
from uniformer_pose.weights.fetch import DEFAULT_FILE
from uniformer_pose.weights.loading import load_model

_CARD = """---
library_name: uniformer-pose
{license}pipeline_tag: keypoint-detection
tags: [uniformer, pose-estimation]
---

# {repo_id}

{network}: person crops of {codec.height}x{codec.width} (height x width) to {skeleton.num_keypoints} keypoints
({skeleton.name}), decoded with {codec.method}.

```python
from uniformer_pose import from_pretrained

model = from_pretrained("{repo_id}"{model_class})
```
"""


def from_pretrained(
    name_or_folder: str | Path, *, revision: str | None = None, model_class: NetworkClass | None = None
) -> SavedModel:
    """The model of a hub repository (``owner/name``), or of a folder that ``save_pretrained`` wrote.

    ``revision`` is a branch, a tag or, best, a commit. ``model_class`` as for ``load_model``. Raises InputError as that
    does.
    """
    folder = Path(name_or_folder).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise InputError(f"{folder}: a folder has no revision {revision!r}; leave it out")
        return load_model(folder, model_class=model_class)[0]
    if str(name_or_folder).count("/") != 1:
        raise InputError(f"{name_or_folder}: neither a folder nor the name of a hub repository, owner/name")
    address = f"hf://{name_or_folder}/{DEFAULT_FILE}" + (f"@{revision}" if revision else "")
    return load_model(address, model_class=model_class)[0]


def push_to_hub(model: SavedModel, repo_id: str, *, private: bool | None = None, token: str | None = None) -> str:
    """Upload a model as ``owner/name`` and make the repository where there is none; returns the address.

    Weights, ``config.json`` and a model card, in one commit. Raises InputError when the hub refuses or is out of reach.
    """
    other, is_uniformer = model.other_network, model.pose_network is not None
    card = _CARD.format(
        repo_id=repo_id,
        codec=model.codec,
        skeleton=model.skeleton,
        network="UniFormer pose network" if is_uniformer else f"Pose network `{other.path if other else 'timm'}`",
        # Weights that another backbone started from have licences of their own, some not for commercial use.
        license="license: apache-2.0\n" if is_uniformer else "",
        model_class="" if other is None else f', model_class="{other.path}"',
    )
    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(model, folder)
        (Path(folder) / "README.md").write_text(card, encoding="utf-8")
        api = HfApi(token=token)
        try:
            made = api.create_repo(repo_id, private=private, exist_ok=True)
            api.upload_folder(repo_id=made.repo_id, folder_path=folder, commit_message="Upload UniFormer pose model")
        except Exception as error:  # no network, no permission, no such owner: each library layer has errors of its own
            raise InputError(
                f"{repo_id}: not uploaded ({one_line(error)}); log in with `hf auth login` and try again"
            ) from error
    return str(made)
