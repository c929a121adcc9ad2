"""The pose network with a backbone of timm in UniFormer's place.

Source: timm (github.com/huggingface/pytorch-image-models, Apache-2.0), which builds the backbones. What is taken of
them is the last map, behind the model's own last norm where the classifier has that norm on the map: ViT, Swin, MaxViT,
NextViT and others. In ConvNeXt and CAFormer it stands behind the pooling, is trained on pooled vectors, and stays out;
Hiera's cannot be had on maps. HRNet's is its branch of stride 4, as in the paper on poses (Sun et al. 2019, arXiv
1902.09212), not the widened maps of its classifier.

timm is imported where it is needed: whoever trains or loads a UniFormer need not wait for it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Annotated, Any

import torch
from annotated_types import Ge, Le, Len, Lt
from torch import Tensor, nn

from uniformer_pose.errors import WRONG_VALUES, InputError, one_line
from uniformer_pose.keypoints.codec import parts_of
from uniformer_pose.model.arguments import HeadArguments, OfDeconvolutions, plain_arguments, settle
from uniformer_pose.model.head import pose_head
from uniformer_pose.nearest_name import did_you_mean, nearest
from uniformer_pose.ranges import Count

CropSide = Annotated[int, Ge(32), Le(4096)]
WRONG_FOR_TIMM = (*WRONG_VALUES, AssertionError)
"""What timm raises for arguments, sizes and files that a model does not take."""

_HRNET = {"features_only": True, "feature_location": "", "out_indices": (1,)}
_WITHOUT_NORM = ("Hiera", "HieraDet")  # their forward_intermediates(norm=True) is refused
_NOWHERE = "?"  # a name that no pattern of timm's matches


@dataclass(frozen=True)
class TimmArguments:
    """What a ``TimmPoseNetwork`` is: its weights have a meaning only with these.

    - ``backbone``: a name of ``timm.list_models()``, with the tag of its weights after a dot where that is not the
      default: ``convnext_tiny``, ``convnext_tiny.fb_in1k``.
    - ``crop_height``, ``crop_width``: of the images in pixels; Swin, ViT and others are built for one size.
    - ``drop_path_rate``: stochastic depth of the last block.
    - ``checkpointed``: activations are recomputed in the backward pass instead of kept, where timm does it.
    - ``deconv_channels``: of the heatmap head's transposed convolutions; a stride of 16 takes the last two, 4 none.
    - ``head``: what comes behind the backbone.
    """

    num_keypoints: Count
    backbone: Annotated[str, Len(1, 100)]
    crop_height: CropSide
    crop_width: CropSide
    drop_path_rate: Annotated[float, Ge(0), Lt(1)] = 0.0
    checkpointed: bool = False
    deconv_channels: OfDeconvolutions = (256, 256, 256)
    head: HeadArguments | Mapping[str, Any] = HeadArguments()  # noqa: RUF009  # frozen

    def __post_init__(self) -> None:
        settle(self)


class TimmPoseNetwork(nn.Module):
    """Normalised RGB person crops of one size -> what the head gives, behind a backbone of timm.

    The arguments are those of ``TimmArguments``, such as ``TimmPoseNetwork(17, "hrnet_w32", 256, 192)``. ``backbone``
    is timm's model under its own names, without its classifier. Raises InputError for a name that timm does not have,
    with the nearest one, and for what that model cannot do.
    """

    # The arguments are written once, in the dataclass; a configuration is checked against them.
    __signature__ = inspect.signature(TimmArguments, eval_str=True)

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__()
        given = TimmArguments(*arguments, **named)
        self.backbone, is_hrnet = _backbone(given), _is_hrnet(given.backbone)
        self._taken = None if is_hrnet else self.backbone.prune_intermediate_layers([-1])
        self._norm = type(self.backbone).__name__ not in _WITHOUT_NORM
        last = self.backbone.feature_info[1 if is_hrnet else -1]
        try:
            self.head = pose_head(given, last["num_chs"], last["reduction"])
        except InputError as error:
            raise InputError(f"model.backbone={given.backbone}: {error}") from error
        self.arguments: dict[str, Any] = plain_arguments(given)

    def forward(self, images: Tensor) -> Any:
        """Images (B, 3, crop_height, crop_width) -> heatmaps (B, K, H/4, W/4) or what else ``head`` gives."""
        if self._taken is None:
            return self.head(self.backbone(images)[-1])
        taken: dict[str, Any] = {"indices": self._taken, "norm": self._norm, "output_fmt": "NCHW"}
        return self.head(self.backbone.forward_intermediates(images, intermediates_only=True, **taken)[-1])

    def freeze_unused(self, output_shape: tuple[int, ...]) -> list[str]:
        """Take from training what no gradient reaches, such as HRNet's last fusion to other strides; returns names.

        DDP would wait for their gradients. Raises InputError where the backbone fails for its crops, or the output's
        shape of a keypoint is not ``output_shape``.
        """
        backbone, size = self.arguments["backbone"], (self.arguments["crop_height"], self.arguments["crop_width"])
        trained = {name: values for name, values in self.named_parameters() if values.requires_grad}
        was_training = self.training
        try:
            outputs = [part for part in parts_of(self.eval()(torch.zeros(1, 3, *size))) if part is not None]
            gradients = torch.autograd.grad([part.sum() for part in outputs], [*trained.values()], allow_unused=True)
        except WRONG_FOR_TIMM as error:
            raise _refused(backbone, f"fails for crops of {size[0]}x{size[1]}", error) from error
        finally:
            self.train(was_training)
        if tuple(outputs[0].shape[2:]) != output_shape:
            found = f"{tuple(outputs[0].shape[2:])}, not {output_shape}"
            raise InputError(f"model.backbone={backbone}: gives {found} for crops of {size[0]}x{size[1]}")
        unused = [name for name, gradient in zip(trained, gradients, strict=True) if gradient is None]
        for name in unused:
            trained[name].requires_grad_(False)
        return unused

    def group_matcher(self, coarse: bool = False) -> Callable[[str], int]:
        """Parameter name -> layer, counted as timm does for the classifier, the head behind all of them.

        InputError where timm says nothing of the model's layers, or not of all of them.
        """
        from timm.models import group_parameters

        name = self.arguments["backbone"]
        if not hasattr(self.backbone, "group_matcher"):
            raise InputError(f"optimizer.layer_decay: timm does not say what the layers of {name} are; leave it out")
        # With a name more, so that what no pattern matches, and timm would count as the head, is known.
        pairs = [*self.backbone.named_parameters(), (_NOWHERE, None)]
        matcher, named = self.backbone.group_matcher(coarse=coarse), SimpleNamespace(named_parameters=lambda: pairs)
        layers: dict[str, int] = group_parameters(named, matcher, reverse=True)
        behind = layers.pop(_NOWHERE)
        if lost := [n for n, layer in layers.items() if layer == behind]:
            raise InputError(f"optimizer.layer_decay: timm does not say to which layer of {name} {lost[0]} belongs")
        return lambda parameter: layers.get(parameter.removeprefix("backbone."), behind)

    def no_weight_decay(self) -> set[str]:
        """Names of what weight decay leaves alone beside norms and biases, such as position embeddings."""
        return {f"backbone.{name}" for name in getattr(self.backbone, "no_weight_decay", set)()}


def size_arguments(backbone: str, height: int, width: int) -> dict[str, Any]:
    """What timm's model has to be told of the size of its images."""
    import timm

    return {"img_size": (height, width)} if timm.get_pretrained_cfg(backbone).fixed_input_size else {}


def _backbone(given: TimmArguments) -> Any:
    """timm's model, its weights random."""
    import timm
    from timm.layers import DropPath

    _require_known(given.backbone)
    settings = size_arguments(given.backbone, given.crop_height, given.crop_width)
    settings |= _HRNET if _is_hrnet(given.backbone) else {}
    settings |= {"drop_path_rate": given.drop_path_rate} if given.drop_path_rate else {}
    try:
        model = timm.create_model(given.backbone, **settings)
        if given.checkpointed:
            model.set_grad_checkpointing(True)
    except WRONG_FOR_TIMM as error:
        if "drop_path_rate" not in str(error):
            stated = f"cannot be built for crops of {given.crop_height}x{given.crop_width}"
            stated += " with model.checkpointed=true" if given.checkpointed else ""
            raise _refused(given.backbone, stated, error) from error
        model = nn.Module()
    if given.drop_path_rate and not any(isinstance(part, DropPath) and part.drop_prob for part in model.modules()):
        raise InputError(
            f"model.drop_path_rate={given.drop_path_rate}: {given.backbone} has no stochastic depth; give 0"
        )
    return model


def _require_known(backbone: str) -> None:
    import timm

    name, _, tag = backbone.partition(".")
    if not timm.is_model(name):
        guess = nearest(name, timm.list_models())
        advice = f"did you mean {guess}?" if guess else "timm.list_models() are its names"
        raise InputError(f"model.backbone={backbone}: timm has no such model; {advice}")
    tags = timm.list_pretrained(f"{name}.*")
    if tag and backbone not in tags:
        raise InputError(f"model.backbone={backbone}: timm has no such weights; {did_you_mean(backbone, tags)}")


def _is_hrnet(backbone: str) -> bool:
    return backbone.startswith("hrnet_")


def _refused(backbone: str, what: str, error: BaseException) -> InputError:
    return InputError(f"model.backbone={backbone}: {what} ({one_line(error)}); choose another backbone")
