"""A sweep as a page for the documentation: tables, curves and the rows themselves."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from diffseg_training.benchmark import figures, patients, tables
from diffseg_training.benchmark.in_volume import machines, title_of
from diffseg_training.benchmark.machine import REFERENCE_GFLOPS
from diffseg_training.benchmark.reports import ReportError, write_text
from diffseg_training.benchmark.sweeps import read_rows
from diffseg_training.benchmark.tables import Row

_PROTOCOLS = {
    "in-volume": (
        "Inside volumes",
        "Some slices of a volume are painted, the others between its first and last labelled one "
        "are tested.",
    ),
    "scribbles": (
        "Scribbles",
        "As inside volumes, but 5 % of the pixels of the same slices are painted.",
    ),
    "cross-volume": (
        "From volume to volume",
        "As inside volumes, from a model that was trained on another volume.",
    ),
    "cross-patient": (
        "Across patients",
        "Slices of some patients are painted, every slice of the others is tested.",
    ),
}


def publish(source: Path, output: Path, name: str) -> Iterator[Path]:
    """Write ``NAME.md`` with its figures and ``NAME.jsonl``, and yield each path.

    Parameters
    ----------
    source
        Folder of a sweep, or a file of rows, which may be the page's own.
    output
        Folder of the documentation.
    name
        Name of the page.

    Raises
    ------
    ReportError
        If no row of the sweep has figures.
    """
    rows = read_rows(source / "rows.jsonl" if source.is_dir() else source)
    done = tables.finished(rows)
    if not done:
        raise ReportError(f"{source}: holds no finished rows; run a sweep first")
    output.mkdir(parents=True, exist_ok=True)
    published = output / f"{name}.jsonl"
    if published.resolve() != source.resolve():
        yield write_text(published, "".join(json.dumps(row) + "\n" for row in rows))
    parts = [f"# Benchmark `{name}`", "", _preamble(rows, name)]
    for protocol, (title, about) in _PROTOCOLS.items():
        own = [row for row in rows if row["protocol"] == protocol]
        if not tables.finished(own):
            continue
        parts += [f"## {title}", "", about, ""]
        several = _several(own)
        budgets = _budgets(own)
        for budget in budgets:
            at = [row for row in own if row["budget"] in (None, budget)]
            parts += _tables(at, f", {budget:g} nominal seconds" if several else "")
        for (tests, amount), some in tables.by_test(own, "amount").items():
            if _several(some):
                parts += [f"### Dice against nominal seconds, {tests}, {amount}", ""]
                parts += [tables.by_budget(some, title_of), ""]
        amounts, budget = max((len(_amounts(own, budget)), budget or 0.0) for budget in budgets)
        if amounts > 1:
            path = output / f"{_figure(name, protocol)}-slices.png"
            at = [row for row in own if row["budget"] in (None, budget)]
            figures.curve(at, "slices", path, title_of)
            yield path
            parts += [f"![Dice against painted slices]({path.name})", ""]
            parts += [f"At {budget:g} nominal seconds.", ""] if several else []
        path = output / f"{_figure(name, protocol)}-seconds.png"
        # Not every method has every amount: a mean over them would compare unlike with like.
        amount, alike = _fewest(own)
        figures.cost(alike, path, title_of)
        yield path
        parts += [
            f"![Dice at {amount} against seconds of learning and prediction]({path.name})",
            "",
        ]
        parts += [f"Dice at {amount} against real seconds.", ""]
    further = [row for row in done if row["protocol"] == "patients"]
    for own in tables.grouped(further, "data").values():
        parts += _patients(own)
        for slices, some in patients.by_patients(own).items():
            if len({row["patients"] for row in some}) > 1:
                path = output / f"{name}-dice-{slices}.png"
                figures.curve(some, "patients", path, title_of)
                yield path
                parts += [f"![Dice against labelled patients]({path.name})", ""]
                parts += [f"Painted slices of each: {slices}.", ""]
    if gained := tables.gains(rows, title_of):
        parts += ["## From a model of another volume: Dice, and the gain over the backbone", ""]
        parts += [gained, ""]
    if calibrated := tables.calibrations(rows, title_of):
        parts += ["## Confidence", "", calibrated, ""]
    parts += ["## Cost", "", tables.costs(rows, title_of)]
    if broken := tables.failures(rows):
        parts += ["", "## Failed rows", "", broken]
    yield write_text(output / f"{name}.md", "\n".join(parts))


def _figure(name: str, protocol: str) -> str:
    """Beginning of the names of a protocol's figures; a page with its name says it once."""
    return name if name == protocol else f"{name}-{protocol}"


def _budgets(rows: Sequence[Row]) -> list[float | None]:
    """Budgets that most methods had, longest first; one or two methods alone make no table."""
    budgeted = [row for row in rows if row["budget"] is not None]
    methods = {
        budget: len({row["method"] for row in own})
        for (budget,), own in tables.grouped(budgeted, "budget").items()
    }
    most = max(methods.values(), default=0)
    return sorted((b for b, count in methods.items() if 2 * count >= most), reverse=True) or [None]


def _several(rows: Sequence[Row]) -> bool:
    return len({row["budget"] for row in rows} - {None}) > 1


def _amounts(rows: Sequence[Row], budget: float | None) -> set[int]:
    return {row["slices"] for row in tables.finished(rows) if row["budget"] in (None, budget)}


def _tables(rows: Sequence[Row], at: str) -> list[str]:
    parts = [f"### Dice in percent{at}", "", tables.by_amount(rows, title_of, "dice", 100), ""]
    tests = tables.by_test(rows)
    if len(tests) > 1:
        for (tested,), own in tests.items():
            parts += [f"### Dice in percent, {tested}{at}", ""]
            parts += [tables.by_amount(own, title_of, "dice", 100), ""]
    parts += [
        f"### Jaccard in percent{at}",
        "",
        tables.by_amount(rows, title_of, "jaccard", 100),
        "",
    ]
    parts += [f"### HD95 in mm{at}", "", tables.by_amount(rows, title_of, "hd95_mm"), ""]
    for (amount,), own in tables.grouped(tables.finished(rows), "amount").items():
        parts += [f"### Dice of each structure in percent, {amount}{at}", ""]
        parts += [tables.per_label(own, title_of), ""]
    return parts


def _patients(rows: Sequence[Row]) -> list[str]:
    """Dice by labelled patients and painted slices, of rows about the same scans."""
    scans = sorted({scan for row in rows for scan in (*row["train"], *row["test"])})
    structures = ", ".join(sorted({label for row in rows for label in row["labels"]}))
    about = (
        f"Structures: {structures}. Columns: labelled patients × painted slices of each. Every "
        "slice of another patient is tested; those who follow in this list are labelled, and "
        "after the last one the first. A mean over fewer of them than the others says so, as "
        "[1 of 4], and is not drawn."
    )
    parts = [f"## {', '.join(scans)}", "", about, "", "### Dice", ""]
    parts += [tables.by_amount(rows, title_of), ""]
    for (tested,), own in tables.by_test(rows).items():
        parts += [f"### Dice, {tested}", "", tables.by_amount(own, title_of), ""]
    return parts


def _fewest(rows: Sequence[Row]) -> tuple[str, list[Row]]:
    done = tables.finished(rows)
    amount: str = min(done, key=lambda row: row["slices"])["amount"]
    return amount, [row for row in done if row["amount"] == amount]


def _preamble(rows: Sequence[Row], name: str) -> str:
    done = tables.finished(rows)
    days = sorted(row["finished"] for row in done)
    budgets = sorted({row["budget"] for row in done if row["budget"] is not None})
    learns = f"{', '.join(f'{b:g}' for b in budgets)} nominal seconds" if budgets else "no time"
    if any(row["iterations"] for row in done):
        learns += ", or the steps that the table of costs names"
    return "\n".join(
        [
            f"{len(done)} rows of {len(rows)} finished, from {days[0]} to {days[-1]}; all of them "
            f"are in `{name}.jsonl`. Mean over structures, ± standard deviation over test sets and "
            "seeds. [README](README.md) describes what is measured and how each method works.",
            "",
            f"- Learning: {learns} (a nominal second is a second on a machine whose matrix product "
            f"runs at {REFERENCE_GFLOPS:g} GFLOP/s)",
            f"- Seeds: {', '.join(map(str, sorted({row['seed'] for row in rows})))}",
            f"- Absent structures: {' and '.join(sorted({row['absent'] for row in rows}))}",
            f"- Rivals: {'small variants' if rows[0]['small'] else 'full size'}",
            *machines(done),
            *_backbones(done),
            "",
        ]
    )


def _backbones(rows: Sequence[Row]) -> list[str]:
    """One line for each backbone, by the first digits of its SHA-256."""
    own = tables.grouped((row for row in rows if row["weights"] is not None), "weights")
    return [
        f"- Backbone {weights}: {len(some)} rows, the last of {max(r['finished'] for r in some)}"
        for (weights,), some in own.items()
    ]
