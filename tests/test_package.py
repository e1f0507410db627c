"""The wheel, installed where there is nothing but Airflow."""

from __future__ import annotations

import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.environment import with_network

pytestmark = pytest.mark.package

ROOT = Path(__file__).parent.parent
HOME = {"AIRFLOW__CORE__LOAD_EXAMPLES": "False", "PATH": "/usr/bin:/bin"}


def run(*command: object, **options: object) -> str:
    done = subprocess.run(
        [str(each) for each in command],
        check=False,
        capture_output=True,
        text=True,
        **{"cwd": ROOT, "env": with_network(), **options},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder)
    (built,) = folder.iterdir()
    return built


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    """Every module, the marker for type checkers and the licence; no tests, no DAGs."""
    names = {name for name in ZipFile(wheel).namelist() if ".dist-info/" not in name}
    package = ROOT / "airflow_provider_exa"
    assert names == {str(path.relative_to(ROOT)) for path in [*package.rglob("*.py"), package / "py.typed"]}
    assert any(name.endswith("LICENSE") for name in ZipFile(wheel).namelist())


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, set[str]]]:
    """The ``bin`` of an environment with Airflow and the wheel, and what installing the wheel added."""
    folder = tmp_path_factory.mktemp("clean")
    venv.create(folder / "env", with_pip=True)
    bin_ = folder / "env" / "bin"
    pip = (bin_ / "python", "-m", "pip", "--quiet")
    run(*pip, "install", "--constraint", ROOT / "constraints.txt", "apache-airflow")
    before = set(run(*pip, "freeze").splitlines())
    run(*pip, "install", wheel)
    HOME["AIRFLOW_HOME"] = str(folder / "airflow")
    return bin_, set(run(*pip, "freeze").splitlines()) - before


def test_the_wheel_adds_no_other_package_to_a_plain_airflow(installed: tuple[Path, set[str]]) -> None:
    """All that it needs comes with Airflow."""
    (added,) = installed[1]
    assert added.startswith("airflow-provider-exa @")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("airflow", "providers", "get", "airflow-provider-exa"), "airflow-provider-exa"),
        (("airflow", "providers", "hooks"), "airflow_provider_exa.hooks.ExaHook"),
        (("python", "-m", "airflow_provider_exa.standin", "--help"), "--api-key"),
        (
            (
                "python",
                "-W",
                "error::ImportWarning",
                "-c",
                "import airflow_provider_exa.sensors as s; print(s.__file__)",
            ),
            "/env/lib",
        ),
    ],
)
def test_airflow_knows_the_installed_provider(
    installed: tuple[Path, set[str]], command: tuple[str, ...], words: str
) -> None:
    """What the command line shows of a provider comes from the wheel's entry point."""
    program, *arguments = command
    assert words in run(installed[0] / program, *arguments, env=HOME, cwd=installed[0])
