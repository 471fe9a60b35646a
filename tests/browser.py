"""A real browser for pages, where there is one."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def opened(page: str, folder: Path) -> str:
    """A page's elements after its scripts ran, in a browser."""
    assert CHROMIUM is not None
    path = folder / "page.html"
    path.write_text(page, encoding="utf-8")
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
    ]
    flags += ["--disable-component-update", "--disable-sync", f"--user-data-dir={folder / 'profile'}"]
    words = [CHROMIUM, *flags, "--virtual-time-budget=5000", "--window-size=1200,1600", f"--screenshot={folder / 'page.png'}"]
    ran = subprocess.run([*words, "--dump-dom", path.as_uri()], capture_output=True, timeout=120, check=True)
    return ran.stdout.decode("utf-8")
