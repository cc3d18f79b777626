"""The pictures of docs/reports.md: the Space with its first example, and its live tab on a phone.

    python benchmarks/space_pictures.py

needs Chromium and the `dev` extra. Both show the public-domain portrait.
"""

import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright
from space_visitor import CHROMIUM, ROOT, camera_film, flags, space_process

DOCS = ROOT / "docs"
LARGEST = 250_000


def keep(page: Page, name: str, height: int) -> None:
    """Write the upper part of the page with as many colours as the file may hold."""
    with tempfile.TemporaryDirectory() as folder:
        page.screenshot(path=f"{folder}/page.png", full_page=True)
        image = Image.open(f"{folder}/page.png").convert("RGB")
        image = image.crop((0, 0, image.width, min(height, image.height)))
        for colours in (256, 128, 64):
            image.quantize(colours, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(
                DOCS / name, optimize=True
            )
            if (DOCS / name).stat().st_size < LARGEST:
                return
    raise RuntimeError(f"{name} does not get below {LARGEST} bytes")


def main() -> None:
    """Visit the Space and write both pictures."""
    with (
        tempfile.TemporaryDirectory() as folder,
        space_process() as (url, _),
        sync_playwright() as running,
    ):
        film = camera_film(Path(folder) / "film.mjpeg", wall=False)
        browser = running.chromium.launch(executable_path=CHROMIUM, args=flags(film))
        page = browser.new_page(viewport={"width": 1100, "height": 900})
        page.goto(url)
        page.locator("button.gallery-item").first.click()
        page.locator("[data-testid='Clip-player']").wait_for()
        page.get_by_role("button", name="Analyse").click()
        page.get_by_role("heading", name="Action units").wait_for()
        page.wait_for_timeout(500)
        keep(page, "space.png", 1530)
        phone = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
        page = browser.new_context(**phone, color_scheme="dark").new_page()
        page.goto(url)
        page.get_by_role("tab", name="Live").click()
        page.get_by_text("Click to Access Webcam").click()
        page.get_by_role("button", name="capture photo").click()
        page.locator(".mma-bar:visible").first.wait_for()
        page.wait_for_timeout(4000)
        keep(page, "space_live.png", 1400)
        browser.close()


if __name__ == "__main__":
    main()
