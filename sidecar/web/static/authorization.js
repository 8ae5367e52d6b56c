// The page of an authorization: shows another state as soon as there is one.
"use strict";

const shown = document.querySelector("main").dataset;
const PERIOD_MS = 2000;

async function look() {
  try {
    const answer = await fetch(shown.stateUrl, { cache: "no-store" });
    if (answer.ok) {
      const now = await answer.json();
      if (now.state !== shown.state || (now.reason || "") !== shown.reason) {
        location.reload();
        return;
      }
    } else if (answer.status === 404) {
      location.reload();
      return;
    }
  } catch {
    // Not reachable now: it may be again in a moment.
  }
  setTimeout(look, PERIOD_MS);
}

setTimeout(look, PERIOD_MS);
