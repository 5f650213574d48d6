"""The one table of reasons."""

from __future__ import annotations

import pickle

import pytest

from mobileutr_monai.core.reasons import CaseError, Reason, remedy_for


@pytest.mark.parametrize("reason", Reason, ids=lambda reason: reason.name)
def test_every_reason_has_a_remedy_in_one_sentence(reason: Reason) -> None:
    assert remedy_for(reason.value) == reason.remedy
    assert reason.remedy.endswith(".")
    assert "\n" not in reason.remedy


def test_no_two_reasons_read_alike() -> None:
    assert len(Reason.__members__) == len(list(Reason))


def test_an_unknown_reason_has_no_remedy() -> None:
    assert (remedy_for(""), remedy_for("of another program")) == ("", "")


def test_a_reason_is_printed_as_the_report_has_it_and_survives_another_process() -> None:
    assert f"{Reason.CRASH}" == "decoder crashed"
    assert pickle.loads(pickle.dumps(Reason.CRASH)) is Reason.CRASH
    error = pickle.loads(pickle.dumps(CaseError(Reason.MODALITY, "CT", skipped=True)))
    assert (error.reason, error.detail, error.skipped, str(error)) == (
        Reason.MODALITY,
        "CT",
        True,
        "not this bundle's modality: CT",
    )
