"""Badges: what they say of a project, and in which colour. How that looks is in wire/badges.py."""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.domain.projects import DAYS

KINDS = ("status", "last", "success-rate")
GREEN, RED, AMBER, BLUE, GREY = "green", "red", "amber", "blue", "grey"
GOOD_PERCENT, FAIR_PERCENT = 95, 80
NAME_CHARACTERS = 24

_COLOURS = {
    "success": GREEN,
    "failed": RED,
    "timed_out": RED,
    "running": BLUE,
    "queued": BLUE,
    "waiting": AMBER,
}


@dataclass(frozen=True, slots=True)
class Newest:
    """A project's newest deployment: `status` as it is shown, `at` when we last heard of it."""

    deployment_id: str
    status: str
    stale: bool
    at: str


@dataclass(frozen=True, slots=True)
class Badge:
    """`label` says what it covers, `title` all of it in one sentence."""

    label: str
    message: str
    colour: str
    title: str


def status_badge(project: str, newest: Newest | None) -> Badge:
    """How its newest deployment stands now."""
    word = "none" if newest is None else _word(newest)
    what = "no deployments" if newest is None else f"deployment {newest.deployment_id} is {word}"
    return Badge("deploy", word, _colour(newest), f"{project}: {what}")


def last_badge(project: str, newest: Newest | None) -> Badge:
    """Which one was its newest, and when there was news of it."""
    if newest is None:
        return Badge("last deploy", "none", GREY, f"{project}: no deployments")
    when = f"{newest.at[:10]} {newest.at[11:16]} UTC"
    message = f"{_short(newest.deployment_id)} · {when}"
    title = f"{project}: deployment {newest.deployment_id} is {_word(newest)}, last heard of {when}"
    return Badge("last deploy", message, _colour(newest), title)


def rate_badge(project: str, succeeded: int, failed: int) -> Badge:
    """How many of its deployments went well, of those that ended well or badly."""
    label, period, ended = f"deploy, {DAYS} days", f"the last {DAYS} days", succeeded + failed
    if not ended:
        return Badge(label, "none", GREY, f"{project}: no deployment succeeded or failed in {period}")
    percent = 100 * succeeded // ended  # never 100 while one has failed
    colour = GREEN if percent >= GOOD_PERCENT else AMBER if percent >= FAIR_PERCENT else RED
    return Badge(label, f"{percent} %", colour, f"{project}: {succeeded} of {ended} deployments of {period} succeeded")


def _word(newest: Newest) -> str:
    return "stale" if newest.stale else newest.status.replace("_", " ")


def _colour(newest: Newest | None) -> str:
    return GREY if newest is None else _COLOURS.get(newest.status, GREY)


def _short(name: str) -> str:
    return name if len(name) <= NAME_CHARACTERS else f"{name[: NAME_CHARACTERS - 1]}…"
