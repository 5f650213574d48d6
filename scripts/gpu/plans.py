"""What is trained together in one window of a GPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from augment import AUGMENTATIONS
from monai.networks.nets import AttentionUnet, FlexibleUNet, SegResNet, UNet
from teacher import make_teacher
from torch import nn

from mobileutr_monai.networks import MobileUtr

__all__ = ["PLANS", "Run", "Stage"]


def make_base() -> nn.Module:
    return MobileUtr(spatial_dims=2, in_channels=3, out_channels=1)


@dataclass(frozen=True)
class Run:
    """One network and what it learns from.

    ``sampling``: set -> its share of the images of a batch. ``turns``: steps in each round. ``start``: weights, a file
    or the name of a run of an earlier stage. ``keep``: whether its weights are written.
    ``milestones``: whether it is scored on the way. ``teacher``: a run of an earlier stage, or a file of weights for
    ``make_teacher``, whose probabilities are learnt as well as the masks.
    """

    name: str
    pack: str
    datalist: str
    sampling: dict[str, float]
    make: Callable[[], nn.Module] = make_base
    augmentation: str = ""
    sections: tuple[str, ...] = ("training",)
    selection: tuple[str, ...] = ("validation", "validation_whole", "normal_validation")
    rate: float = 0.003
    batch_size: int = 32
    size: int = 256
    turns: int = 1
    start: str = ""
    keep: bool = True
    milestones: bool = True
    teacher: str = ""
    seed: int = 0


@dataclass(frozen=True)
class Stage:
    """Runs that take turns, for a share of the time that is left; a resumed run from a stage to the next is one
    object in both."""

    runs: list[Run] = field(default_factory=list)
    share: float = 1.0


def _breast(k: int, **changes: object) -> Run:
    given: dict = {
        "name": f"breast{k}",
        "pack": "breast",
        "datalist": f"busi_busbra_split{k}",
        "sampling": {"busi": 0.42, "busbra": 0.5, "busi_normal": 0.08},
        "augmentation": "breast",
        "sections": ("training", "normal_training"),
    }
    return Run(**{**given, **changes})


_FIRST = _breast(1, name="breast_other_hospital", sampling={"busbra": 0.92, "busi_normal": 0.08}, keep=False)
_COLON = Run(
    "colon", "colon", "kvasir_cvc", {"kvasir_seg": 0.65, "cvc_clinicdb": 0.35}, augmentation="colon", rate=0.003
)
_SKIN = Run(
    "skin",
    "skin",
    "isic2018_isic2017",
    {"isic2018_task1": 0.6, "isic2017": 0.4},
    augmentation="skin",
    rate=0.002,
    start="bundles/skin_dermoscopy_segmentation/models/model.pt",
)
_BREASTS = [_breast(k, start="breast_other_hospital", rate=0.003, seed=k) for k in (1, 2, 3)]

PEERS: dict[str, Callable[[], nn.Module]] = {
    "MobileUtr base": make_base,
    "MobileUtr large": lambda: MobileUtr(spatial_dims=2, in_channels=3, out_channels=1, variant="large"),
    "UNet": lambda: UNet(
        spatial_dims=2, in_channels=3, out_channels=1, channels=(32, 64, 128, 256, 512), strides=(2, 2, 2, 2),
        num_res_units=2, norm="batch",
    ),
    "AttentionUnet": lambda: AttentionUnet(
        spatial_dims=2, in_channels=3, out_channels=1, channels=(32, 64, 128, 256, 512), strides=(2, 2, 2, 2)
    ),
    "SegResNet": lambda: SegResNet(spatial_dims=2, in_channels=3, out_channels=1, init_filters=16),
    "FlexibleUNet": lambda: FlexibleUNet(in_channels=3, out_channels=1, backbone="efficientnet-b0", pretrained=False),
}  # fmt: skip


def _peers(size: int) -> list[Run]:
    runs = []
    for name, make in PEERS.items():
        changes: dict[str, Any] = {"make": make, "size": size, "keep": False, "milestones": False, "seed": 7}
        runs.append(_breast(1, **{**changes, "name": f"{name} breast"}))
        runs.append(Run(f"{name} colon", "colon", "kvasir_cvc", {"kvasir_seg": 0.65, "cvc_clinicdb": 0.35},
                        augmentation="colon", **changes))  # fmt: skip
    return runs


def _teach(run: Run, **changes: Any) -> Run:
    """Returns the run of the teacher for a network's data."""
    own: dict[str, Any] = {"name": f"teacher_{run.name}", "make": make_teacher, "rate": 7e-4, "start": "", "seed": 3}
    return replace(run, **(own | changes))


def _learn(run: Run, **changes: Any) -> Run:
    """Returns a network's run with its teacher's help."""
    own: dict[str, Any] = {"name": f"{run.name}_taught", "teacher": f"teacher_{run.name}", "rate": 2e-3}
    return replace(run, **(own | changes))


def _ablations() -> list[Run]:
    """Returns the breast recipe and what differs from it by one part, from random weights, at 128 pixels."""
    names = ["breast", *(name for name in AUGMENTATIONS if name.startswith(("breast_with_", "breast_without_")))]
    changes: dict[str, Any] = {"size": 128, "batch_size": 16, "keep": False, "milestones": False, "seed": 7}
    return [_breast(1, **changes, name=name, augmentation=name) for name in names]


def _polishes() -> list[Run]:
    """Returns what could make the shipped breast weights better, from these weights: each differs from the first by
    one thing."""
    changes: dict[str, Any] = {"augmentation": "breast_mild", "rate": 4e-4, "batch_size": 8, "milestones": False}
    changes |= {"start": "weights/breast1.pt", "seed": 12}
    more_normals = {"busi": 0.42, "busbra": 0.4, "busi_normal": 0.18}
    return [
        _breast(1, **changes, name="polish"),
        _breast(1, **changes, name="polish_320", size=320),
        _breast(1, **changes, name="polish_normals", sampling=more_normals),
        _breast(1, **changes | {"augmentation": "breast_mild_with_copy_paste"}, name="polish_normals_copy_paste",
                sampling=more_normals),
    ]  # fmt: skip


# fmt: off
PLANS: dict[str, list[Stage]] = {
    "window": [Stage([_FIRST, _COLON, _SKIN], 0.22), Stage([*_BREASTS, _COLON, _SKIN], 1.0)],
    "smoke": [Stage([_breast(1), _COLON])],
    "one": [Stage([_breast(1, keep=False)])],
    # On two CPU cores, from the weights of "window".
    "polish_breast": [Stage([_breast(1, name="breast1_polished", augmentation="breast_mild", rate=4e-4, batch_size=8,
                                     start="weights/breast1.pt", seed=11,
                                     sampling={"busi": 0.42, "busbra": 0.4, "busi_normal": 0.18})])],
    "polish_colon": [Stage([replace(_COLON, name="colon_polished", augmentation="colon_mild", rate=4e-4, batch_size=8,
                                    start="weights/colon.pt", seed=11)])],
    # Teachers with an encoder from ImageNet, each for the lists of one network, which then learns from it, too.
    "taught": [
        Stage([_teach(_breast(k)) for k in (1, 2, 3)] + [_teach(_COLON), _teach(_SKIN)], 0.35),
        Stage([_learn(_breast(k, seed=k, start=f"weights/breast{k}.pt")) for k in (1, 2, 3)]
              + [_learn(replace(_COLON, start="weights/colon.pt")), _learn(_SKIN)]),
    ],
    # The same on a CPU core, one after the other.
    "teacher_breast": [Stage([_teach(_breast(1), batch_size=8)])],
    "teacher_colon": [Stage([_teach(_COLON, batch_size=8)])],
    "taught_breast": [Stage([_learn(_breast(1, start="weights/breast1.pt"), teacher="weights/teacher_breast1.pt",
                                    rate=1e-3, batch_size=8)])],
    "taught_colon": [Stage([_learn(replace(_COLON, start="weights/colon.pt"), teacher="weights/teacher_colon.pt",
                                   rate=1e-3, batch_size=8)])],
    # What each part of the recipe is worth.
    "ablations": [Stage(_ablations())],
    "polishes": [Stage(_polishes())],
    "peers": [Stage(_peers(128))],
}
