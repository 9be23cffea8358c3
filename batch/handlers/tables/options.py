"""How a source is to be read, as a task says it: the fields that every transformation of a table takes. All are optional."""

from __future__ import annotations

import codecs
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from batch.handlers.contract import ColumnName

Format = Literal["csv", "json_lines", "parquet"]
TypeName = Literal["text", "integer", "decimal", "double", "boolean", "date", "timestamp"]
ENCODINGS = frozenset(
    (
        *("utf-8", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be", "ascii"),
        *(f"iso8859-{number}" for number in range(1, 17) if number != 12),
        *(f"cp{number}" for number in (437, 850, 852, 855, 858, 862, 866, 874, 932, 949, 950, *range(1250, 1259))),
        *("koi8-r", "koi8-u", "mac-roman", "mac-cyrillic", "gbk", "gb2312", "gb18030", "big5", "big5hkscs"),
        *("euc_jp", "euc_kr", "shift_jis", "shift_jisx0213", "iso2022_jp", "tis-620"),
    )
)
"""By the names that Python's codecs have for themselves. Those that cannot fail on any bytes are never guessed, only named."""


def encoding_named(name: str) -> str:
    """The codec's own name; `utf-8` stands for one with or without a byte order mark. Raises ValueError."""
    try:
        found = codecs.lookup(name).name
    except (LookupError, ValueError):
        found = ""
    if found not in ENCODINGS and found != "utf-8-sig":
        raise ValueError(f"there is no encoding {name[:60]!r}; give a name such as utf-8, utf-16, cp1252, iso8859-15, cp1251 or shift_jis")
    return "utf-8" if found in ("utf-8-sig", "ascii") else found


class ReadOptions(BaseModel):
    """`source_format` is seen from the content when it is absent; `delimiter`, `quote` (empty: none) and `header` are for CSV, `encoding`
    for text; `nulls` are texts that stand for a missing value; `decimal` and `thousands` are the marks in numbers; `types` says what the
    texts of a column are, `exclude` names columns that are not read."""

    model_config = ConfigDict(frozen=True)

    source_format: Format | None = None
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    quote: Annotated[str, Field(max_length=1)] | None = None
    encoding: str | None = None
    header: bool = True
    nulls: Annotated[tuple[Annotated[str, Field(max_length=100)], ...], Field(max_length=100)] = ()
    decimal: Literal[".", ","] = "."
    thousands: Literal[",", ".", " ", "'", "_", "\u00a0", "\u202f"] | None = None
    types: Annotated[dict[ColumnName, TypeName], Field(max_length=1000)] = Field(default_factory=dict)
    exclude: Annotated[tuple[ColumnName, ...], Field(max_length=1000)] = ()

    @field_validator("encoding")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        return None if value is None else encoding_named(value)

    @model_validator(mode="after")
    def _marks_differ(self) -> Any:
        if self.thousands == self.decimal:
            raise ValueError(f"decimal and thousands cannot both be {self.decimal!r}")
        for name in ("delimiter", "quote"):
            mark = getattr(self, name)
            if mark and (mark in "\r\n\0\ufeff" or (not mark.isprintable() and mark != "\t") or len(mark.encode()) > 1):
                raise ValueError(f"{name} cannot be {mark!r}; give one ASCII character such as ',' ';' '|' or a tab")
        if self.quote and self.quote == (self.delimiter or ","):
            raise ValueError(f"delimiter and quote cannot both be {self.quote!r}")
        twice = set(self.types) & set(self.exclude)
        if twice:
            raise ValueError(f"column {min(twice)[:200]!r} is excluded and has a type; name it once")
        return self

    def given(self, *names: str) -> str:
        """The first of these options that the task names; empty when it names none."""
        return next((one for one in names if one in self.model_fields_set), "")
