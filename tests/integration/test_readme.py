"""Every command, link, setting and example that README.md shows is true."""

import json
import re
import shlex
import subprocess
import sys
import tomllib
from datetime import UTC, datetime
from itertools import dropwhile, takewhile
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from driftloop.cli import app
from driftloop.demo.run import MARKETS
from driftloop.records import ModelId
from driftloop.serve.request import parse_labels, parse_rows
from driftloop.settings import CONFIG, Settings, read_settings
from driftloop.spec import load_fleet

CHECKOUT = Path(__file__).parents[2]
README = (CHECKOUT / "README.md").read_text(encoding="utf-8")
SCRIPT = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)
TOML = re.compile(r"^```toml\n(.*?)^```", re.MULTILINE | re.DOTALL)
SETTINGS = re.compile(r"^\| setting \|.*\n(?:\|.*\n)+", re.MULTILINE)
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
VARIABLE = re.compile(r"[A-Z_]+=")
ADDRESS = re.compile(r"/v1/models/(?P<model>[\w-]+)/(?P<what>predict|labels|predictions)(/[^/]+)?$")


def commands() -> list[list[str]]:
    """Return the words of every command in the bash blocks.

    Comments and continuations are done, and variables that are set for it are left out.
    """
    lines: list[str] = []
    for block in SCRIPT.findall(README):
        open_line = ""
        for line in block.replace("\\\n", " ").splitlines():
            open_line += f"{line}\n"
            try:
                words = shlex.split(open_line, comments=True)
            except ValueError:
                continue  # a quote is still open: the command goes on in the next line
            if words:
                lines.append(open_line)
            open_line = ""
        assert not open_line, f"a quote is never closed: {open_line}"
    words_of = [shlex.split(line, comments=True) for line in lines]
    return [list(dropwhile(VARIABLE.match, words)) for words in words_of]


def called(program: str) -> list[list[str]]:
    """Return the arguments of every call of `program`."""
    return [words[1:] for words in commands() if words[0] == program]


def test_every_line_is_of_a_program_that_is_checked_here() -> None:
    """A command that no test below looks at would be a promise that nobody keeps."""
    assert {words[0] for words in commands()} == {"driftloop", "make", "curl", "dask", "prefect"}
    assert len(commands()) > 12


@pytest.mark.parametrize("words", called("driftloop"), ids=" ".join)
def test_commands_take_the_words_they_are_shown_with(words: list[str]) -> None:
    """Each subcommand exists and takes its arguments and options; nothing is carried out."""
    taken(words)


def test_help_knows_every_command_shown() -> None:
    """`driftloop --help` lists each command that the page has."""
    listed = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"}).output
    for words in called("driftloop"):
        assert re.search(rf"\b{words[0]}\b", listed), words[0]


@pytest.mark.parametrize("name", re.findall(r"`(--[a-z-]+)`", README))
def test_options_in_the_text_are_shared_by_all_commands(name: str) -> None:
    """What is said of `--home` and the like is what `driftloop --help` shows."""
    assert name in CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"}).output


@pytest.mark.parametrize("words", called("make"), ids=" ".join)
def test_make_has_every_target(words: list[str]) -> None:
    """Each target is in the Makefile, and what ARGS holds is understood by what it is given to."""
    targets = re.findall(r"^([a-z-]+):", (CHECKOUT / "Makefile").read_text(), re.MULTILINE)
    target, *given = words
    assert target in targets
    for each in given:
        name, _, value = each.partition("=")
        assert name == "ARGS"
        taken([target, *shlex.split(value)])


@pytest.mark.parametrize(
    "words",
    [[program, *words] for program in ("dask", "prefect") for words in called(program)],
    ids=" ".join,
)
def test_programs_of_others_know_what_they_are_asked(words: list[str]) -> None:
    """Each subcommand is there, with its options, which its help lists."""
    named = list(takewhile(str.isalpha, words))
    told = subprocess.run(
        [sys.executable, "-m", *named, "--help"], capture_output=True, text=True, check=True
    ).stdout
    for option in (word for word in words if word.startswith("--")):
        assert re.search(rf"{option}\b", told), option


@pytest.mark.parametrize("link", [one for one in LINK.findall(README) if "://" not in one])
def test_relative_links_lead_to_files(link: str) -> None:
    """Nothing that the page points at is missing."""
    assert (CHECKOUT / link).exists()


def test_folders_that_the_page_names_are_there() -> None:
    """The table of the house names folders of this checkout, and of its tests."""
    rows = re.findall(r"^\| `([\w/]+/)` \|(.*)\|$", README, re.MULTILINE)
    assert len(rows) == 5
    for folder, said in rows:
        assert (CHECKOUT / folder).is_dir()
        for inner in re.findall(r"`(\w+/)`", said if folder == "tests/" else ""):
            assert (CHECKOUT / folder / inner).is_dir()


def test_settings_that_the_page_names_exist() -> None:
    """Every DRIFTLOOP_ variable is a setting, and the defaults said beside them are right."""
    named = set(re.findall(r"DRIFTLOOP_[A-Z0-9_]+", README))
    assert len(named) >= 3
    for row in "".join(SETTINGS.findall(README)).splitlines():
        assert set(re.findall(r"`(\w+)`", row.split("|")[1])) <= set(Settings.model_fields), row
    known = {*Settings.model_fields, CONFIG.removeprefix("DRIFTLOOP_").lower()}
    assert {name.removeprefix("DRIFTLOOP_").lower() for name in named} <= known
    (seconds,) = re.findall(r"`DRIFTLOOP_WATCH_EVERY` \(seconds, (\d+)[;)]", README)
    assert float(seconds) == Settings.model_fields["watch_every"].default


def test_settings_for_several_machines_fit_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """The example is taken as it stands, with the secret that it leaves to the environment."""
    (example,) = [block for block in TOML.findall(README) if "catalog" in block]
    said = tomllib.loads(example)
    settings = read_settings(config="", **said, s3_secret="given")
    assert set(settings.elsewhere) == {"ledger", "catalog", "lake_files", "mlflow", "artifacts"}
    (table,) = (each for each in SETTINGS.findall(README) if "catalog" in each)
    named = set(re.findall(r"`(\w+)`", "".join(row.split("|")[1] for row in table.splitlines())))
    assert set(said) - {"monitors"} <= named <= set(Settings.model_fields)


def test_addresses_are_the_default_ports() -> None:
    """Each service listens where the page says."""
    shown = re.findall(r"^\| (\w+) \| http://127\.0\.0\.1:(\d+)", README, re.MULTILINE)
    assert len(shown) == 5
    for name, port in shown:
        assert Settings.model_fields[f"{name}_port"].default == int(port), name


def test_curl_bodies_are_what_the_service_takes() -> None:
    """The examples parse against the monitors that ship; nothing in them is passed over."""
    fleet, port = load_fleet(CHECKOUT / "monitors"), Settings.model_fields["online_port"].default
    seen = []
    for words in called("curl"):
        (url,) = [word for word in words if word.startswith("localhost:")]
        found = ADDRESS.search(url)
        assert found is not None
        assert url.startswith(f"localhost:{port}/")
        model = ModelId(found["model"])
        family = fleet.family(model)
        seen.append(found["what"])
        if found["what"] == "predictions":
            assert found[3]
            assert "-d" not in words
            continue
        body = words[words.index("-d") + 1].encode()
        if found["what"] == "predict":
            (row,) = parse_rows(family, body, now=datetime.now(UTC)).rows
            assert row is not None
            given = json.loads(body)
            assert {name: row.features[name] for name in family.features} == {
                name: given[name] for name in family.features
            }
        else:
            (label,) = parse_labels(family, model, body, now=datetime.now(UTC))
            assert label.model == model
    assert sorted(seen) == ["labels", "predict", "predictions"]


def test_the_demo_is_as_large_as_the_page_says() -> None:
    """14 models by default; 29 markets of both families with `--models all`."""
    models = sum(len(markets.split()) for markets in MARKETS.values())
    assert f"watch {models} models" in README
    (markets,) = {len(family.markets) for family in load_fleet(CHECKOUT / "monitors").families}
    assert f"all {markets} markets of both families" in README


def taken(words: list[str]) -> None:
    """Parse the words as the command line would; raises when it would refuse them."""
    group = typer.main.get_command(app)
    commands = getattr(group, "commands", {})
    assert words[0] in commands
    command = commands[words[0]]
    assert not command.hidden
    with command.make_context(words[0], words[1:]):
        pass
