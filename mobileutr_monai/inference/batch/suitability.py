"""Which of the cases that were found a bundle is for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mobileutr_monai.core.kinds import CaseKind
from mobileutr_monai.core.reasons import CaseError, Reason
from mobileutr_monai.core.text import pluralize
from mobileutr_monai.inference.batch.errors import UsageError
from mobileutr_monai.readers.cases import FoundInputs, InputCase

__all__ = ["Suitability", "check_found"]


@dataclass(frozen=True)
class Suitability:
    """What a bundle takes.

    Attributes:
        spatial_dims: 2 for images, cines and videos, 3 for volumes.
        modalities: of DICOM, such as US.
        any_modality: take DICOM of other modalities, too.
        how_to_accept: how the caller asks for that, for errors.
    """

    spatial_dims: int
    modalities: Sequence[str]
    any_modality: bool = False
    how_to_accept: str = "--any-modality accepts it"

    def why_rejected(self, case: InputCase) -> CaseError | None:
        """Returns why a case is not for the bundle, None if it is."""
        dims = self.spatial_dims
        if case.spatial_dims != dims:
            found, taken = ("volume", "images") if dims == 2 else ("2D image or cine", "volumes")
            detail = f"{case.kind.value}, a {found}; the bundle takes {taken}"
            if case.kind is CaseKind.VIDEO:
                detail = f"a video; the bundle takes {taken}"
            if case.dicom is not None and case.dicom.why_no_volume:
                detail = f"no volume: {case.dicom.why_no_volume}; the bundle takes {taken}"
            return CaseError(Reason.DIMENSION, detail, skipped=True)
        if case.dicom is not None and not self.any_modality and case.dicom.modality not in self.modalities:
            modality, taken = case.dicom.modality or "none", ", ".join(self.modalities)
            detail = f"{modality}, the bundle is for {taken}; {self.how_to_accept}"
            return CaseError(Reason.MODALITY, detail, skipped=True)
        return None

    def reject_all(self, found: FoundInputs) -> dict[str, CaseError | None]:
        """Returns name of a case -> why it is not for the bundle."""
        return {case.name: self.why_rejected(case) for case in found.cases}


def check_found(
    found: FoundInputs,
    rejected: Mapping[str, CaseError | None],
    spatial_dims: int,
    folder: Path,
    inputs: Sequence[Path],
) -> None:
    """Checks that there is something to do, or to say.

    Args:
        folder: where cases were looked for.
        inputs: files and folders in it that were chosen, if not all of it.

    Raises:
        UsageError: no case is for the bundle, and no file has failed.
    """
    if any(error is None for error in rejected.values()) or any(file.failed for file in found.unused):
        return
    if len(inputs) == 1 and inputs[0].is_file():
        raise UsageError(f"{inputs[0]} {_explain_file(found, rejected, spatial_dims)}")
    kinds = "images" if spatial_dims == 2 else "volumes"
    source = f"the {len(inputs)} paths that are given" if len(inputs) > 1 else str(folder)
    others = pluralize(len(found.cases) + len(found.unused), "other file")
    reasons = sorted({str(error) for error in rejected.values() if error is not None})
    reasons += sorted({file.detail for file in found.unused if file.reason is Reason.FOREIGN_FORMAT})
    why = f"; {reasons[0]}" if reasons else ""
    raise UsageError(f"no {kinds} for this bundle in {source} ({others}{why})")


def _explain_file(found: FoundInputs, rejected: Mapping[str, CaseError | None], spatial_dims: int) -> str:
    """Returns why a file that was given alone is not segmented, as the end of a sentence."""
    for case in found.cases:
        error = rejected[case.name]
        detail = "" if error is None else error.detail
        is_slice = case.kind is CaseKind.STILL and spatial_dims == 3
        advice = "; give the folder with all slices of its series" if is_slice else ""
        return f"is not for this bundle: {detail}{advice}"
    errors = [CaseError(file.reason, file.detail) for file in found.unused] or [CaseError(Reason.NOT_AN_IMAGE)]
    is_foreign = errors[0].reason is Reason.FOREIGN_FORMAT
    return f"cannot be read: {errors[0].detail if is_foreign else errors[0]}"
