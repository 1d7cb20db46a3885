"""A study is data: which runs are trained, and what is printed beside what.

Table 1, the ablations and a user's own study are files of one format (TOML; recipes/ has examples):

    title = "How labels are matched"
    splits = ["refshapes"]                 # data sets, as `--split` takes them
    seeds = 3                              # 0, 1, 2; or a list
    against = "Baseline"                   # the row that the others' gains are over

    [[rows]]
    name = "Baseline"
    method = "baseline"                    # any setting of a run (`TrainConfig`)

    [[rows]]
    name = "IOM at 0.6"
    match = { strategy = "iom", iou_rate = 0.6 }

Everything that is not said is the recipe's of the data set (recipes.py).
"""

import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_type_hints

from semires.pipeline.reporting.published import published_numbers
from semires.pipeline.scoring.subsets import NAMES as SUBSETS
from semires.pipeline.study.typed import as_type
from semires.stages.data.errors import InputError
from semires.stages.data.splits import spec_of

Shows = Literal["scores", "labels", "curves"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of a study's table: a method, and in what its runs differ from the recipe.

    settings: of `TrainConfig`, those of `match`, `views` and `group` as mappings; `recipe` too, a name of
    `train_recipe`. mutual: likewise, of mutual learning alone: the burn-in is that of the row without them. only: data
    set -> settings on it alone. published: what the row is called in the published table, None where it is in none;
    table: that table, None for the study's. remark: a sentence below the table, without its full stop.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    mutual: Mapping[str, Any] = field(default_factory=dict)
    only: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    published: str | None = None
    table: str | None = None
    remark: str | None = None

    def own_share(self, split: str) -> Any:
        """The labeled share that the row itself says for a data set, None where it says none."""
        return self.only.get(split, {}).get("labeled", self.settings.get("labeled"))


@dataclass(frozen=True, kw_only=True)
class Study:
    """What is trained and shown. InputError for what cannot be.

    name: what files and folders are called by. splits: data sets. shares: data set -> labeled shares, each a group of
    columns; one that is not there has its recipe's, or the rows'. table: which of the published tables (published.toml)
    the numbers are held against. against: the row over which the others' gains are shown. subsets: parts of the
    evaluation splits (`scoring/subsets.py`) that are columns, in place of the whole. shows: tables of scores, what
    refinement does to labels (figure 6), learning curves (figure 7). only_here: whether a data set that is not here is
    left out, with a word; else it is an error.
    """

    name: str
    title: str
    splits: tuple[str, ...]
    rows: tuple[Row, ...]
    shares: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0,)
    settings: Mapping[str, Any] = field(default_factory=dict)
    table: str | None = None
    against: str | None = None
    subsets: tuple[str, ...] = ()
    shows: Shows = "scores"
    only_here: bool = False

    def __post_init__(self) -> None:
        for split in (*self.splits, *self.shares, *(split for row in self.rows for split in row.only)):
            spec_of(split)
        if not self.splits or not self.rows or not self.seeds:
            raise InputError(f"{self.name}: expected a data set, a row and a seed or more, found none; name them")
        names = [row.name for row in self.rows]
        named = {"rows": names, "seeds": self.seeds, "splits": self.splits, "subsets": self.subsets}
        for what, values in named.items():
            twice = [value for value in values if list(values).count(value) > 1]
            if twice:
                raise InputError(f"{self.name}: expected {what} that differ, found {twice[0]!r} twice; change one")
        if self.against is not None and self.against not in names:
            raise InputError(
                f"{self.name}: against: expected one of the rows {', '.join(map(repr, names))}, found {self.against!r}"
            )
        for split, shares in self.shares.items():
            if not shares or not all(0 < share <= 1 for share in shares):
                raise InputError(
                    f"{self.name}: shares: expected shares above 0 and at most 1 (0.01 is 1%), found {list(shares)} of "
                    f"{split}; change them"
                )
            if split in self.splits and all(row.own_share(split) is not None for row in self.rows):
                raise InputError(
                    f"{self.name}: shares: expected none of {split}, for each row says `labeled` itself, found "
                    f"{list(shares)}; leave them out"
                )
        unknown = [part for part in self.subsets if part not in SUBSETS]
        if unknown:
            raise InputError(
                f"{self.name}: subsets: expected some of {', '.join(map(repr, SUBSETS))}, found {unknown[0]!r}; change "
                "it"
            )
        self._check_published()

    def _check_published(self) -> None:
        """InputError for a table or a row that the paper does not have."""
        rows: dict[str | None, dict[str, None]] = {}
        for numbers in published_numbers():
            rows.setdefault(numbers.table, {})[numbers.row] = None
        for table in (self.table, *(row.table for row in self.rows)):
            if table is not None and table not in rows:
                raise InputError(
                    f"{self.name}: table: expected one of {', '.join(map(str, rows))}, found {table!r}; change it"
                )
        for row in self.rows:
            table = row.table or self.table
            known = ", ".join(map(repr, rows.get(table, {})))
            if row.published is not None and row.published not in rows.get(table, {}):
                expected = "a table too, the study's or the row's" if table is None else f"a row of {table} ({known})"
                raise InputError(
                    f"{self.name}, row {row.name!r}: published: expected {expected}, found {row.published!r}; change it"
                )


def read_study(path: Path, *, full: bool = False) -> Study:
    """The study in a TOML file; full: with what its table `full` says, where there is one.

    InputError for a file that is not there, is no TOML, or says what a study does not know.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"expected a study, found no file {path}: give a recipe's name or a .toml file") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"expected a study in TOML in {path}, found: {error}; mend it") from error
    larger = content.pop("full", None)
    if full:
        if not isinstance(larger, Mapping):
            found = "none" if larger is None else repr(larger)
            raise InputError(f"--full: expected a study with a table [full], found {found} in {path}; leave it out")
        content |= larger
    return parse_study(path.stem, content)


def parse_study(name: str, content: Mapping[str, Any]) -> Study:
    """The study of a TOML file's content: the fields of `Study`, where `seeds` may be a number of seeds and `shares` a
    list for all data sets, and a row says its settings beside its other fields. InputError as of `read_study`."""
    values = dict(content)
    if type(values.get("seeds")) is int:
        values["seeds"] = list(range(values["seeds"]))
    if "name" in values:
        raise InputError(
            f"{name}: expected no name, for the file's is the study's, found {values['name']!r}; say it as title"
        )
    if isinstance(values.get("shares"), list) and isinstance(values.get("splits"), list):
        values["shares"] = {split: values["shares"] for split in values["splits"] if isinstance(split, str)}
    rows = values.pop("rows", ())
    if not (isinstance(rows, list | tuple) and all(isinstance(row, Mapping) for row in rows)):
        raise InputError(f"{name}: rows: expected tables [[rows]], found {rows!r}")
    of_rows = tuple(_row(f"{name}, row {number}", row) for number, row in enumerate(rows, start=1))
    return Study(**_typed(name, values | {"name": name, "title": values.get("title", name)}, Study), rows=of_rows)


def _row(where: str, content: Mapping[str, Any]) -> Row:
    own = {field.name for field in fields(Row)} - {"settings"}
    values = {name: value for name, value in content.items() if name in own}
    return Row(**_typed(where, values, Row), settings={name: content[name] for name in content if name not in own})


def _typed(where: str, values: Mapping[str, Any], kind: type[Study] | type[Row]) -> dict[str, Any]:
    """`values` as the fields of a dataclass; InputError for one that it lacks or that does not fit."""
    hints, found = get_type_hints(kind), {}
    for name, value in values.items():
        if name not in hints:
            raise InputError(f"{where}: expected {', '.join(hints)}, found {name!r}; change or remove it")
        try:
            found[name] = as_type(value, hints[name])
        except ValueError as error:
            raise InputError(f"{where}: {name}: {error}; change it") from error
    needed = {field.name for field in fields(kind) if field.default is MISSING and field.default_factory is MISSING}
    missing = sorted(needed - found.keys() - {"rows"})
    if missing:
        raise InputError(f"{where}: expected {' and '.join(missing)}, found none; say it")
    return found
