"""The volumes of a cohort: from paths, patterns, folders and lists, each with a name of its own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from napari_diffseg.io.dicom_scan import read_header
from napari_diffseg.io.geometry import VolumeError
from napari_diffseg.io.volume import IMAGE_ENDINGS, stem
from napari_diffseg.io.voxels import read_text

_FIRST_CHANNEL = "_0000"
"""Ends the names of images in nnU-Net's layout; a CT has no other channel."""
_MAGIC = frozenset("*?[")
_FEW = 50
"""Files of a folder of which one must be DICOM, if it holds a DICOM series at all."""


@dataclass(frozen=True)
class FoundVolume:
    """A volume of a cohort.

    Attributes
    ----------
    path
        File or DICOM folder.
    name
        What it is called: its file's name without ending and without nnU-Net's ``_0000``, or
        its folder's name where all files have one name.
    """

    path: Path
    name: str


def case_name(path: Path) -> str:
    """Name of a case after its file: no ending, and no ``_0000`` of nnU-Net's layout.

    Examples
    --------
    >>> case_name(Path("imagesTs/liver_007_0000.nii.gz"))
    'liver_007'
    """
    name = stem(path.resolve())
    return name.removesuffix(_FIRST_CHANNEL) or name


def find_volumes(words: Iterable[str | Path], skip: Path | None = None) -> tuple[FoundVolume, ...]:
    """Find the volumes that are meant by paths, patterns, folders and lists.

    Parameters
    ----------
    words
        Each a file, a pattern such as ``"data/*/ct.nii.gz"``, a folder, or ``@list.txt``. A folder
        holds images (``imagesTs`` of nnU-Net's layout, where there is one), a folder for each
        patient, or one DICOM series. A list names one of the others on each line, as seen from the
        list's own folder; empty lines and those that begin with ``#`` do not count.
    skip
        A folder that is left out, such as that of the masks.

    Returns
    -------
    In the order of the words, each volume once. A path that is not there is kept: whoever reads it
    says so.

    Raises
    ------
    VolumeError
        If a list cannot be read, or a pattern, list or folder has no volume.

    Examples
    --------
    >>> folder = getfixture("tmp_path")
    >>> for name in ("b_0000.nii.gz", "a_0000.nii.gz", "notes.txt"):
    ...     (folder / name).touch()
    >>> [volume.name for volume in find_volumes([folder])]
    ['a', 'b']
    """
    found: dict[Path, FoundVolume] = {}
    hidden = None if skip is None else skip.resolve()
    for word in words:
        for volume in _expand(str(word), hidden):
            found.setdefault(volume.path.resolve(), volume)
    return tuple(found.values())


def files_in(folder: Path, endings: tuple[str, ...]) -> list[Path]:
    """List files that lie in a folder itself, by name: of a pair the header, no hidden ones."""
    return [
        path
        for path in sorted(folder.iterdir())
        if path.name.lower().endswith(endings) and not path.name.startswith(".")
        if path.is_file()
        if path.suffix.lower() != ".img" or not path.with_suffix(".hdr").exists()
    ]


def _images(folder: Path) -> list[Path]:
    """CTs in a folder; a ``.seg.nrrd`` is a segmentation."""
    files = files_in(folder, IMAGE_ENDINGS)
    return [path for path in files if not path.name.lower().endswith(".seg.nrrd")]


def _expand(word: str, skip: Path | None) -> list[FoundVolume]:
    path = Path(word).expanduser()
    if word.startswith("@") and not path.exists():
        lines = _lines(Path(word[1:]).expanduser())
        return _told_apart([volume for line in lines for volume in _expand(line, skip)])
    if path.is_dir():
        return _in_folder(path, skip)
    if not path.exists() and not _MAGIC.isdisjoint(word):
        matches = Path(path.anchor).glob(str(path.relative_to(path.anchor)))
        volumes = [
            volume
            for match in sorted(matches)
            if match.resolve() != skip and not match.name.startswith(".")
            for volume in (_in_folder(match, skip) if match.is_dir() else [_named(match)])
        ]
        if not volumes:
            raise VolumeError(f"{word}: no file has such a name; check the pattern")
        return _told_apart(volumes)
    return [_named(path)]


def _named(path: Path) -> FoundVolume:
    return FoundVolume(path, case_name(path))


def _told_apart(volumes: list[FoundVolume]) -> list[FoundVolume]:
    """Name files that are all called the same after their folders."""
    if len(volumes) < 2 or len({volume.name for volume in volumes}) > 1:
        return volumes
    return [replace(volume, name=volume.path.resolve().parent.name) for volume in volumes]


def _lines(path: Path) -> list[str]:
    try:
        text = read_text(path)
    except OSError as error:
        raise VolumeError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except UnicodeDecodeError as error:
        raise VolumeError(f"{path}: is not UTF-8 text; a list has one path a line") from error
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if not lines:
        raise VolumeError(f"{path}: names no volume; write one path a line")
    nested = next((line for line in lines if line.startswith("@")), None)
    if nested is not None:
        raise VolumeError(f"{path}: names another list ({nested}); write the paths themselves")
    return [str(path.parent / Path(line).expanduser()) for line in lines]


def _in_folder(folder: Path, skip: Path | None) -> list[FoundVolume]:
    images = _images(folder)
    if images:
        return [_named(path) for path in images]
    if (folder / "imagesTs").is_dir():
        return _in_folder(folder / "imagesTs", skip)
    entries = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    inner = [path for path in entries if path.is_dir() and path.resolve() != skip]
    if any(path.is_file() for path in entries) or not inner:
        return [_named(folder)]
    found: list[FoundVolume] = []
    studies = set()
    for patient in inner:
        images = _images(patient)
        if len(images) > 1:
            raise VolumeError(
                f"{patient}: holds {len(images)} images; name the CTs with a pattern such as "
                f'"{folder}/*/{images[0].name}"'
            )
        study = None if images else _study(patient)
        if images or study is not None:
            found.append(FoundVolume(images[0] if images else patient, patient.name))
            studies.add(study)
    # The folders of one study are one patient's, of which one series may be the CT.
    one_study = len(studies) == 1 and None not in studies
    return [_named(folder)] if one_study or not found else found


def _study(folder: Path) -> str | None:
    """Study of the first DICOM file in a folder, or ``None`` where there is none."""
    files = (path for path in folder.rglob("*") if path.is_file())
    for _, path in zip(range(_FEW), files, strict=False):
        try:
            return str(read_header(path).get("StudyInstanceUID", ""))
        except Exception:  # not DICOM, or damaged: reading it as a volume will say so
            continue
    return None
