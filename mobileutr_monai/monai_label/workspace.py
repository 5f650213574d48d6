"""The folders that MONAI Label works in: its app, and copies of the bundles whose weights learn."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from monai.bundle import ConfigParser

from mobileutr_monai.core.atomic import write_text
from mobileutr_monai.core.model_settings import read_settings, settings_path
from mobileutr_monai.networks import load_weights

__all__ = ["Workspace", "make_private", "prepare_app"]

# MONAI Label looks for a class of its own in the app's main.py.
_MAIN = '''"""Written by mobileutr_monai.monai_label."""

from mobileutr_monai.monai_label.app import BundleApp  # noqa: F401
'''


@dataclass(frozen=True)
class Workspace:
    """What a bundle learns in.

    Attributes:
        folder: with ``model/`` and, where no other bundle is served, all of the app.
        bundle: the copy that MONAI Label reads, and trains; the shipped one is never written to.
        metadata: of the bundle.
        lock: held as long as this object lives, so that no other server trains the same copy.
    """

    folder: Path
    bundle: Path
    metadata: dict[str, Any]
    lock: FileLock

    @classmethod
    def prepare(cls, shipped: Path, work: Path, restore: bool = False) -> Workspace:
        """Copies the bundle, but for weights that have been trained there, and checks that the weights fit its network.

        Args:
            shipped: the bundle.
            work: folder of the workspaces of all bundles.
            restore: take the shipped weights again; the trained ones are kept in ``models/trained/``.

        Raises:
            FileNotFoundError: it is no bundle, or has no weights, or its copy has lost them.
            ValueError: the weights do not fit the network, another server works in the folder, or MONAI's parser would
                change its name.
        """
        needed = [Path("configs", name) for name in ("inference.json", "train.json", "metadata.json")]
        for path in needed:
            if not (shipped / path).is_file():
                raise FileNotFoundError(f"{shipped} is no bundle: it has no {path}")
        _check_weights(shipped, shipped / "models" / "model.pt")
        folder = (work / shipped.resolve().name).resolve()
        if "#" in str(folder) or "::" in str(folder):  # MONAI Label hands it to MONAI's parser as a text
            raise ValueError(
                f"{folder} contains '#' or '::', which MONAI reads as syntax; choose another --work folder"
            )
        bundle = folder / "model" / shipped.resolve().name
        models = bundle / "models"
        lock = _lock(folder)
        for source in shipped.iterdir():
            if source.name not in ("models", "eval"):
                _copy(source, bundle / source.name)
        models.mkdir(parents=True, exist_ok=True)
        # A training that has finished leaves what was there before in previous/.
        if restore and (models / "previous").is_dir():
            _keep_trained(models)
        if not (models / "previous").is_dir():
            _copy(shipped / "models" / "model.pt", models / "model.pt")
            _copy_settings(shipped / "models" / "model.pt", models / "model.pt")
        if not (models / "model.pt").is_file():
            remedy = "start with --restore for the bundle's own, or copy one of previous/ there"
            raise FileNotFoundError(f"{models} has lost the trained weights model.pt; {remedy}")
        _use_settings(bundle, read_settings(models / "model.pt"))
        _check_weights(bundle, models / "model.pt")
        metadata = json.loads((bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))
        return cls(folder, bundle, metadata, lock)


def prepare_app(work: Path, workspaces: Sequence[Workspace]) -> Path:
    """Returns the app's folder: ``main.py``, logs, temporary files, the cache of a PACS.

    Nobody else may read it. Temporary files of a server that was killed are removed.

    Args:
        work: folder of the workspaces of all bundles.
        workspaces: of those that are served.
    """
    folder = workspaces[0].folder
    if len(workspaces) > 1:
        folder = (work / "+".join(workspace.bundle.name for workspace in workspaces)).resolve()
    for path in (folder, folder / "logs", *(workspace.folder for workspace in workspaces)):
        make_private(path)
    for path in (folder / "logs").iterdir():
        path.chmod(0o600)
    for name in ("tmp", "sessions"):
        _remove(folder / name)
        make_private(folder / name)
    (folder / "main.py").write_text(_MAIN, encoding="utf-8")
    return folder


def make_private(folder: Path) -> None:
    """Makes a folder that only its owner may enter, also if it is there already."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)


def _lock(folder: Path) -> FileLock:
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise ValueError(f"another server works in {folder}; stop it, or give another folder with --work") from None
    return lock


def _keep_trained(models: Path) -> None:
    """Moves what training has left to the next free ``trained/NUMBER``."""
    numbers = [int(path.name) for path in (models / "trained").glob("*") if path.name.isdigit()]
    target = models / "trained" / str(max(numbers, default=0) + 1)
    target.mkdir(parents=True)
    for name in ("model.pt", "previous", "training"):
        if (models / name).exists():
            (models / name).rename(target / name)


def _check_weights(bundle: Path, weights: Path) -> None:
    parser = ConfigParser()
    parser.read_config(str(bundle / "configs" / "inference.json"))
    parser.update({name: value for name, value in read_settings(weights).items() if name in parser})
    load_weights(parser.get_parsed_content("network_def"), weights)


def _copy_settings(source: Path, target: Path) -> None:
    """Copies the settings that are kept next to weights; removes those of other weights."""
    if settings_path(source).is_file():
        _copy(settings_path(source), settings_path(target))
    else:
        settings_path(target).unlink(missing_ok=True)


def _use_settings(bundle: Path, settings: Mapping[str, Any]) -> None:
    """Writes the settings of the weights into the copy's configs: MONAI Label reads them alone."""
    for name in ("inference", "train") if settings else ():
        path = bundle / "configs" / f"{name}.json"
        config = json.loads(path.read_text(encoding="utf-8"))
        config |= {key: value for key, value in settings.items() if key in config}
        write_text(path, json.dumps(config, indent=4) + "\n")


def _copy(source: Path, target: Path) -> None:
    """Copies a file or folder atomically, in the place of what is there."""
    temporary = target.with_name(f".{target.name}.tmp")
    _remove(temporary)
    temporary.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, temporary)
    else:
        shutil.copy2(source, temporary)
    _remove(target)
    temporary.rename(target)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
