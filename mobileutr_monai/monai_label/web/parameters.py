"""What requests may ask for: the names of all parameters, their types and their ranges. Everything else is refused.

MONAI evaluates a string that starts with ``$`` as Python wherever it reaches a configuration. So no text of a request
gets that far: numbers are numbers, and words are of a list.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, TypeVar

from fastapi import HTTPException
from monailabel.utils.others.generic import device_list, device_map
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

__all__ = [
    "BatchParameters",
    "InferParameters",
    "LabelParameters",
    "SampleParameters",
    "ScoringParameters",
    "TrainParameters",
    "describe_problems",
    "parse_parameters",
]

UNPROCESSABLE = 422

# Peak learning rate of fine-tuning: a quarter of what the weights were trained with from nothing.
LEARNING_RATE = 0.0005
BATCH_SIZE = 4
MAX_EPOCHS = 20
VAL_SPLIT = 0.2

_MOST_EPOCHS = 1000
_LARGEST_BATCH = 64


def _first(value: Any) -> Any:
    """A list of choices that a client sends back unchanged stands for its first."""
    return value[0] if isinstance(value, list) and value else value


def _check_device(device: str) -> str:
    known = ["cpu", "cuda", *device_list(), *device_map().values()]
    if device not in known:
        raise ValueError(f"devices of this server are {', '.join(dict.fromkeys(known))}")
    return device


def _check_number(value: Any) -> Any:
    """Refuses JSON's true and false, which pydantic takes for 1 and 0."""
    if isinstance(value, bool):
        raise ValueError("must be a number")
    return value


Whole = Annotated[int, BeforeValidator(_check_number)]
Real = Annotated[float, BeforeValidator(_check_number)]
Device = Annotated[str, BeforeValidator(_first), AfterValidator(_check_device)]
Tag = Annotated[str, Field(pattern=re.compile(r"^[A-Za-z0-9_-]{1,64}$"))]
Name = Annotated[str, Field(max_length=256)]


class _Parameters(BaseModel):
    """Every client may say who it is."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, protected_namespaces=())

    client_id: Name = ""

    def chosen(self) -> dict[str, Any]:
        """Returns what the client has set, but for its own name."""
        chosen: dict[str, Any] = self.model_dump(exclude_unset=True, exclude={"client_id"})
        return chosen


class TrainParameters(_Parameters):
    """Of ``/train``."""

    max_epochs: Whole = Field(MAX_EPOCHS, ge=1, le=_MOST_EPOCHS)
    val_split: Real = Field(VAL_SPLIT, gt=0, lt=1)
    learning_rate: Real = Field(LEARNING_RATE, gt=0, le=1)
    batch_size: Whole = Field(BATCH_SIZE, ge=1, le=_LARGEST_BATCH)
    pretrained: bool = True
    force: bool = False
    device: Device = "cuda"


class InferParameters(_Parameters):
    """Of ``/infer``."""

    device: Device = "cuda"
    result_extension: Literal[".png", ".nii", ".nii.gz", ".nrrd"] = ".nii.gz"
    result_dtype: Literal["uint8", "uint16"] = "uint8"
    result_compress: bool = False
    restore_label_idx: bool = False
    save_label: bool = False
    label_tag: Tag = "original"
    label_info: list[Any] | None = None
    logging: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"


class BatchParameters(_Parameters):
    """Of ``/batch/infer``."""

    device: Device = "cuda"
    multi_gpu: bool = False
    gpus: str = Field("all", pattern=r"^(all|\d{1,2}(,\d{1,2}){0,15})$")
    logging: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "WARNING"
    save_label: Literal[True] = True
    label_tag: Tag = "original"
    max_workers: Whole = Field(1, ge=0, le=16)
    max_batch_size: Whole = Field(0, ge=0)


class ScoringParameters(_Parameters):
    """Of ``/scoring``."""

    device: Device = "cuda"
    max_samples: Whole = Field(0, ge=0)


class SampleParameters(_Parameters):
    """Of ``/activelearning``."""

    model: Name = ""
    label_tag: Tag = "final"


class LabelParameters(_Parameters):
    """Of a label that is saved. What is not known is left out: an annotation is not lost for it."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())

    label_info: list[Any] | None = None
    creator: Annotated[str, Field(max_length=64)] = ""
    model: Name = ""


P = TypeVar("P", bound=_Parameters)


def parse_parameters(kind: type[P], values: Any) -> P:
    """Checks parameters.

    Raises:
        HTTPException: 422 and what is wrong with them, in one line.
    """
    try:
        checked: P = kind.model_validate({} if values is None else values)
    except ValidationError as error:
        raise HTTPException(UNPROCESSABLE, describe_problems(error.errors())) from None
    return checked


def describe_problems(problems: Any) -> str:
    """Returns pydantic's errors in one line, without the values that were sent."""
    lines = []
    for problem in problems:
        place = ".".join(str(part) for part in problem["loc"] if part not in ("body", "query"))
        text = "no such parameter" if problem["type"] == "extra_forbidden" else str(problem["msg"])
        lines.append(": ".join(filter(None, (place, text.removeprefix("Value error, ")))))
    return "; ".join(lines)
