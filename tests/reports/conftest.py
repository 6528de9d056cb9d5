import importlib.util
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

SWITCHES = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
)  # fmt: skip
"""Of a browser that does nothing on its own."""

pytest.register_assert_rewrite("tests.reports.browser_cases")


def _module(name: str) -> ModuleType:
    """A helper beside this file; tests are no packages, so it is loaded by path."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _write(path: Path, columns: dict[str, Any]) -> None:
    pq.write_table(pa.table(columns), path, compression="zstd")


def _make_run_dir(
    path: Path,
    n: int = 12000,
    replicas: int = 8,
    seed: int = 0,
    rejected: int = 0,
    span: float = 3540.0,
    steps: int = 4000,
    slo: dict[str, float] | None = None,
) -> Path:
    """Write a fabricated run directory to `path` and return it."""
    tables, around = _module("fake_tables"), _module("fake_summary")
    path.mkdir(parents=True, exist_ok=True)
    requests = tables.make_requests(n, replicas, seed, rejected, span)
    transfers = tables.make_transfers(requests)
    _write(path / "requests.parquet", requests)
    _write(path / "transfers.parquet", transfers)
    _write(path / "steps.parquet", tables.make_steps(requests, replicas, steps))
    _write(path / "samples.parquet", tables.make_samples(requests, replicas))
    limits = {"ttft_p99": 30000.0, "tpot_p95": 50.0} if slo is None else slo
    summary = around.make_summary(requests, transfers, replicas, seed, limits, tables.CAPACITY)
    (path / "summary.json").write_text(json.dumps(summary, indent=1))
    (path / "profile.json").write_text(json.dumps(around.PROFILE))
    (path / "scenario.yaml").write_text(around.SCENARIO % (replicas, seed))
    return path


@pytest.fixture(scope="session")
def make_run_dir() -> Callable[..., Path]:
    """Fabricates a run directory of any shape."""
    return _make_run_dir


@pytest.fixture(scope="session")
def make_study() -> Callable[..., dict[str, Any]]:
    """Fabricates what `explain.json` holds."""
    made: Callable[..., dict[str, Any]] = _module("fake_explain").make_study
    return made


@pytest.fixture(scope="session")
def shared_run(make_run_dir: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory of 1,500 requests on 4 replicas; tests only read it."""
    path: Path = make_run_dir(tmp_path_factory.mktemp("run"), n=1500, replicas=4, rejected=3, span=900, steps=300)
    return path


@pytest.fixture
def run_dir(make_run_dir: Any, tmp_path: Path) -> Path:
    """A small run directory of its own, to break."""
    path: Path = make_run_dir(tmp_path / "run", n=60, replicas=2, span=60, steps=20)
    return path


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A headless Chromium without a network; tests that ask for it skip themselves where there is none."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium") or shutil.which("chromium-browser"))
    for switch in (*SWITCHES, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(shutil.which("chromedriver"))))
    driver.execute_cdp_cmd("Network.enable", {})
    offline = {"offline": True, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    driver.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
    yield driver
    driver.quit()


@pytest.fixture
def open_page(browser: Any) -> Callable[..., None]:
    """Loads a page at a width, as a touch screen below 500 px, and waits until its last figure is drawn."""

    def load(page: Path, width: int = 1280, theme: str = "light") -> None:
        phone = width < 500
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 850, "deviceScaleFactor": 2 if phone else 1, "mobile": phone},
        )
        browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": phone})
        features = [{"name": "prefers-color-scheme", "value": theme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        browser.get_log("browser")
        browser.get(page.as_uri())
        deadline = time.monotonic() + 120
        while browser.execute_script("return document.documentElement.dataset.figures") != "ready":
            assert time.monotonic() < deadline, browser.get_log("browser")
            time.sleep(0.05)

    return load
