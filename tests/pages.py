"""What tests of pages do in a browser: log in, look, fill in, press."""

from __future__ import annotations

import json
import re

from tests.chromium import Browser
from tests.servers import RunningSidecar

PHONE = (390, 844)
DESKTOP = (1280, 900)


def log_in(browser: Browser, server: RunningSidecar) -> None:
    link = re.search(r"log in once: (\S+)", server.output())
    assert link
    browser.open(link[1])
    browser.evaluate("document.querySelector('button').click()")
    browser.wait_for("document.getElementById('link')?.textContent === 'live'")


def text(browser: Browser, selector: str) -> str:
    found: str = browser.evaluate(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''")
    return found


def shows(browser: Browser, selector: str, words: str) -> None:
    browser.wait_for(f"(document.querySelector({json.dumps(selector)})?.innerText ?? '').includes({json.dumps(words)})")


def fill(browser: Browser, selector: str, value: str) -> None:
    """Into a field, or choose it in a list."""
    browser.evaluate(
        f"(field => {{ field.value = {json.dumps(value)}; "
        f"field.dispatchEvent(new Event('change', {{ bubbles: true }})) }})"
        f"(document.querySelector({json.dumps(selector)})); null"
    )


def press(browser: Browser, selector: str) -> None:
    """A button, once it can be pressed."""
    button = f"document.querySelector({json.dumps(selector)})"
    browser.wait_for(f"{button} && !{button}.matches(':disabled')")
    browser.evaluate(f"{button}.click()")


def nameless(browser: Browser) -> list[str]:
    """Fields and buttons that a screen reader can't name (a placeholder is no name), ids that are there twice, and what
    points to none."""
    found: list[str] = browser.evaluate(
        """(() => {
          const all = (selector) => [...document.querySelectorAll(selector)];
          const ids = all("[id]").map(node => node.id);
          return [
            ...all("input, select, textarea").filter(field => !field.labels.length).map(node => node.outerHTML),
            ...all("button").filter(button => !button.textContent.trim()).map(node => node.outerHTML),
            ...ids.filter((id, place) => ids.indexOf(id) !== place),
            ...["aria-describedby", "aria-labelledby"].flatMap(name => all(`[${name}]`).map(n => n.getAttribute(name)))
              .filter(id => !ids.includes(id)),
          ];
        })()"""
    )
    return found


def needs_no_sideways_scrolling(browser: Browser) -> bool:
    fits: bool = browser.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    return fits
