"""The ``mobileutr`` command."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from typing import NoReturn

PROGRAM = "mobileutr"
NAMED = ("predict", "export", "new-bundle")
"""Verbs whose bundle may be given by its name; those that write into it take its folder."""
RESEARCH_ONLY = "Research only. Not a medical device."


def command() -> int:
    """What a process does that is started as the command."""
    return main(is_alone=True)


def main(arguments: Sequence[str] | None = None, *, is_alone: bool = False) -> int:
    """Runs one verb; returns 0 (all went well), 1 (some cases failed) or 2 (usage).

    Args:
        is_alone: nothing else runs in this process, so that a verb may import MONAI without what the verb does not use.
    """
    import warnings

    from mobileutr_monai.bundle.find import find_bundle
    from mobileutr_monai.core.program import name_user
    from mobileutr_monai.verbs.options import location

    parser = _build_parser()
    options, unknown = parser.parse_known_args(arguments)
    if unknown and vars(options).get("sources", "") == [] and not any(text.startswith("-") for text in unknown):
        # argparse takes an optional SOURCE for left out when an option stands before it.
        options.sources, unknown = list(map(location, unknown)), []
    if unknown:
        parser.exit(2, _say_usage(f"unrecognized arguments: {' '.join(unknown)}", f"{PROGRAM} {options.name_of_verb}"))
    options.is_alone = is_alone
    name_user()
    logging.getLogger("monai").setLevel(logging.ERROR)  # it warns of optional packages that this project does not use
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # Pillow warns of what is then said in the verb's own words
            if options.name_of_verb in NAMED:
                for name in {"bundle", "parent"} & vars(options).keys():
                    setattr(options, name, find_bundle(getattr(options, name)))
            return int(options.verb(options))
    except (
        FileExistsError,
        FileNotFoundError,
        IsADirectoryError,
        NotADirectoryError,
        PermissionError,
        ValueError,
    ) as error:
        print(f"{PROGRAM}: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{PROGRAM}: stopped", file=sys.stderr)
        return 1


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, _say_usage(message, self.prog))


def _say_usage(message: str, command: str) -> str:
    return f"{PROGRAM}: error: {message}; see {command} --help\n"


def _build_parser() -> argparse.ArgumentParser:
    import mobileutr_monai
    from mobileutr_monai.verbs import bundles, data, export, labels, predict, training

    parser = _Parser(prog=PROGRAM, description=f"Segment medical images with MobileUtr. {RESEARCH_ONLY}")
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {mobileutr_monai.__version__}")
    verbs = parser.add_subparsers(title="verbs", required=True, metavar="VERB", dest="name_of_verb")
    predict.add_verb(verbs)
    export.add_verb(verbs)
    data.add_verbs(verbs)
    bundles.add_verbs(verbs)
    training.add_verbs(verbs)
    labels.add_verb(verbs)
    return parser


if __name__ == "__main__":
    sys.exit(command())
