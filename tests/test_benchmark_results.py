"""The README's numbers are those of the stored results, and what is written from results depends on nothing else."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import _publish
import pytest
from _plots import PLOTS, drawn, without_idle_lines
from _publish import IMAGES, README, RESULTS, can_add, publish
from _readme import measured, missing, rewritten, table
from _readme_rows import NOT_MEASURED, ROWS, count, quantity, ratio
from _results import Place, claims, dump, load, merged, summary
from _svg import Line, chart, even_steps, powers_of_ten

if TYPE_CHECKING:
    from pathlib import Path

    from _results import Document, Result, Row

PART = "<!-- benchmarks: begin {} -->\nold\n<!-- benchmarks: end -->\n"
MARKED = "before\n" + "".join(PART.format(name) for name in ("measured", "table", "plots")) + "after\n"


def result(**tables: list[Row]) -> Result:
    return {"title": "A title", "date": "2026-01-02", "python": "3.11.7", "checked": 3, "wrong": [], "tables": tables}


@pytest.fixture
def document() -> Document:
    """What a run might have found."""
    stampede: dict[str, list[Row]] = {
        "requests made (the most)": [
            {"callers": 1, "resources": 1, "aiomsi": 1, "azure get_token": 1, "azure bearer provider": 1},
            {"callers": 1_000, "resources": 1, "aiomsi": 1, "azure get_token": 1_000, "azure bearer provider": 1},
            {"callers": 1_000, "resources": 10, "aiomsi": 10, "azure get_token": None, "azure bearer provider": 10},
        ],
    }
    hot_path: dict[str, list[Row]] = {
        "a warm call on asyncio (medians of 25)": [
            {"x empty await": 2.34567, "call": "aiomsi: await token", "ns": 100.0, "target": "<= 2.5 met"},
            {"x empty await": 125.4321, "call": "azure: get_token", "ns": 9e3, "target": "over 1000: missed"},
            {"x empty await": 1.0, "call": "nothing", "ns": 40.0, "target": None},
        ]
    }
    refresh: dict[str, list[Row]] = {
        "one refresh that takes 1 s, at 2,000 calls/s": [
            {"waited %": 0.0, "who": "aiomsi", "waited": 0},
            {"waited %": 31.4, "who": "azure bearer provider", "waited": 2_008},
        ]
    }
    return {
        "quick": False,
        "versions": {"python": "CPython 3.11.7", "aiomsi": "0.1.0", "azure-identity": "1.27.0"},
        "machine": {"processor": "A processor", "cores": "2", "kernel": "Linux 6.1"},
        "benchmarks": {"stampede": result(**stampede), "hot_path": result(**hot_path), "refresh": result(**refresh)},
    }


def test_the_readme_has_the_numbers_of_the_stored_results() -> None:
    """What the README shows is what is stored, to the letter."""
    stored = load(RESULTS.read_text(encoding="utf-8"))
    readme = README.read_text(encoding="utf-8")
    assert rewritten(readme, stored) == readme


@pytest.mark.skipif(not IMAGES.exists(), reason="this is not a checkout")
def test_the_pictures_have_the_numbers_of_the_stored_results() -> None:
    """What the pictures show is what is stored, too."""
    pictures = drawn(load(RESULTS.read_text(encoding="utf-8")))
    assert {name: (IMAGES / name).read_text(encoding="utf-8") for name in pictures} == pictures


def test_the_readme_has_a_place_for_each_part(document: Document) -> None:
    """The README can be rewritten at any time."""
    text = rewritten(README.read_text(encoding="utf-8"), document)
    assert table(document) in text
    assert measured(document) in text


class TestResults:
    def test_what_is_stored_is_read_back(self, document: Document) -> None:
        """Nothing gets lost but digits that mean nothing, and no more of them the second time."""
        stored = load(dump(document))
        assert stored["benchmarks"]["stampede"] == document["benchmarks"]["stampede"]
        warm = Place("hot_path", "a warm call *")
        assert [row["x empty await"] for row in warm.rows(stored)] == [2.346, 125.4, 1.0]
        assert load(dump(stored)) == stored

    def test_a_row_is_a_line(self, document: Document) -> None:
        """A number that changes changes one line, and a table names its columns once."""
        lines = dump(document).splitlines()
        assert "     [1000, 1, 1, 1000, 1]," in lines
        assert dump(document).count('"x empty await"') == 1

    def test_claims_are_found(self, document: Document) -> None:
        """Each target is a claim, which holds or not."""
        assert [(claim.subject, claim.met) for claim in claims(document)] == [
            ("aiomsi: await token", True),
            ("azure: get_token", False),
        ]

    def test_the_summary_says_what_holds(self, document: Document) -> None:
        """Claims are listed with whether they are met, and counts are added up."""
        text = summary(document)
        assert "  met     hot_path: a warm call on asyncio (medians of 25): aiomsi: await token: <= 2.5\n" in text
        assert "  MISSED  hot_path: a warm call on asyncio (medians of 25): azure: get_token: over 1000\n" in text
        assert text.endswith("counts: 9 checked, as expected")

    def test_the_summary_names_wrong_counts(self, document: Document) -> None:
        """Whatever was counted wrongly stands at the end."""
        document["benchmarks"]["stampede"]["wrong"] = ["requests: 2, expected 1"]
        assert summary(document).endswith("counts: 9 checked, 1 WRONG\n  stampede: requests: 2, expected 1")

    def test_the_summary_of_a_quick_run_says_so(self, document: Document) -> None:
        """Nobody takes the times of a quick run for more than they are."""
        document["quick"] = True
        assert summary(document).startswith("claims, as far as a quick run can tell\n")

    def test_a_part_takes_the_place_of_what_is_stored(self, document: Document) -> None:
        """What was measured anew replaces the same benchmark, and leaves the others."""
        anew: Document = {**document, "benchmarks": {"stampede": result()}}
        assert merged(document, anew)["benchmarks"] == document["benchmarks"] | {"stampede": result()}

    def test_a_part_from_elsewhere_is_refused(self, document: Document) -> None:
        """Numbers of different versions or machines are not mixed."""
        anew: Document = {**document, "versions": {"python": "another"}}
        with pytest.raises(ValueError, match="other versions, or elsewhere"):
            merged(document, anew)


class TestReadme:
    def test_the_same_results_give_the_same_text(self, document: Document) -> None:
        """Writing twice changes nothing, and neither does storing in between."""
        once = rewritten(MARKED, load(dump(document)))
        assert rewritten(once, load(dump(load(dump(document))))) == once
        assert once.startswith("before\n<!-- benchmarks: begin measured -->\nMeasured 2026-01-02 with aiomsi 0.1.0, ")
        assert once.endswith("<!-- benchmarks: end -->\nafter\n")
        assert "old" not in once

    def test_the_table_shows_numbers(self, document: Document) -> None:
        """A row has the number of each."""
        lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table(document).splitlines()]
        assert ["requests for 1,000 callers at once", "1", "1,000 (1)"] in lines
        assert ["callers who waited for a refresh of 1 s, at 2,000 calls/s", "0", "(2,008)"] in lines
        assert ["a warm call, in empty awaits", "2.3", f"125 ({NOT_MEASURED})"] in lines
        assert len({len(line) for line in table(document).splitlines()}) == 1

    def test_what_is_missing_is_named(self, document: Document) -> None:
        """A number or a picture that was not measured is not left out in silence."""
        lacking = missing(document)
        assert "requests for 1,000 callers at once" not in lacking
        assert "a warm call, in empty awaits" in lacking
        assert "the picture stampede" not in lacking
        assert "the picture fleet" in lacking

    def test_without_results_nothing_is_measured(self, document: Document) -> None:
        """Each row that has a number says that there is none."""
        empty: Document = {**document, "benchmarks": {}}
        assert missing(empty) == [*(name for name, *_ in ROWS), *(f"the picture {plot.name}" for plot in PLOTS)]

    def test_a_run_of_several_days_says_so(self, document: Document) -> None:
        """What was measured in parts has its first and its last date."""
        document["benchmarks"]["hot_path"]["date"] = "2026-03-04"
        assert measured(document).startswith("Measured 2026-01-02 to 2026-03-04 with ")

    def test_a_readme_without_its_marks_is_left_alone(self, document: Document) -> None:
        """Nothing is written where it is not clear what belongs where."""
        with pytest.raises(ValueError, match="has marks for"):
            rewritten(MARKED.replace("begin table", "begin chair"), document)

    @pytest.mark.parametrize(
        ("written", "text"),
        [
            (count(100_000), "100,000"),
            (ratio(1.004), "1.00"),
            (ratio(2.345), "2.3"),
            (ratio(125.4), "125"),
            (quantity("%", 0.0), "0 %"),
            (quantity("s", 0.0612), "0.061 s"),
            (quantity("ns", 1234.5), "1,234 ns"),
        ],
    )
    def test_numbers_are_short(self, written: str, text: str) -> None:
        """No digit is shown that the next run changes."""
        assert written == text


class TestPublish:
    @pytest.fixture(autouse=True)
    def copy(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A README and a place for results and pictures, in place of ours."""
        for name, path in (("RESULTS", "results.json"), ("README", "README.md"), ("IMAGES", "")):
            monkeypatch.setattr(_publish, name, tmp_path / path)
        (tmp_path / "README.md").write_text(MARKED)
        return tmp_path

    def test_all_is_written(self, copy: Path, document: Document, capsys: pytest.CaptureFixture[str]) -> None:
        """The results, the README and the pictures agree; that a number is missing is said, and is no success."""
        assert publish(document, ["hot_path on 3.11"], partly=False) == 1
        stored = load((copy / "results.json").read_text())
        assert (copy / "README.md").read_text() == rewritten(MARKED, stored)
        assert (copy / "stampede.svg").read_text() == drawn(stored)["stampede.svg"]
        assert (
            "![Requests for a first token, all callers at once](.images/stampede.svg)"
            in (copy / "README.md").read_text()
        )
        said = capsys.readouterr().out
        assert "not measured:\n  requests for 100,000 callers at once\n" in said
        assert said.endswith("\n  hot_path on 3.11\n")

    def test_a_part_leaves_the_rest(self, copy: Path, document: Document) -> None:
        """One benchmark can be measured anew."""
        publish(document, partly=False)
        part: Document = {**document, "benchmarks": {"stampede": document["benchmarks"]["stampede"]}}
        publish(part, partly=True)
        assert load((copy / "results.json").read_text()) == load(dump(document))
        publish(part, partly=False)
        assert load((copy / "results.json").read_text()) == load(dump(part))

    def test_a_part_from_elsewhere_is_known_before_it_is_measured(self, document: Document) -> None:
        """Nobody measures for minutes what cannot be stored."""
        assert can_add({**document, "machine": {}})
        publish(document, partly=False)
        assert can_add(document)
        assert not can_add({**document, "machine": {}})


class TestPictures:
    def test_a_time_line_that_no_picture_shows_is_left_out(self, document: Document) -> None:
        """It is long, and of no use to a reader."""
        shown, idle = "time line of the refresh, by the moment", "time line of that day"
        rows: list[Row] = [{"ms": 0, "aiomsi max ms": 1.0}]
        document["benchmarks"]["refresh"] = result(**{shown: rows, idle: rows})
        assert list(without_idle_lines(document)["benchmarks"]["refresh"]["tables"]) == [shown]

    def test_a_picture_is_self_contained(self, document: Document) -> None:
        """It is well-formed, runs nothing, fetches nothing, and has colours for light and dark pages."""
        (picture,) = drawn(document).values()
        elements = {element.tag.rpartition("}")[2] for element in ET.fromstring(picture).iter()}  # noqa: S314  (ours)
        assert elements == {"svg", "title", "style", "rect", "text", "path", "circle"}
        assert "@media (prefers-color-scheme: dark)" in picture
        assert not any(
            word in picture.replace("http://www.w3.org/2000/svg", "") for word in ("http", "url(", "@import")
        )

    def test_names_are_escaped(self) -> None:
        """A name is text, whatever it is made of."""
        axis = even_steps("<x>", [1.0])
        picture = chart("a & b", axis, axis, [Line("<script>", "ours", [(0.0, 1.0)])])
        assert "<script>" in [element.text for element in ET.fromstring(picture).iter()]  # noqa: S314  (ours)

    def test_the_same_results_give_the_same_picture(self, document: Document) -> None:
        """A picture depends on nothing but the results."""
        assert drawn(document) == drawn(json.loads(json.dumps(document)))

    @pytest.mark.parametrize(
        ("values", "ticks"),
        [
            ([3.0, 700.0], [1.0, 10.0, 100.0, 1_000.0]),
            ([1.0], [1.0, 10.0]),
            ([0.0, 0.02], [0.01, 0.1]),
            ([], [1.0, 10.0]),
        ],
    )
    def test_a_logarithmic_axis_has_powers_of_ten(self, values: list[float], ticks: list[float]) -> None:
        """It begins and ends with one, and has all values but zeros between them."""
        assert powers_of_ten("x", values).ticks == ticks

    @pytest.mark.parametrize(
        ("values", "ticks"),
        [
            ([23.9], [0.0, 5.0, 10.0, 15.0, 20.0, 25.0]),
            ([3.5], [0.0, 1.0, 2.0, 3.0, 4.0]),
            ([0.3], [0.0, 0.1, 0.2, 0.3]),
            ([], [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        ],
    )
    def test_an_even_axis_has_round_steps(self, values: list[float], ticks: list[float]) -> None:
        """It begins with 0, and its last step is beyond all values."""
        assert even_steps("x", values).ticks == ticks

    def test_a_value_has_its_share_of_the_axis(self) -> None:
        """A logarithmic axis gives each power of ten the same room, and what is beyond an end is at the end."""
        axis = powers_of_ten("x", [1.0, 100.0])
        assert [axis.share(value) for value in (0.0, 1.0, 10.0, 100.0, 1e9)] == [0.0, 0.0, 0.5, 1.0, 1.0]
