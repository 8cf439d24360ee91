"""Write joined studies as a page, as JSON and as CSV, and say on the terminal what they hold. Joined chain: end."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from headswap.errors import ConfigError
from headswap.records import write_json, write_text
from headswap.study.joined import by_length, tables
from headswap.study.joined.figures import figures
from headswap.study.joined.joining import Joined, join
from headswap.study.joined.reading import SUMMARY, StudyRead, read_studies
from headswap.study.joined.verdict import title, verdict
from headswap.study.page import Figure, Table, legends, render_page, without_empty_columns
from headswap.study.results import plain
from headswap.study.sheets import records_sheet, write_tables
from headswap.study.static import write_drawings
from headswap.study.traces import DASHES
from headswap.study.verdict import bracket

PAGE, ROWS = "joined.html", "joined.csv"
TEMPLATE = Path(__file__).with_name("joined.html.j2")


def publish(folders: Sequence[Path], out: Path | None = None) -> tuple[Joined, Path]:
    """Join the studies of these folders and write joined.json, joined.csv, joined.html, figures/ and tables/.

    Args:
        out: the folder that they are written into; without one, outputs/joined-HASH of these studies.
    """
    if out is not None and out.exists() and not out.is_dir():
        raise ConfigError(f"--out: not a folder; found the file {out}; name a folder for the joined page")
    joined = join(read_studies(folders))
    folder = out or default_folder(joined.studies)
    write_json(folder / SUMMARY, plain(_summary(joined, folder)))
    write_text(folder / ROWS, records_sheet(tables.plain_rows(joined, folder)))
    write_text(folder / PAGE, render(joined, folder, files=True))
    drawn = all_figures(joined)
    write_drawings(drawn, _places(joined), folder)
    write_tables({figure.name: figure.table for figure in drawn}, folder)
    return joined, folder


def default_folder(studies: Sequence[StudyRead]) -> Path:
    """Return outputs/joined-HASH, named by which runs are compared, in whatever order the studies were named."""
    names = sorted(each.folder.resolve().name for each in studies)
    pairs = sorted(Path(pair.treatment_folder).name for each in studies for pair in each.primary.pairs)
    digest = hashlib.sha256("\n".join([*names, *pairs]).encode()).hexdigest()
    return Path("outputs") / f"joined-{digest[:8]}"


def show(joined: Joined, folder: Path, console: Any) -> None:
    """Print the table, the sentences and the page's place."""
    console.print(tables.terminal_table(joined))
    for sentence in (*said(joined), *joined.warnings):
        console.print(sentence, markup=False, highlight=False)
    console.print(f"report: {folder / PAGE}", markup=False, highlight=False, soft_wrap=True)


def said(joined: Joined) -> list[str]:
    """Return the sentences: of the studies' verdicts, and of what was learned at which length where they have some."""
    return [*verdict(joined), *by_length.sentences(by_length.by_length(joined.studies))]


def all_figures(joined: Joined) -> list[Figure]:
    """Return the figures of the verdicts, and those against length where the tasks have some."""
    found = by_length.by_length(joined.studies)
    return [*figures(joined), *by_length.figures(found, _places(joined), joined.confidence)]


def render(joined: Joined, folder: Path, files: bool = False) -> str:
    """Return the page as text, with links as they are from `folder`; with `files` to its drawings too."""
    places, found, drawn = _places(joined), by_length.by_length(joined.studies), all_figures(joined)
    lengths = [by_length.table(found, joined.confidence)] if found else []
    return render_page(
        TEMPLATE,
        drawn,
        files=files,
        legends=legends(drawn, places),
        title=title(joined),
        names=(joined.main.treatment, joined.main.control),
        total=f"{len(joined.studies)} {joined.nouns}",
        hero=hero(joined),
        statements=said(joined),
        warnings=joined.warnings,
        design=list(tables.design(joined)),
        main=tables.main_table(joined, folder),
        results=_filled(
            *lengths, tables.aggregate_table(joined), tables.arms_table(joined), tables.speed_table(joined)
        ),
        cautions=tables.warnings_table(joined),
    )


def hero(joined: Joined) -> dict[str, str] | None:
    """Return what stands large beside the statements: the difference of the interquartile means, where there is one."""
    found = joined.main.interquartile
    if found is None:
        return None
    gap, unit = found.difference, joined.unit
    settled = gap.low is not None and gap.high is not None and (gap.low > 0 or gap.high < 0)
    sense = "better" if gap.mean > 0 else "worse"
    return {
        "over": f"Interquartile means, {len(joined.averaged)} {joined.nouns}",
        "tone": sense if settled else "not-settled",
        "big": unit.difference(gap.mean),
        "under": bracket(gap, unit).strip("()") or f"no interval: {gap.reason}",
    }


def _summary(joined: Joined, folder: Path) -> dict[str, Any]:
    return {
        "treatment": joined.main.treatment,
        "control": joined.main.control,
        "confidence": joined.confidence,
        "verdict": said(joined),
        "warnings": joined.warnings,
        "aggregates": [dataclasses.asdict(each) for each in joined.aggregates],
        "left_out": joined.left_out,
        "by_length": by_length.plain(by_length.by_length(joined.studies), joined.confidence),
        "studies": [
            row | {"primary": dataclasses.asdict(each.primary)}
            for row, each in zip(tables.plain_rows(joined, folder), joined.studies, strict=True)
        ],
    }


def _places(joined: Joined) -> dict[str, int]:
    """Return each arm's place among the colours: the treatment is 0 and the control 1, as in every study."""
    arms = (joined.main.treatment, joined.main.control, *(a for s in joined.studies for a in s.comparison.arms))
    return {arm: place % len(DASHES) for place, arm in enumerate(dict.fromkeys(arms))}


def _filled(*made: Table) -> list[Table]:
    return [without_empty_columns(table) for table in made if table.rows]
