"""Settings of an invented program: what is declared once comes out as flags, files, help and schema, and is checked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import pytest
from helpers.json_schema import valid

from foundation.errors import InternalError, UserError
from foundation.registry import Registry
from foundation.settings import choice, declared, records, section, setting
from foundation.settings.catalogue import Catalogue, catalogue
from foundation.settings.command_line import help_text, parse
from foundation.settings.files import read_file
from foundation.settings.reading import Layers, Problem, check, choice_names, flat, read
from foundation.settings.schema import json_schema

Finish = Literal["matt", "gloss"]


class Brush(Protocol):
    """What paints."""


brushes: Registry[type[Brush]] = Registry("brush")


@brushes.register("round")
@dataclass(frozen=True)
class Round:
    """A round brush. It has a width."""

    width: float = setting(1.5, "width of the tip", unit="mm", above=0, most=90)
    soft: bool = setting(True, "bend under pressure", aliases=("no_softness",))


@brushes.register("roller")
@dataclass(frozen=True)
class Roller:
    """Foam on a roll."""

    width: float = setting(200.0, "width of the tip", unit="mm", above=0)
    length: int = setting(30, "length of the handle", unit="cm", least=5, like=("soft",))
    pattern: Path | None = setting(None, "file of a pattern", implies=True)
    shelf: Path | None = setting(None, "folder of more patterns", folder=True)


@dataclass(frozen=True)
class Paint:
    """The paint."""

    colour: str = setting("red", "colour of the paint", aliases=("color",))
    finish: Finish = setting("matt", "finish", choices=("matt", "gloss"))
    coats: int = setting(2, "coats", choices=("1", "2", "4"))
    opacity: float | None = setting(None, "how much it hides", least=0, most=1, shown_default="the colour's")
    drips: bool = setting(False, "let it drip")
    fast: bool | None = setting(None, "dry fast", shown_default="on in summer")

    def problems(self) -> Iterator[Problem]:
        """Red does not drip."""
        if self.colour == "red" and self.drips:
            yield Problem("drips", "red paint does not drip", "give another --colour")


@dataclass(frozen=True)
class Wall:
    """One wall."""

    paint: Paint = section(Paint, "Paint")
    brush: Brush = choice(brushes, None, "what paints", title="Brush", otherwise="round")
    spare: Brush | None = choice(brushes, None, "what helps", title="Brush", bearing="way")


@dataclass(frozen=True)
class House:
    """All of it."""

    walls: tuple[Wall, ...] = records(Wall, "the walls, where they differ")
    workers: int = setting(1, "people", least=1, bearing="output")


def by_flags(*flags: str, root: type = House) -> House:
    found = read(root, Layers(flags=parse(flags, catalogue(root))))
    assert isinstance(found, House)
    return found


def by_file(path: Path, text: str, *flags: str) -> House:
    path.write_text(text)
    layers = read_file(path, catalogue(House))
    return read(House, Layers(layers.file, layers.lists, parse(flags, catalogue(House)), layers.problems))


def wrong(call: object, *arguments: object) -> str:
    with pytest.raises(UserError) as caught:
        call(*arguments)  # type: ignore[operator]
    return str(caught.value)


def test_without_any_value_the_defaults_stand() -> None:
    assert by_flags() == House() == House((Wall(Paint(), Round(), None),), 1)


def test_flags_in_all_spellings() -> None:
    house = by_flags(
        "--color=blue", "--finish", "gloss", "--coats", "4", "--opacity", ".5", "--drips", "--no-fast", "--workers", "3"
    )
    assert house == House((Wall(Paint("blue", "gloss", 4, 0.5, True, False)),), 3)
    assert by_flags("--no_soft") == by_flags("--no-softness") == by_flags("--no_softness", "--brush", "round")
    assert by_flags("--no_soft").walls[0].brush == Round(soft=False)
    assert by_flags("--soft", "--no_drips", "--fast").walls[0].paint.fast is True
    assert by_flags("--colour", "green", "--colour", "blue").walls[0].paint.colour == "blue", "the last one counts"


def test_a_choice_brings_its_own_settings() -> None:
    assert by_flags("--brush", "roller", "--width", "3").walls[0].brush == Roller(3.0)
    assert by_flags("--brush", "roller", "--spare", "round", "--width", "3").walls[0].spare == Round(3.0)
    assert choice_names(by_flags("--spare", "roller").walls[0]) == {"brush": "round", "spare": "roller"}


def test_a_setting_may_imply_the_choice_that_reads_it() -> None:
    assert by_flags("--pattern", "p.svg").walls[0].brush == Roller(pattern=Path("p.svg"))
    assert by_flags("--pattern", "p.svg").walls[0].spare is None, "what may be absent is not there for another's sake"
    assert "--pattern: not read by --brush round" in wrong(by_flags, "--pattern", "p.svg", "--brush", "round")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--coats 3", "--coats: '3' is not one of 1, 2, 4"),
        ("--coats two", "--coats: 'two' is not one of 1, 2, 4"),
        ("--workers 0", "--workers: '0' is not a whole number of at least 1"),
        ("--workers 1_000", "--workers: '1_000' is not a whole number of at least 1"),
        ("--workers ４", "--workers: '４' is not a whole number"),
        ("--workers 1e3", "--workers: '1e3' is not a whole number"),
        ("--workers 99999999999999999999", "--workers: '99999999999999999999' is too large; at most 1e15"),
        ("--opacity 1.1", "--opacity: '1.1' is not a number from 0 to 1"),
        ("--opacity nan", "--opacity: 'nan' is not a number from 0 to 1"),
        ("--opacity -0.1", "--opacity: '-0.1' is not a number from 0 to 1"),
        ("--width 0", "--width: '0' is not a number above 0 and at most 90"),
        ("--width 90.5", "--width: '90.5' is not a number above 0 and at most 90"),
        ("--width 1e300 --brush roller", "--width: '1e300' is too large; at most 1e15"),
        ("--width 1e-300", "--width: '1e-300' is too close to 0; at least 1e-15"),
        ("--finish mat", '--finish: unknown "mat"; did you mean matt?'),
        ("--brush rund", "--brush: unknown brush 'rund'; did you mean round?"),
        ("--brush " + 99 * "\a", "--brush: unknown brush '" + 19 * "\\x07" + "\\...'; known: "),
        ("--colour=", "--colour: nothing is given: it takes a text"),
        ("--colour", "--colour: its value is missing; give a text"),
        ("--colour --finish gloss", "--colour: its value is missing; give a text"),
        ("--brush --workers 2", "--brush: its value is missing; give one of roller, round"),
        ("--drips=yes", '--drips: takes no value; leave "yes" out'),
        ("--colur blue", "--colur: unknown flag; did you mean --colour, --color?"),
        ("--zzz blue", "--zzz: unknown flag; see --help"),
        ("blue", '"blue" belongs to no flag; flags begin with --'),
        ("--", '"--" belongs to no flag'),
        ("--length 30", "--length: not read by --brush round; --brush roller reads it"),
        ("--brush roller --soft", "--soft: not read by --brush roller; --brush round reads it"),
        ("--brush roller --soft", "reads it, here give --length"),
        ("--drips", "--drips: red paint does not drip; give another --colour"),
    ],
)  # fmt: skip
def test_wrong_flags_are_told_with_what_would_be_right(flags: str, said: str) -> None:
    assert wrong(by_flags, *flags.split()).startswith(said) or said in wrong(by_flags, *flags.split())


def test_a_lone_surrogate_or_a_nul_is_no_text() -> None:
    for text in ("a\0b", "a\udcff"):
        assert "cannot" in wrong(by_flags, "--colour", text) or "not a text" in wrong(by_flags, "--colour", text)
    assert "not a text" in wrong(by_flags, "--colour", "x" * 5000)


def test_everything_wrong_is_told_at_once_and_no_consequence() -> None:
    told = wrong(by_flags, "--drips", "--coats", "9", "--worker", "2", "--length", "4")
    assert told.split("; ") == [
        "--coats: '9' is not one of 1, 2, 4",
        "--worker: unknown flag",
        "did you mean --workers?",
        "--length: not read by --brush round",
        "--brush roller reads it",
    ], "that red does not drip is left for later"


def test_what_an_unknown_choice_would_have_read_is_not_blamed() -> None:
    assert wrong(by_flags, "--brush", "rollr", "--length", "4").count(";") == 1


@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_a_file_takes_the_names_of_the_flags(tmp_path: Path, suffix: str) -> None:
    values = {"color": "blue", "no-softness": True, "workers": 3, "fast": None}
    text = json.dumps(values) if suffix == "json" else "".join(f"{k}: {json.dumps(v)}\n" for k, v in values.items())
    house = by_file(tmp_path / f"run.{suffix}", text, "--workers", "4")
    assert house == House((Wall(Paint("blue"), Round(soft=False)),), 4), "flags win"


def test_a_list_has_what_its_records_do_not_share(tmp_path: Path) -> None:
    text = "colour: blue\nwalls:\n- coats: 1\n- {coats: 4, colour: green, brush: roller, length: 9}\n"
    shared = by_file(tmp_path / "a.yaml", text)
    assert [(wall.paint.colour, wall.paint.coats, wall.brush) for wall in shared.walls] == [
        ("blue", 1, Round()), ("green", 4, Roller(length=9)),
    ]  # fmt: skip
    assert [wall.paint.coats for wall in by_file(tmp_path / "a.yaml", text, "--coats", "2").walls] == [2, 2]
    assert by_file(tmp_path / "b.json", json.dumps(flat(shared))) == shared


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[1]", ".yaml: the run file is [1]; write settings by name"),
        ("workers: two", "line 1, workers: \"two\" is not a whole number of at least 1"),
        ("\nworkers: true", "line 2, workers: true is not a whole number"),
        ("workers: 1.0", "workers: 1.0 is not a whole number"),
        ("drips: 1", "drips: 1 is not true or false"),
        ("colour: [red]", 'colour: ["red"] is not a text'),
        ("coats: '2'", 'coats: "2" is not one of 1, 2, 4'),
        ("width: .inf", "line 1: .inf is not a number"),
        ("colour: blue\ncolor: red", "line 2, color: colour says it already; leave one out"),
        ("no_soft: 3", "no_soft: 3 is not true or false"),
        ("walls: 3", "walls: 3 is not a list of objects"),
        ("walls: []", "walls: [] is not a list of objects"),
        ("walls: [{cots: 1}]", "walls[0].cots: unknown setting; did you mean coats?"),
        ("walls: [{length: 9}]", "walls[0].length: not read by --brush round"),
        ("walls: [{brush: roller}, {}]\nlength: 9\nsoft: true", None),
        ("walls: [{brush: roller}]\nlength: 9\nsoft: true", "line 3, soft: not read by --brush roller"),
        ("wals: 3", "wals: unknown setting; did you mean walls"),
        ("workers: 2\nworkers: 3", "line 2"),
    ],
)  # fmt: skip
def test_wrong_files_are_told_with_their_line(tmp_path: Path, text: str, said: str | None) -> None:
    if said is None:
        assert by_file(tmp_path / "run.yaml", text).walls[0].brush == Roller(length=9)
    else:
        assert said in wrong(by_file, tmp_path / "run.yaml", text)


def test_a_path_that_all_problems_share_is_said_once(tmp_path: Path) -> None:
    told = wrong(by_file, tmp_path / "run.yaml", "workers: 0\ncoats: 9\n")
    assert told.count("run.yaml") == 1 and "line 1, workers" in told and "line 2, coats" in told


def test_records_made_in_python_are_checked_too() -> None:
    check(House())
    check(House((Wall(spare=Roller()),)))
    assert wrong(check, House((Wall(Paint(coats=3)),), 0)) == (
        "coats: 3 is not one of 1, 2, 4; workers: 0 is not a whole number of at least 1"
    )
    assert "drips: red paint does not drip" in wrong(check, House((Wall(Paint(drips=True)),)))
    for width in (-1, 10**400):
        assert "is not a number above 0" in wrong(check, House((Wall(spare=Round(width=width)),)))


def test_the_help_says_meaning_unit_and_default() -> None:
    text = help_text(catalogue(House), "house [FLAGS]", "Paints.", "More elsewhere.")
    squeezed = " ".join(text.split())
    for words in (
        "usage: house [FLAGS]", "Paint: --colour NAME colour of the paint (default: red) (also --color)",
        "--finish {matt,gloss} finish (default: matt)", "how much it hides (default: the colour's)",
        "--drips let it drip", "--[no_]fast dry fast (default: on in summer)",
        "--brush {roller,round} what paints: roller: foam on a roll; round: a round brush (default: round)",
        "Brush: --brush roller: --length N length of the handle, cm (default: 30)",
        "Brush: --brush round: --no_soft do not bend under pressure (also --no_softness)",
        "--width X width of the tip, mm", "General: --workers N people (default: 1)", "More elsewhere.",
    ):  # fmt: skip
        assert words in squeezed, words
    assert "Brush: --width" not in squeezed and squeezed.index("--width") < squeezed.index("--brush roller:")
    assert all(len(line) <= 120 for line in text.splitlines())


def test_defaults_that_differ_by_choice_are_told_one_by_one() -> None:
    kinds: Registry[type] = Registry("kind")

    @kinds.register("first")
    @dataclass(frozen=True)
    class First:
        """First kind."""

        size: int = setting(3, "how large")
        warm: bool = setting(True, "heat it")
        same: bool = setting(True, "keep it")

    @kinds.register("second")
    @dataclass(frozen=True)
    class Second:
        """Second kind."""

        size: int = setting(4, "how large", shown_default="4, or 5 on Sundays")
        warm: bool = setting(False, "heat it")
        same: bool = setting(True, "keep it")

    @dataclass(frozen=True)
    class Oven:
        kind: object = choice(kinds, "first", "what it is")

    squeezed = " ".join(help_text(catalogue(Oven), "oven [FLAGS]", "Bakes.", "").split())
    assert "--size N how large (default: first: 3; second: 4, or 5 on Sundays)" in squeezed
    assert "--[no_]warm heat it (default: first: on; second: off)" in squeezed
    assert "--no_same do not keep it" in squeezed and "--no_same do not keep it (default" not in squeezed
    settings = json_schema(catalogue(Oven), "An oven")["$defs"]["settings"]["properties"]
    assert settings["warm"] == {"type": "boolean", "description": "heat it (default: first: on; second: off)"}
    assert settings["same"]["default"] is True
    assert read(Oven, Layers(flags=parse(["--kind", "second"], catalogue(Oven)))).kind == Second(4, False)


@pytest.mark.parametrize(
    ("values", "fits"),
    [
        ({}, True),
        ({"workers": 2, "coats": 4, "opacity": 1, "finish": "gloss"}, True),
        ({"brush": "roller", "pattern": "stars.svg", "shelf": "patterns/"}, True),
        ({"brush": "roller", "pattern": "patterns/"}, False),
        ({"workers": 0}, False),
        ({"coats": 3}, False),
        ({"opacity": 1.5}, False),
        ({"width": 0}, False),
        ({"colour": ""}, False),
        ({"drips": 1}, False),
        ({"nothing": 1}, False),
        ({"brush": "sponge"}, False),
        ({"walls": [{"coats": 1}, {"brush": "roller", "length": 9}], "length": 7}, True),
        ({"walls": [{"cots": 1}]}, False),
        ({"walls": []}, False),
    ],
)
def test_the_schema_takes_what_a_reading_takes(tmp_path: Path, values: dict[str, object], fits: bool) -> None:
    schema = json_schema(catalogue(House), "A house")
    assert valid(schema, values) is fits
    if fits:
        by_file(tmp_path / "run.json", json.dumps(values))
    else:
        assert "run.json" in wrong(by_file, tmp_path / "run.json", json.dumps(values))


def test_the_schema_knows_what_a_choice_does_not_read() -> None:
    @dataclass(frozen=True)
    class Room:
        brush: Brush = choice(brushes, "round", "what paints")

    schema = json_schema(catalogue(Room), "A room")
    assert valid(schema, {"soft": True}) and valid(schema, {"brush": "roller", "length": 9})
    assert not valid(schema, {"length": 9}) and not valid(schema, {"brush": "roller", "soft": True})


def test_mistakes_in_declarations_are_defects() -> None:
    @dataclass(frozen=True)
    class Undeclared:
        size: int = field(default=3)

    @dataclass(frozen=True)
    class Odd:
        size: complex = setting(3, "size")

    @dataclass(frozen=True)
    class Two:
        size: int | str = setting(3, "size")

    for record in (Undeclared, Odd, Two):
        with pytest.raises(InternalError, match=r"size"):
            declared(record)

    @dataclass
    class Changing:
        size: int = setting(3, "size")

    with pytest.raises(InternalError, match=r"Changing holds settings and is no @dataclass\(frozen=True\)"):
        declared(Changing)

    @dataclass(frozen=True)
    class Other:
        coats: float = setting(1.0, "coats")

    @dataclass(frozen=True)
    class Clash:
        paint: Paint = section(Paint)
        other: Other = section(Other)

    with pytest.raises(InternalError, match="coats is declared twice"):
        Catalogue(Clash)

    @dataclass(frozen=True)
    class Taken:
        paint: Paint = section(Paint)
        hue: str = setting("red", "hue", aliases=("colour",))

    with pytest.raises(InternalError, match="the spelling colour of hue is taken"):
        Catalogue(Taken)

    @dataclass(frozen=True)
    class OtherBrush:
        wall: Wall = section(Wall)
        brush: object = choice(Registry("brush"), None, "another kind of brush")

    with pytest.raises(InternalError, match="brush is declared twice"):
        Catalogue(OtherBrush)


@pytest.mark.parametrize(("terminal", "widest"), [("60", 60), ("400", 120)])
def test_the_help_fits_the_terminal_and_never_grows_too_wide(
    terminal: str, widest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", terminal)
    lines = help_text(catalogue(House), "house [FLAGS]", "word " * 60, "word " * 60).splitlines()
    assert widest - 20 < max(map(len, lines)) <= widest
