"""The unit of a log's times is recognised, or the log is refused; it never trains on a guess."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from rankloom_training.data import load_dataset
from training.small_log import LOG, folder_of, good_rows, refusal

FIRST = datetime(2023, 11, 14, 22, 13, 21, tzinfo=UTC)
MOMENTS = [FIRST + timedelta(days=n) for n in range(12)]

FORMS: dict[str, Callable[[datetime], object]] = {
    "seconds": lambda moment: int(moment.timestamp()),
    "milliseconds": lambda moment: int(moment.timestamp() * 1e3),
    "microseconds": lambda moment: int(moment.timestamp() * 1e6),
    "nanoseconds": lambda moment: int(moment.timestamp()) * 10**9,
    "YYYYMMDDhhmmss": lambda moment: moment.strftime("%Y%m%d%H%M%S"),
    "YYYYMMDDhhmm": lambda moment: moment.strftime("%Y%m%d%H%M"),
    "YYYYMMDD": lambda moment: moment.strftime("%Y%m%d"),
    "ISO dates": lambda moment: moment.isoformat(),
}


def with_times(folder: Path, times: list[object]) -> Path:
    rows = [row | {"timestamp": t} for row, t in zip(good_rows(), times, strict=True)]
    return folder_of(folder, rows)


@pytest.mark.parametrize("unit", FORMS)
def test_a_unit_is_recognised_and_named(tmp_path: Path, unit: str) -> None:
    found = load_dataset(with_times(tmp_path, [FORMS[unit](moment) for moment in MOMENTS]))
    expected = np.array([moment.timestamp() for moment in MOMENTS])
    if unit == "YYYYMMDD":
        expected -= expected % 86_400
    if unit == "YYYYMMDDhhmm":
        expected -= expected % 60
    np.testing.assert_allclose(np.sort(found.log.time), expected, atol=1e-6)
    assert found.source is not None
    assert found.source.time_unit == unit


@pytest.mark.parametrize(
    "form",
    [
        lambda moment: moment.isoformat().replace("+00:00", "Z"),
        lambda moment: moment.isoformat(sep=" ").replace("+00:00", " UTC"),
        lambda moment: moment.replace(tzinfo=None).isoformat(),
        lambda moment: (moment + timedelta(hours=9)).strftime("%Y-%m-%d %H:%M:%S+09:00"),
        lambda moment: (moment + timedelta(hours=9)).strftime("%Y-%m-%dT%H:%M:%S.000000000+0900"),
        lambda moment: moment.strftime("%Y%m%dT%H%M%S"),
    ],
)
def test_iso_forms_mean_one_moment(tmp_path: Path, form: Callable[[datetime], str]) -> None:
    found = load_dataset(with_times(tmp_path, [form(moment) for moment in MOMENTS]))
    assert np.sort(found.log.time).tolist() == [moment.timestamp() for moment in MOMENTS]


@pytest.mark.parametrize(
    ("most", "odd"),
    [
        ("milliseconds", "seconds"),
        ("seconds", "milliseconds"),
        ("microseconds", "milliseconds"),
        ("seconds", "YYYYMMDD"),
        ("milliseconds", "YYYYMMDDhhmmss"),
        ("seconds", "ISO dates"),
    ],
)
def test_mixed_units_are_refused_by_row(tmp_path: Path, most: str, odd: str) -> None:
    times = [FORMS[most](moment) for moment in MOMENTS]
    times[7] = FORMS[odd](MOMENTS[7])
    message = refusal(with_times(tmp_path, times))
    assert message.startswith(f"{LOG}: column timestamp: ")
    assert "row " in message
    assert "write all times in one unit" in message


def test_the_year_that_a_row_would_be_in_is_said(tmp_path: Path) -> None:
    times: list[object] = [int(moment.timestamp() * 1e3) for moment in MOMENTS]
    times[2] = int(MOMENTS[2].timestamp())
    assert "as milliseconds, which other rows are in, row 3 would be in the year 1970" in refusal(
        with_times(tmp_path, times)
    )
    times = [int(moment.timestamp()) for moment in MOMENTS]
    times[4] = 9_999_999_999
    assert "row 5 would be in the year 2286 as seconds" in refusal(with_times(tmp_path, times))


def test_years_before_1970_are_a_warning(tmp_path: Path) -> None:
    times: list[object] = [86_400 * (n - 3) for n in range(12)]
    (warning,) = load_dataset(with_times(tmp_path, times)).warnings
    assert warning == f"{LOG}: column timestamp: 3 rows are before 1970 (first: row 1)"


def test_text_that_is_no_time_is_refused_by_row(tmp_path: Path) -> None:
    times: list[object] = [moment.isoformat() for moment in MOMENTS]
    times[9] = "31/12/2023"
    message = refusal(with_times(tmp_path, times))
    assert message.startswith(f"{LOG}: column timestamp: row 10 is not a time; ")
