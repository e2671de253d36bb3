"""A real browser: Debian's Chromium by Playwright, with axe, and every request of every page noted."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from console.cast import Cast

ROOT = Path(__file__).resolve().parents[2]
AXE = ROOT / "node_modules" / "axe-core" / "axe.min.js"
DESKTOP, PHONE = (1280, 860), (390, 844)


@contextlib.contextmanager
def open_browser() -> Iterator[Browser]:
    """Give Debian's Chromium, which `scripts/setup` installs: its build without windows, which takes 0.7 s of
    processor for a page and its checks where the other takes 1.6 s.
    """
    program = shutil.which("chromium-headless-shell")
    assert program, "chromium-headless-shell is missing; see scripts/setup"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


class Visitor:
    """Somebody with a browser of their own, whose every request is noted."""

    def __init__(self, browser: Browser, cast: Cast, person: str, **options: Any) -> None:
        self.cast = cast
        self.requests: list[str] = []
        self.faults: list[str] = []
        self.context: BrowserContext = browser.new_context(
            base_url=cast.service.url,
            **{"viewport": {"width": DESKTOP[0], "height": DESKTOP[1]}, **options},
        )
        if person in cast.tokens:
            self.context.add_cookies(
                [
                    {
                        "name": "bailee_console",
                        "value": cast.tokens[person],
                        "url": url,
                        "httpOnly": True,
                        "sameSite": "Lax",
                    }
                    for url in (cast.service.url, cast.own_url)
                ]
            )
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(10_000)
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("dialog", lambda dialog: self.faults.append(f"dialog {dialog.message}"))

    def go(self, path: str) -> Page:
        """Open a page."""
        answer = self.page.goto(path)
        assert answer is not None
        assert answer.ok, f"{path}: {answer.status} {self.page.inner_text('main')[:300]}"
        return self.page

    def foreign(self) -> list[str]:
        """Return the requests that went to another host than the service."""
        ours = (f"{self.cast.service.url}/", f"{self.cast.own_url}/")
        return [url for url in self.requests if not url.startswith(ours)]

    def check_with_axe(self, *rules: str) -> list[str]:
        """Return what axe finds wrong with the page, a line each; by all its rules if none is named."""
        if not self.page.evaluate("typeof axe !== 'undefined'"):
            self.page.evaluate(AXE.read_text())
        options: dict[str, Any] = {"resultTypes": ["violations"], "iframes": False}
        if rules:
            options["runOnly"] = list(rules)
        found = self.page.evaluate("options => axe.run(document, options)", options)
        return [
            f"{one['id']}: {one['help']}: {', '.join(str(node['target']) for node in one['nodes'])[:300]}"
            for one in found["violations"]
        ]

    def list_out_of_sight(self) -> list[str]:
        """Return what of the page one reads or presses that lies off to a side of the window."""
        return self._list(
            "main :is(td, tbody th, .n, button, a, input, select, textarea, summary, svg text)",
            "box.width > 0 && box.height > 0 && (box.left < -1 || box.right > innerWidth + 1)"
            " && !one.closest('thead, .unseen')",
        )

    def list_hard_to_press(self) -> list[str]:
        """Return buttons, fields and the like that are lower than a finger wants them: 44 px."""
        return self._list(
            ":is(button, .button, select, summary, nav a, input:not([type=checkbox], [type=radio]))",
            "box.height > 0 && box.height < 43.5",
        )

    def list_mislabelled(self) -> list[str]:
        """Return cells of cards that do not tell the head of their column, or not what they are."""
        found: list[str] = self.page.evaluate(
            """() => [...document.querySelectorAll("table.cards")].flatMap((table) => {
              const heads = [...table.querySelectorAll("thead th")];
              return [...table.tBodies[0].rows].flatMap((row) => {
                let place = 0;
                return [...row.cells].filter((cell) => {
                  const head = heads[place];
                  place += cell.colSpan;
                  const isBare = head.querySelector(".unseen") || cell.colSpan === heads.length;
                  const role = cell.tagName === "TH" ? "rowheader" : "cell";
                  return (cell.dataset.label ?? "") !== (isBare ? "" : head.textContent)
                    || cell.getAttribute("role") !== role || row.getAttribute("role") !== "row"
                    || head.getAttribute("role") !== "columnheader";
                });
              });
            }).map((cell) => cell.outerHTML.slice(0, 200))"""
        )
        return found

    def _list(self, selector: str, is_meant: str) -> list[str]:
        found: list[str] = self.page.evaluate(
            f"""(selector) => [...document.querySelectorAll(selector)].filter((one) => {{
              const box = one.getBoundingClientRect();
              return {is_meant};
            }}).map((one) => one.outerHTML.slice(0, 200))""",
            selector,
        )
        return found

    def close(self) -> None:
        """Close the browser's windows."""
        self.context.close()
