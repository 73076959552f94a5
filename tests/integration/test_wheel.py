"""A wheel built from the repository runs where there is no checkout: every file it needs is in it.

It is installed into an environment of its own, which has the libraries of this one but, unlike it,
no way to the checkout.
"""

import csv
import io
import json
import os
import random
import signal
import subprocess
import sys
import sysconfig
import time
import venv
import zipfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.parser import Parser
from pathlib import Path

import httpx
import psutil
import pytest
from integration.house import eventually, free_ports

from driftloop import __version__
from driftloop.up import status

CHECKOUT = Path(__file__).parents[2]
PACKAGES = {"driftloop": "src/driftloop", "flows": "flows", "dashboards": "dashboards"}
pytestmark = pytest.mark.timeout(900)
SERVICES = {
    *("online", "pages", "slack", "desk", "prefect", "mlflow", "worker", "ingester", "watchdog"),
}


@dataclass(frozen=True)
class Installed:
    """An environment that the wheel is installed in."""

    wheel: Path
    bin: Path
    place: Path
    """The wheel's files are below this."""

    def run(self, *argv: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run one of the environment's programs in `cwd`."""
        return subprocess.run(
            [str(self.bin / argv[0]), *argv[1:]],
            cwd=cwd,
            env=outside(),
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )


def outside() -> dict[str, str]:
    """Return an environment that says nothing of the checkout, nor of an installation."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("DRIFTLOOP_", "PYTHONPATH", "VIRTUAL_ENV"))
    }


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel, built without network and installed into a new environment."""
    folder = tmp_path_factory.mktemp("wheel")
    built = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder / "dist")]
    subprocess.run(built, cwd=CHECKOUT, env=outside(), capture_output=True, check=True)
    (wheel,) = (folder / "dist").glob("*.whl")
    home = folder / "environment"
    venv.create(home, with_pip=False, symlinks=True)
    names = {"base": str(home), "platbase": str(home)}
    place = Path(sysconfig.get_path("purelib", "venv", names))
    # Of a folder named in a .pth file the .pth files are not read: the checkout's neither.
    libraries = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (place / "libraries.pth").write_text("\n".join(sorted(libraries)) + "\n")
    python = str(home / "bin" / "python")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--no-index", "--no-deps"]
    subprocess.run([*pip, "-q", str(wheel)], env=outside(), capture_output=True, check=True)
    return Installed(wheel=wheel, bin=home / "bin", place=place)


def test_the_wheel_holds_what_the_repository_does(installed: Installed) -> None:
    """Every file of the three packages, templates and examples too; no test, and nothing else."""
    wanted = {
        f"{package}/{file.relative_to(CHECKOUT / folder)}"
        for package, folder in PACKAGES.items()
        for file in (CHECKOUT / folder).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    with zipfile.ZipFile(installed.wheel) as wheel:
        names = [name for name in wheel.namelist() if ".dist-info/" not in name]
    assert sorted(wanted) == sorted(names)
    assert {name for name in wanted if not name.endswith(".py")} >= {
        "dashboards/templates/fleet.html",
        "driftloop/page/sandbox/page.html",
        "driftloop/py.typed",
        "driftloop/starter/monitors/parcels.toml",
    }


def test_the_wheel_says_what_it_is(installed: Installed) -> None:
    """Licence, readme, requirements and the command are in its metadata."""
    with zipfile.ZipFile(installed.wheel) as wheel:
        info = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
        told = Parser().parsestr(wheel.read(info).decode())
        folder = info.removesuffix("METADATA")
        licence = wheel.read(f"{folder}licenses/LICENSE")
        entry = wheel.read(f"{folder}entry_points.txt").decode()
    assert licence == (CHECKOUT / "LICENSE").read_bytes()
    assert told["License-Expression"] == "MIT"
    assert told.get_payload().startswith("# driftloop")
    assert "duckdb==1.5.5" in told.get_all("Requires-Dist", [])
    assert "driftloop = driftloop.cli:main" in entry


def test_commands_work_without_a_checkout(installed: Installed, tmp_path: Path) -> None:
    """`version`, `init`, `settings` and `check` in an empty folder, all from the wheel."""
    code = "import driftloop, flows, dashboards, sys, json; print(json.dumps([sys.path, "
    code += "driftloop.__file__, flows.__file__, dashboards.__file__]))"
    path, *files = json.loads(installed.run("python", "-c", code, cwd=tmp_path).stdout)
    assert not {str(CHECKOUT), str(CHECKOUT / "src")} & set(path)
    assert all(Path(file).is_relative_to(installed.place) for file in files), files

    assert installed.run("driftloop", "version", cwd=tmp_path).stdout.strip() == __version__
    made = installed.run("driftloop", "init", cwd=tmp_path)
    assert (made.returncode, made.stderr) == (0, "")
    assert (tmp_path / "monitors" / "parcels.toml").exists()
    shown = installed.run("driftloop", "settings", cwd=tmp_path).stdout
    assert "driftloop.toml: home" in shown
    checked = installed.run("driftloop", "check", cwd=tmp_path)
    assert checked.returncode == 0, checked.stderr
    assert "parcels: 2 models, 3 features" in checked.stdout


@pytest.mark.long
def test_a_day_without_a_checkout(installed: Installed, tmp_path: Path) -> None:
    """`init`, `up`, `backfill`, `train`, a prediction, and a SIGTERM that leaves nothing running.

    All settings come from the file that `init` wrote, edited as a person would.
    """
    assert installed.run("driftloop", "init", cwd=tmp_path).returncode == 0
    names = ("online", "pages", "slack", "desk", "mlflow", "prefect")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    file = tmp_path / "driftloop.toml"
    text = file.read_text()
    for name, port in ports.items():
        before, found, after = text.partition(f"# {name}_port = ")
        assert found
        text = f"{before}{name}_port = {port}\n" + after.partition("\n")[2]
    file.write_text(text)

    said = tmp_path / "up.txt"
    with said.open("wb") as out:
        up = subprocess.Popen(
            [str(installed.bin / "driftloop"), "up"],
            cwd=tmp_path,
            env=outside(),
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        eventually(
            lambda: "Ctrl-C stops everything" in said.read_text() or up.poll() is not None,
            "everything up",
            within=240,
        )
        assert up.poll() is None, said.read_text()
        (tmp_path / "history.csv").write_text(history(datetime.now(UTC)))
        given = installed.run("driftloop", "backfill", "parcels", "history.csv", cwd=tmp_path)
        assert given.returncode == 0, given.stderr
        assert "1000 rows, 1000 of them labelled: in the log" in given.stdout
        trained = installed.run("driftloop", "train", cwd=tmp_path)
        assert trained.returncode == 0, trained.stdout + trained.stderr
        assert trained.stdout.count("promoted") == 2
        eventually(lambda: predicted(ports["online"]) is not None, "an answer")
        assert abs((predicted(ports["online"]) or 0.0) - 10.0) < 3.0

        def healthy() -> bool:
            return installed.run("driftloop", "status", cwd=tmp_path).returncode == 0

        eventually(healthy, "every service healthy")
        home = tmp_path / ".driftloop"
        assert {each.name for each in status(home)} == SERVICES

        # A service that comes again has what `up` began with, whatever became of the file.
        file.write_text("nonsense = 1\n")
        (ingester,) = (each for each in status(home) if each.name == "ingester")
        os.kill(ingester.pid or 0, signal.SIGKILL)
        again = ("healthy", 1)
        eventually(
            lambda: again in [(each.state, each.restarts) for each in status(home)],
            "the ingester again",
        )

        services = {each.name: each.pid for each in status(home)}
        running = psutil.Process(up.pid).children(recursive=True)
        assert {process.pid for process in running} >= set(services.values())
        up.send_signal(signal.SIGTERM)
        assert up.wait(30) == 0, said.read_text()
        _, alive = psutil.wait_procs(running, timeout=5)
        assert alive == []
    finally:
        if up.poll() is None:
            up.terminate()
            up.wait(30)


def history(now: datetime) -> str:
    """Return 40 days of parcels as CSV: a tenth of an hour for each kilometre, and some noise."""
    seeded, out = random.Random(3), io.StringIO()
    rows = csv.writer(out)
    rows.writerow(
        ["id", "model", "sent_at", "distance", "weight", "carrier", "label", "observed_at"]
    )
    for number in range(1000):
        sent = now - timedelta(days=40 * (1 - number / 1000), minutes=1)
        distance = seeded.uniform(10, 190)
        rows.writerow(
            [
                f"p{number}",
                ("parcels-north", "parcels-south")[number % 2],
                sent.isoformat(),
                distance,
                seeded.uniform(0, 50),
                seeded.choice(["dhl", "ups"]),
                distance / 10 + seeded.gauss(0, 0.5),
                (sent + timedelta(seconds=30)).isoformat(),
            ]
        )
    return out.getvalue()


def predicted(port: int) -> float | None:
    """Return what is predicted for a parcel of 100 km; None while nothing answers."""
    answer = httpx.post(
        f"http://127.0.0.1:{port}/v1/models/parcels-north/predict",
        json={
            "id": f"asked-{time.time_ns()}",
            "sent_at": datetime.now(UTC).isoformat(),
            "distance": 100.0,
            "weight": 2.0,
            "carrier": "dhl",
        },
        timeout=10,
    )
    return float(answer.json()["predictions"][0]["prediction"]) if answer.is_success else None
