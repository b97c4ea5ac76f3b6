"""Predict a cohort with one model: resumed where it stopped, with a table of what was found."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
import uuid
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import filelock

from napari_diffseg.io.files import check_outputs, content_sha256, make_folder
from napari_diffseg.io.finding import FoundVolume, case_name
from napari_diffseg.io.volume import MASK_ENDINGS
from napari_diffseg.io.voxels import read_text
from napari_diffseg.network.device import pick_device
from napari_diffseg.network.segmenter import Segmenter
from napari_diffseg.session.cohort_case import CohortError, Job
from napari_diffseg.session.cohort_table import TABLE, CaseResult, read_table, write_table
from napari_diffseg.session.cohort_workers import Dask, Pool, Processes, ThisProcess

_STATE = ".predictions"
_JOURNAL_BYTES = 1 << 27  # one line for each case
"""Folder beside the masks that is there during a run, or after one that was killed."""
_DONE = ("predicted", "present")
_PART = re.compile(r"\.\w{8}\.part")  # folders that atomic_write leaves when it is killed


@dataclass(frozen=True)
class CohortProgress:
    """How far a cohort is.

    Attributes
    ----------
    done, total
        Cases that need nothing more, and all.
    remaining
        Estimated s to the end, or ``None`` while nobody knows.
    result
        The case that was just done, or ``None`` in between.
    """

    done: int
    total: int
    remaining: float | None
    result: CaseResult | None = None


def predict_cohort(
    volumes: Sequence[FoundVolume],
    model: Path,
    output: Path,
    ending: str = ".nii.gz",
    device: str = "auto",
    workers: int = 1,
    dask: str | None = None,
    overwrite: bool = False,
    adapt: bool = True,
) -> Generator[CohortProgress, None, tuple[CaseResult, ...]]:
    """Predict volumes one by one, and write their masks and a table into a folder.

    A mask that is there, unchanged, and was made by the same model from the same volume is kept; so
    a run that was stopped goes on where it was. Masks that this function made are replaced when
    model or volume have changed. Others, such as corrected ones, are left alone, and their cases
    fail.

    Parameters
    ----------
    volumes
        See :func:`~napari_diffseg.io.finding.find_volumes`.
    model
        Saved model.
    output
        Folder for the masks, ``predictions.csv`` and ``predictions.json``; made if it is not there.
    ending
        Of the masks, which chooses their format.
    device
        ``auto``, ``cpu``, ``cuda`` or ``mps``.
    workers
        Processes on this machine; 1 is this process. Each has one volume in memory.
    dask
        Address of a Dask scheduler, whose workers see the same files; ``workers`` is not used then.
    overwrite
        Predict again, and replace whatever mask is there.
    adapt
        Let the model adapt to each volume first (:func:`~napari_diffseg.engine.adaptation.adapt`).

    Yields
    ------
    CohortProgress
        Twice a second or after each slice. Closing the iterator stops the run: what is done is in
        the table, and no file is left half written.

    Returns
    -------
    The rows of this run, in the order of `volumes`.

    Raises
    ------
    ValueError
        At the first step, before anything is written, if the model cannot be used, or an output
        would replace a file that is not ours. What is wrong with one volume is in its row instead.

    Examples
    --------
    >>> from napari_diffseg.io import find_volumes
    >>> steps = predict_cohort(find_volumes(["imagesTs"]), Path("model.safetensors"), Path("masks"))
    >>> for progress in steps:  # doctest: +SKIP
    ...     print(progress.done, "of", progress.total)
    """
    pick_device(device)
    masks = [output / f"{volume.name}{ending}" for volume in volumes]
    _check(volumes, masks, model, output, ending)
    Segmenter.load(model)
    make_folder(output)
    with _Run(output, overwrite) as run:
        _check_beside(volumes, masks, output, run)
        sha256 = content_sha256(model)
        pool: Pool = Dask(dask) if dask else Processes(workers) if workers > 1 else ThisProcess()
        plan = [
            Job(
                volume.path.absolute() if dask else volume.path,
                mask.absolute() if dask else mask,
                model.absolute() if dask else model,
                sha256,
                device,
                adapt,
                run.running,
                CaseResult(volume.name, volume.path.resolve().name, mask.name, "not reached"),
            )
            for volume, mask in zip(volumes, masks, strict=True)
        ]
        try:
            yield from _drive(pool, plan, run)
        finally:
            run.running.unlink(missing_ok=True)
            for row in pool.stop():
                run.end(row)
            run.stop(plan)
        return tuple(run.records[mask.name] for mask in masks)


def _drive(pool: Pool, plan: Sequence[Job], run: _Run) -> Generator[CohortProgress, None, None]:
    began = time.monotonic()
    waiting, done, active, predicted = deque(plan), 0, 0, 0
    while waiting or active:
        results: list[CaseResult] = []
        while waiting and pool.free > 0:
            job = waiting.popleft()
            ready = run.begin(job)
            if isinstance(ready, Job):
                pool.submit(ready)
                active += 1
            else:
                results.append(ready)
        finished = pool.wait() if active else []
        active -= len(finished)
        results += finished
        for result in results:  # all of them, before somebody may close this generator
            run.end(result)
        for result in results:
            done += 1
            predicted += result.status == "predicted"
            remaining = _remaining(began, predicted + pool.share, len(plan) - done - pool.share)
            yield CohortProgress(done, len(plan), remaining, result)
        remaining = _remaining(began, predicted + pool.share, len(plan) - done - pool.share)
        yield CohortProgress(done, len(plan), remaining)


def _remaining(began: float, done: float, left: float) -> float | None:
    """Seconds left, by those that the cases took so far which had to be predicted."""
    return (time.monotonic() - began) / done * left if done else None


def _check(
    volumes: Sequence[FoundVolume], masks: list[Path], model: Path, output: Path, ending: str
) -> None:
    if ending not in MASK_ENDINGS:
        raise CohortError(f"{ending}: no format of masks; use one of {', '.join(MASK_ENDINGS)}")
    seen: set[Path] = set()
    for mask in masks:
        if mask in seen:
            raise CohortError(f"two volumes would both be written to {mask}: rename one")
        seen.add(mask)
    if output.is_dir():
        tables = [output / f"{TABLE}.csv", output / f"{TABLE}.json"]
        check_outputs([*masks, *tables], [*(volume.path for volume in volumes), model])
    elif os.path.lexists(output):
        raise CohortError(f"{output}: is not a folder; the masks of all volumes go into one")


def _check_beside(
    volumes: Sequence[FoundVolume], masks: list[Path], output: Path, run: _Run
) -> None:
    """Refuse to replace what lies beside a CT: the mask's name is ours, not the user's."""
    if any(volume.path.parent.samefile(output) for volume in volumes if volume.path.exists()):
        for mask in masks:
            if mask.exists() and not run.wrote(mask):
                raise CohortError(f"{mask}: exists beside a volume; choose another folder")


class _Run:
    """What is on disk besides the masks: the table, and a journal while it runs.

    Parameters
    ----------
    output
        Folder of the masks; one run at a time.
    overwrite
        Whether any mask may be replaced.

    Attributes
    ----------
    records
        Rows of earlier runs, and of this one, by the mask's file name.
    running
        A file that is there as long as this run goes on.
    """

    def __init__(self, output: Path, overwrite: bool) -> None:
        self._output, self._state, self._overwrite = output, output / _STATE, overwrite
        self._lock = filelock.FileLock(self._state / "lock", timeout=0)
        self.running = self._state.absolute() / f"running-{uuid.uuid4().hex[:8]}"
        self.records: dict[str, CaseResult] = {}
        self._begun: set[str] = set()  # masks that we may replace, with no row yet

    def __enter__(self) -> _Run:
        rows = read_table(self._output)
        make_folder(self._state)
        try:
            self._lock.acquire()
        except filelock.Timeout as error:
            raise CohortError(
                f"{self._output}: another prediction writes there; wait, or choose another folder"
            ) from error
        for stale in self._state.glob("running-*"):
            stale.unlink()
        for entry in self._output.iterdir():
            if _PART.fullmatch(entry.name) and entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
        self.records = {row.mask: row for row in rows}
        self._replay()
        self.records = {n: row for n, row in self.records.items() if (self._output / n).exists()}
        self.running.touch()
        return self

    def _replay(self) -> None:
        """Read what a run that was killed had done."""
        journal = self._state / "journal"
        for line in read_text(journal, _JOURNAL_BYTES).splitlines() if journal.exists() else []:
            try:
                values = json.loads(line)
                if "begun" in values:
                    self._begun.add(values["begun"])
                else:
                    row = CaseResult.from_json(values)
                    self.records[row.mask] = row
                    self._begun.discard(row.mask)
            except (ValueError, LookupError, TypeError, RecursionError):
                continue  # the line that was being written then

    def wrote(self, mask: Path) -> bool:
        """Whether a mask that is there was written by this program, and not changed since."""
        known = self.records.get(mask.name)
        if mask.name in self._begun:
            return True
        return known is not None and known.mask_sha256 == content_sha256(mask)

    def begin(self, job: Job) -> Job | CaseResult:
        """Return what is known of a case's mask with its job, or the row if it must be kept."""
        if job.mask.exists():
            wrote = self.wrote(job.mask)
            if not (wrote or self._overwrite):
                error = (
                    f"{job.mask.name}: is there and was changed, or written by another program; "
                    "move it away, or replace it with --overwrite"
                )
                return replace(job.result, status="failed", error=error)
            known = self.records.get(job.mask.name)
            if (
                wrote
                and known is not None
                and known.status in _DONE
                and known.model_sha256 == job.model_sha256
                and known.adapted == job.adapt
                and known.mask_sha256 == content_sha256(job.mask)
                and not self._overwrite
            ):
                job = replace(job, known=known)
        self._begun.add(job.mask.name)
        self._append({"begun": job.mask.name})
        return job

    def end(self, row: CaseResult) -> None:
        """Note a row."""
        mask = self._output / row.mask
        if row.mask in self._begun and not row.mask_sha256 and mask.exists():
            row = replace(row, mask_sha256=content_sha256(mask))  # so that it may be replaced
        if row.status in _DONE:  # others may still be written, by a worker that was given up
            self._begun.discard(row.mask)
        self.records[row.mask] = row
        self._append(asdict(row))

    def stop(self, plan: Sequence[Job]) -> None:
        """Note the cases of this run that have no row yet; an earlier row of their mask stays."""
        for job in plan:
            self.records.setdefault(job.mask.name, job.result)
        for name in [*self._begun]:
            mask, row = self._output / name, self.records.get(name)
            row = row or CaseResult(case_name(mask), "", name, "not reached")
            if mask.exists() and row.mask_sha256 != content_sha256(mask):
                # Written in the moment of the stop: without figures, but it may be replaced.
                status = row.status if row.status == "failed" else "not reached"
                self.end(replace(row, status=status, labels=(), mask_sha256=""))

    def _append(self, values: dict[str, object]) -> None:
        with (self._state / "journal").open("a", encoding="utf-8") as stream:
            stream.write("\n" + json.dumps(values))  # whatever line was cut off ends here
            stream.flush()
            os.fsync(stream.fileno())

    def __exit__(self, *error: object) -> None:
        self.running.unlink(missing_ok=True)
        try:
            if self.records:
                write_table(self._output, [*self.records.values()])
        finally:
            self._lock.release()
        shutil.rmtree(self._state, ignore_errors=True)  # not before the table has it all
