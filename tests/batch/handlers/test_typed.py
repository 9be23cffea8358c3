"""Parquet in and out: every type and value survives, or the task is refused with a reason. Pyarrow writes sources and reads results."""

from __future__ import annotations

import datetime as dt
import io
import json
import struct
import sys
import uuid
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch.handlers.tables.reading import MAX_COLUMNS
from batch.model.errors import MessageRefused, Permanent
from batch.testing import MemoryObjectStore, run_handler
from tests.batch.handlers.tables import parquet, transformed

D = Decimal
NAN, INF = float("nan"), float("inf")
US, NS = 10**6, 10**9
KEPT = {
    "int8": pa.array([1, None, -128, 127], pa.int8()),
    "int16": pa.array([1, None, -(2**15), 2**15 - 1], pa.int16()),
    "int32": pa.array([1, None, -(2**31), 2**31 - 1], pa.int32()),
    "int64": pa.array([2**53 + 1, None, -(2**63), 2**63 - 1], pa.int64()),
    "uint8": pa.array([255, None, 0, 7], pa.uint8()),
    "uint16": pa.array([2**16 - 1, None, 0, 7], pa.uint16()),
    "uint32": pa.array([2**32 - 1, None, 0, 7], pa.uint32()),
    "uint64": pa.array([2**64 - 1, None, 0, 7], pa.uint64()),
    "decimal(25,2)": pa.array([D("12345678901234567890123.45"), None, D("-0.01"), D("1.10")], pa.decimal128(25, 2)),
    "decimal(5,2)": pa.array([D("123.45"), None, D("-0.01"), D("1.10")], pa.decimal128(5, 2)),
    "decimal(38,0)": pa.array([D("9" * 38), None, D(-1), D(0)], pa.decimal128(38, 0)),
    "decimal(38,38)": pa.array([D("0." + "9" * 38), None, D(0), D("-0." + "1" * 38)], pa.decimal128(38, 38)),
    "float": pa.array([1.5, None, NAN, INF], pa.float32()),
    "double": pa.array([0.1, None, NAN, -INF], pa.float64()),
    "tiny and huge doubles": pa.array([-0.0, None, 5e-324, 1.7976931348623157e308], pa.float64()),
    "bool": pa.array([True, None, False, True], pa.bool_()),
    "zip codes": pa.array(["01067", None, "", "  "], pa.string()),
    "versions": pa.array(["1.10", "2.20", "1.0", "3.30"], pa.string()),
    "countries": pa.array(["NO", "yes", "true", "false"], pa.string()),
    "dates as text": pa.array(["2026-01-02", "2026-01-03", "2026-01-04", None], pa.string()),
    "odd texts": pa.array([" a ", "\r", '\n"', "NA"], pa.string()),
    "date": pa.array([dt.date(2026, 1, 2), None, dt.date(1, 1, 1), dt.date(9999, 12, 31)], pa.date32()),
    "dates beyond 9999": pa.array([2_932_897, None, 10**8, -(10**6)], pa.date32()),
    "time": pa.array([dt.time(1, 2, 3, 4), None, dt.time(0), dt.time(23, 59, 59, 999_999)], pa.time64("us")),
    "time ns": pa.array([1, None, 86_399_999_999_999, 0], pa.time64("ns")),
    "timestamp us": pa.array([253_402_300_800 * US, None, -62_135_596_801 * US, 2**62], pa.timestamp("us")),
    "timestamp ns": pa.array([2**63 - 1, None, -(2**63) + 1, 123_456_789], pa.timestamp("ns")),
    "timestamp us UTC": pa.array([253_402_214_400 * US, None, 0, -1], pa.timestamp("us", "UTC")),
    "timestamp ns UTC": pa.array([1, None, 123_456_789, -1], pa.timestamp("ns", "UTC")),
    "binary": pa.array([b"\xff\0", None, b"", b"abc"], pa.binary()),
    "uuid": pa.array([uuid.UUID(int=5).bytes, None, uuid.UUID(int=2**128 - 1).bytes, bytes(16)], pa.uuid()),
    "json": pa.array(['{"a": 1}', None, "[]", '"x"'], pa.json_()),
    "list": pa.array([[1, 2], None, [], [None]], pa.list_(pa.int64())),
    "list of texts": pa.array([["01", ""], None, [], [None]], pa.list_(pa.string())),
    "struct": pa.array(
        [{"a": 1, "B": "x"}, None, {"a": None, "B": ""}, {"a": 2, "B": "y"}], pa.struct({"a": pa.int16(), "B": pa.string()})
    ),
    "map": pa.array([[("k", 1)], None, [], [("z", None)]], pa.map_(pa.string(), pa.int32())),
}
WIDENED = {
    # The same values; the engine has no type that is as narrow, or Parquet itself has none and only pyarrow's own note says more.
    "half float": (pa.array([1.5, None, 0.5, 2.0], pa.float16()), pa.float32()),
    "time ms": (pa.array([1, None, 86_399_999, 0], pa.time32("ms")), pa.time64("us")),
    "timestamp ms": (pa.array([1_767_322_800_123, None, 0, -1], pa.timestamp("ms")), pa.timestamp("us")),
    "timestamp s": (pa.array([1_767_322_800, None, 0, -1], pa.timestamp("s")), pa.timestamp("us")),
    "timestamp of a zone": (pa.array([1, None, 0, -1], pa.timestamp("us", "Europe/Berlin")), pa.timestamp("us", "UTC")),
    "duration": (pa.array([1, None, 2, 3], pa.duration("us")), pa.int64()),
    "fixed binary": (pa.array([b"\xff12", None, b"000", b"abc"], pa.binary(3)), pa.binary()),
    "dictionary": (pa.array(["a", None, "b", "a"], pa.dictionary(pa.int32(), pa.string())), pa.string()),
    "large string": (pa.array(["a", None, "", "07"], pa.large_string()), pa.string()),
    "list of a size": (pa.array([[1, 2], None, [3, 4], [None, 1]], pa.list_(pa.int32(), 2)), pa.list_(pa.int32())),
}


def alike(found: Any, expected: Any) -> bool:
    """Value by value; NaN is like NaN, and -0.0 is not like 0.0."""
    return str(found) == str(expected)


@pytest.mark.parametrize("fields", [{"of": "id"}, {"transformation": "deduplicate"}, {"transformation": "normalize", "columns": ["id"]}])
def test_every_type_and_value_survives(fields: dict[str, Any]) -> None:
    source = parquet({"id": [1, 2, 3, 4], **KEPT})
    expected, found = pq.read_table(io.BytesIO(source)), transformed(source, format="parquet", **fields).table
    for name in KEPT:
        assert found.schema.field(name).type.equals(expected.schema.field(name).type)
        assert alike(found.column(name).combine_chunks(), expected.column(name).combine_chunks())


def test_a_type_that_the_engine_lacks_becomes_a_wider_one() -> None:
    source = parquet({"id": [1, 2, 3, 4], **{name: array for name, (array, _) in WIDENED.items()}})
    found = transformed(source, of="id", format="parquet").table
    for name, (array, wider) in WIDENED.items():
        assert found.schema.field(name).type.equals(wider)
        assert alike(found.column(name).combine_chunks(), array.cast(wider))


def test_a_type_is_that_of_the_column_whichever_rows_survive() -> None:
    source = parquet({"id": [1, 2], "x": pa.array([None, 7], pa.int64()), "t": ["7", "a"], "d": [0.5, NAN]})
    for id_ in (1, 2):
        table = transformed(source, conditions=[{"column": "id", "value": id_}], format="parquet").table
        assert table.schema.types == [pa.int64(), pa.int64(), pa.string(), pa.float64()]


def test_a_text_of_a_typed_source_is_no_number_unless_the_task_says_so() -> None:
    source = parquet({"x": ["1.5", "2.5"]})
    reason = "t.parquet has no numeric column to normalize ('x': it is text); name `columns` whose cells are numbers"
    with pytest.raises(Permanent) as refused:
        transformed(source, "t.parquet", transformation="normalize")
    assert str(refused.value) == reason
    made = transformed(source, "t.parquet", transformation="normalize", types={"x": "decimal"}, format="parquet")
    assert made.table.column("x").to_pylist() == [-1.0, 1.0]
    with pytest.raises(Permanent, match=r"t.parquet, row 2: column 'x' holds '', which is no integer$"):
        transformed(parquet({"x": ["1", ""]}), "t.parquet", types={"x": "integer"})


def test_a_blank_text_is_a_value_where_there_are_nulls() -> None:
    source = parquet({"x": ["", None, "  "], "id": [1, 2, 3]})
    made = transformed(source, conditions=[{"column": "x", "operator": "is_missing"}])
    assert made.rows[1:] == [["", "2"]]
    assert made.result["read"]["columns"][0] == {"name": "x", "type": "text", "null_count": 1}
    made = transformed(source, of="id", nulls=[""], format="parquet")
    assert made.table.column("x").to_pylist() == [None, None, "  "]


# --- Parquet to CSV


def written(array: pa.Array, **fields: Any) -> list[str]:
    """The cells of a column in CSV."""
    rows = transformed(parquet({"id": list(range(len(array))), "x": array}), of="id", **fields).rows
    return [row[1] for row in rows[1:]]


def test_csv_has_iso_dates_and_exact_numbers() -> None:
    assert written(KEPT["date"]) == ["2026-01-02", "", "0001-01-01", "9999-12-31"]
    for name in ("timestamp us UTC", "timestamp ns UTC"):
        cells = written(KEPT[name])
        moments = [dt.datetime.fromisoformat(cell) if cell else None for cell in cells]  # which reads six digits of nine
        assert moments == [
            None
            if one is None
            else dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=one // (1 if "us" in name else 1000))
            for one in KEPT[name].cast(pa.int64()).to_pylist()
        ]
    assert written(pa.array([1, 123_456_789], pa.timestamp("ns"))) == ["1970-01-01 00:00:00.000000001", "1970-01-01 00:00:00.123456789"]
    assert written(KEPT["decimal(25,2)"]) == ["12345678901234567890123.45", "", "-0.01", "1.10"]
    assert written(pa.array([D("0.12"), D("-0.50")], pa.decimal128(2, 2))) == ["0.12", "-0.50"]
    assert written(KEPT["uint64"]) == ["18446744073709551615", "", "0", "7"]
    assert [float(one) for one in written(pa.array([-0.0, 5e-324, 1.7e308, 0.1]))] == [-0.0, 5e-324, 1.7e308, 0.1]
    assert written(KEPT["bool"]) == ["true", "", "false", "true"]


def test_csv_has_nested_values_as_json() -> None:
    array = pa.array([{"a": [2**63 - 1, None], "d": dt.date(2026, 1, 2), "t": 'ü"\n', "n": D("12345678901234567890.5"), "f": 0.1}, None])
    (found, missing) = written(array)
    assert json.loads(found, parse_float=D) == {
        "a": [2**63 - 1, None],
        "d": "2026-01-02",
        "t": 'ü"\n',
        "n": D("12345678901234567890.5"),
        "f": D("0.1"),
    }
    assert missing == ""
    grouped = transformed(parquet({"x": array}), transformation="aggregation", group_by="x", values=[])
    assert [row[0] for row in grouped.rows[1:]] == ["", found]
    with pytest.raises(
        Permanent, match=r"t.csv: column 'x' holds NaN or infinity inside a nested value, which JSON cannot say; name it in exclude"
    ):
        written(pa.array([[NAN]]))


@pytest.mark.parametrize("array", [pa.array([b"a"]), pa.array([[b"a"]]), pa.array([{"a": b"a"}])])
def test_binary_data_is_refused_by_name(array: pa.Array) -> None:
    source = parquet({"x": array, "y": [1]})
    for fields in ({"of": "y"}, {"transformation": "aggregation", "group_by": "x"}):
        with pytest.raises(Permanent) as refused:
            transformed(source, **fields)
        assert str(refused.value) == "t.csv: column 'x' holds binary data, which CSV cannot; name it in exclude, or say format: parquet"
    choices: list[dict[str, Any]] = [{"exclude": ["x"]}, {"columns": ["y"]}]
    for chosen in choices:
        assert transformed(source, of="y", **chosen).data == b"y\n1\n"


BEFORE_CHRIST = pa.array([-62_135_596_801 * US], pa.timestamp("us", "UTC"))


@pytest.mark.parametrize("array", [*(KEPT[one] for one in ("dates beyond 9999", "timestamp us", "timestamp ns")), BEFORE_CHRIST])
def test_a_date_that_csv_cannot_say_is_refused(array: pa.Array) -> None:
    with pytest.raises(Permanent) as refused:
        written(array)
    what = "t.csv: column 'x' holds a date outside the years 0001 to 9999, which CSV cannot say"
    assert str(refused.value) == f"{what}; name it in exclude, or say format: parquet"


# --- CSV to Parquet


FROM_TEXT = [
    (["1", "-2"], pa.int64()),
    (["9" * 38, "1"], pa.decimal128(38, 0)),
    (["1.10", "-0.05"], pa.decimal128(18, 2)),
    (["0.5", "100.25"], pa.float64()),
    (["2026-01-31", "0001-01-01"], pa.date32()),
    (["0.5", "1"], pa.string()),  # as a double 1 would be 1.0
    (["007", "1"], pa.string()),
    (["+5", "1"], pa.string()),
    (["1e5", "1"], pa.string()),
    (["-0", "1"], pa.string()),
    (["-0.0", "1.0"], pa.string()),  # as groups -0.0 and 0.0 would be one
    (["-0.00", "1.10"], pa.string()),
    (["1.", "1"], pa.string()),
    ([".5", "0.5"], pa.string()),
    ([" 1", "2"], pa.string()),
    (["9" * 39, "1"], pa.string()),
    (["0.1234567890123456789", "0.5"], pa.string()),
    (["true", "false"], pa.string()),
    (["NO", "SE"], pa.string()),
    (["2026-02-30", "2026-01-31"], pa.string()),
    (["0000-01-01", "2026-01-31"], pa.string()),
    (["2026-01-31T00:00:00Z", "2026-01-31T00:00:00Z"], pa.string()),
    (["١٢", "1"], pa.string()),
    (["1,200", "1"], pa.string()),
    (["NaN", "1.5"], pa.string()),
    (["inf", "1.5"], pa.string()),
    (["1e400", "1e+22"], pa.string()),
]


def test_text_becomes_a_type_only_where_every_cell_is_written_back_as_it_stood() -> None:
    columns = [["", *cells] for cells, _ in FROM_TEXT]
    rows = [[str(number), *cells] for number, cells in enumerate(zip(*columns, strict=True))]
    source = "\n".join("\t".join(one) for one in [["id", *(f"x{place}" for place in range(len(columns)))], *rows]) + "\n"
    made = transformed(source, "t.tsv", of="id", format="parquet")
    assert [made.table.schema.field(f"x{place}").type for place in range(len(columns))] == [one for _, one in FROM_TEXT]
    assert transformed(made.data, of="id").rows[1:] == rows
    first = transformed(source, "t.tsv", conditions=[{"column": "id", "value": 0}], format="parquet")
    assert first.table.schema == made.table.schema, "the types do not depend on the rows that survive"


# --- a library's failing is a reason


def pieces(*tables: pa.Table) -> bytes:
    body = io.BytesIO()
    with pq.ParquetWriter(body, tables[0].schema) as writer:
        for one in tables:
            writer.write_table(one)
    return body.getvalue()


GOOD = parquet({"x": list(range(5000)), "y": [str(one) for one in range(5000)]})
NOT_UTF8 = pa.Array.from_buffers(pa.string(), 2, [None, pa.py_buffer(struct.pack("<3i", 0, 1, 3)), pa.py_buffer(b"a\xff\xfe")])
DAMAGED = r"is not Parquet that can be read, it may be damaged; write it again \(.+\)$"
REFUSED = {
    "decimals of 50 digits": (
        parquet({"x": pa.array([D("1" * 45)], pa.decimal256(50, 0))}),
        "column 'x' is a decimal of 50 digits, and 38 are exact; name it in exclude$",
    ),
    "nested decimals of 50 digits": (
        parquet({"x": pa.array([[D(1)]], pa.list_(pa.decimal256(50, 0)))}),
        "column 'x' is a decimal of 50 digits",
    ),
    "texts that are not UTF-8": (parquet({"x": NOT_UTF8}), r'Invalid string encoding found .* value "\\xFF\\xFE" is not valid UTF8'),
    "a timestamp of year 146 million": (parquet({"x": pa.array([2**62], pa.timestamp("ms"))}), r"Could not convert Timestamp\(MS\)"),
    "no rows": (parquet({"x": pa.array([], pa.int64())}), "has columns but no rows$"),
    "no columns": (parquet({}), DAMAGED),
    "its end is missing": (GOOD[:-10], "is not a whole file of Parquet: it was cut off; write it again$"),
    "its middle is missing": (GOOD[:3000] + GOOD[-4:], DAMAGED),
    "a damaged page": (GOOD[:100] + b"\xff" * 60 + GOOD[160:], 'Failed to read file "source": Snappy decompression failure'),
    "a damaged footer": (GOOD[:-100] + b"\xff" * 50 + GOOD[-50:], DAMAGED),
    "a footer of 2 GB": (GOOD[:-8] + b"\xff\xff\xff\x7fPAR1", DAMAGED),
    "a footer of nothing": (GOOD[:-8] + b"\0\0\0\0PAR1", DAMAGED),
    "an encrypted footer": (b"PARE" + GOOD[4:-4] + b"PARE", "is encrypted Parquet; give it without encryption$"),
    "an encrypted end": (GOOD[:-4] + b"PARE", "is encrypted Parquet; give it without encryption$"),
    "a name twice": (parquet(pa.table([[1], [2]], names=["x", "x"])), "has more than one column 'x'; give each column its own name$"),
    "no name": (parquet(pa.table([[1], [2]], names=["x", ""])), "has a column without a name; give each column its own name$"),
    "too many columns": (
        parquet({f"x{place}": [1] for place in range(MAX_COLUMNS + 1)}),
        f"has {MAX_COLUMNS + 1} columns; a table may have {MAX_COLUMNS}$",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_refused_with_a_reason(name: str) -> None:
    source, reason = REFUSED[name]
    for fields in ({"format": "parquet"}, {"transformation": "deduplicate"}):
        with pytest.raises(Permanent, match=f"^s.parquet:? {reason}"):
            transformed(source, "s.parquet", **fields)


def test_int96_is_read_beyond_2262_and_tells_what_it_cuts() -> None:
    array = pa.array([253_402_214_400 * US, None, -1, 123_456], pa.timestamp("us"))
    made = transformed(parquet({"id": [1, 2, 3, 4], "x": array}, use_deprecated_int96_timestamps=True), of="id", format="parquet")
    assert made.table.column("x").combine_chunks().equals(array)
    assert made.result["warnings"] == ["column 'x' holds timestamps of the old type INT96: what is finer than a microsecond is cut"]


def test_empty_row_groups_and_columns_that_are_never_read_do_no_harm() -> None:
    none = pa.table({"x": pa.array([], pa.int64())})
    assert transformed(pieces(none, pa.table({"x": [1, 2]}), none, pa.table({"x": [3]})), format="parquet").table["x"].to_pylist() == [
        1,
        2,
        3,
    ]
    source = parquet({"x": NOT_UTF8, "y": pa.array([D(1), D(2)], pa.decimal256(50, 0)), "z": [1, 2]})
    assert transformed(source, of="z", exclude=["x", "y"]).data == b"z\n1\n2\n"


def test_odd_names_survive() -> None:
    names = ["x", "c0", 'a"b\n', "a.b", "ü", "row", "filename", " x", "list.element"]
    source = parquet(pa.table([[place] for place in range(len(names))], names=names))
    assert transformed(source, format="parquet").table.to_pylist() == [{name: place for place, name in enumerate(names)}]
    assert transformed(source).rows == [names, [str(place) for place in range(len(names))]]
    nested = pa.array([{"x": {"X": 1}, "Y": [1]}])
    assert transformed(parquet({"x": nested, "y": [1]}), format="parquet").table["x"].to_pylist() == nested.to_pylist()


def test_names_that_differ_in_case_only_are_for_csv() -> None:
    source = parquet(pa.table([[1], [2]], names=["x", "X"]))
    assert transformed(source).data == b'"x","X"\n1,2\n'
    assert transformed(source, exclude=["X"], format="parquet").table.to_pylist() == [{"x": 1}]
    with pytest.raises(Permanent, match=r"two columns of the result have the name 'x' \(but for upper and lower case"):
        transformed(source, format="parquet")


@pytest.mark.parametrize("stated", ["text", "decimal", "date"])
def test_a_type_of_its_own_is_not_restated(stated: str) -> None:
    with pytest.raises(Permanent, match=f"^t.csv: column 'x' has the type integer of its own, not {stated}; leave it out of types$"):
        transformed(parquet({"x": [1]}), types={"x": stated})
    assert transformed(parquet({"x": [1]}), types={"x": "integer"}).data == b"x\n1\n"


def test_only_known_formats_pass_the_door() -> None:
    with pytest.raises(MessageRefused, match=r"format: .*'csv' or 'parquet'"):
        transformed("x\n1\n", format="xlsx")


def test_without_the_extra_a_task_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    store = MemoryObjectStore()
    fix = r"install the extra `data` in the image \(pip install 'fanout-batch\[data\]', which brings DuckDB\), then submit again"
    with pytest.raises(Permanent, match=f"^s.csv is a table, and this worker's image has nothing to read tables with: {fix}"):
        run_handler("data_transformation", {"source": "s.csv"}, objects={"s.csv": b"x\n1\n"}, store=store)
    assert store.names("results/") == ()
