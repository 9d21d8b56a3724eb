# SPDX-License-Identifier: MIT
"""The end-to-end fixtures, and the packages of this folder's package.json."""

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/e2e"))

import importlib.util  # noqa: E402

spec = importlib.util.spec_from_file_location("e2e_conftest", ROOT / "tests/e2e/conftest.py")
base = importlib.util.module_from_spec(spec)
sys.modules["conftest"] = base
spec.loader.exec_module(base)
work, certs, place, stack, npm = base.work, base.certs, base.place, base.stack, base.npm


@pytest.fixture(scope="session")
def frameworks():
    folder = ROOT / "build/npm-long"
    wanted = (ROOT / "tests/long/package.json").read_text()
    stamp = folder / "installed.json"
    if not stamp.exists() or stamp.read_text() != wanted:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "package.json").write_text(wanted)
        done = subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--no-package-lock",
                               "--loglevel=error"], cwd=folder, capture_output=True, text=True,
                              timeout=900)
        assert done.returncode == 0, done.stdout + done.stderr
        stamp.write_text(wanted)
    return folder
