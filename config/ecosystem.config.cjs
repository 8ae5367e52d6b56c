// pm2: `pm2 start config/ecosystem.config.cjs`, from anywhere. Settings come from the environment of that command
// (names in config/example.env); secrets belong there, not here.
//
// WEB_CONCURRENCY=4 starts four processes on this host, one a port: PORT (8091), PORT + 1 and so on. They share one
// instance folder and one database; nginx/sidecar.conf spreads browsers over them.
//
// LARK_EVENTS=default adds `lark`, which hears the long connection of your Lark app (docs/lark.md);
// LARK_EVENTS=cli_a,cli_b one for each of these apps.
const { existsSync } = require("node:fs");
const { join } = require("node:path");

const root = join(__dirname, "..");
const installed = join(root, ".venv", "bin", "python");
const processes = Number(process.env.WEB_CONCURRENCY || 1);
const port = Number(process.env.SIDECAR_PORT || process.env.PORT || 8091);

const drain = Number(process.env.SIDECAR_DRAIN_SECONDS || 2) + Number(process.env.SIDECAR_DRAIN_ANNOUNCE_SECONDS || 0);

const python = process.env.PYTHON || (existsSync(installed) ? installed : "python3");
const larkApps = (process.env.LARK_EVENTS || "").split(",").filter(Boolean);

const lark = (app) => ({
  name: app === "default" ? "lark" : `lark-${app}`,
  cwd: root,
  script: python,
  args: ["-m", "sidecar", "lark-events", ...(app === "default" ? [] : ["--app", app])],
  interpreter: "none",
  exec_mode: "fork",
  env: { SIDECAR_PORT: port },
  autorestart: true,
  // It ends with 1 when Lark could not be reached for minutes; with 2 when another try wouldn't help.
  stop_exit_codes: [2],
  kill_timeout: 12000,
});

module.exports = {
  apps: [
    {
      name: "sidecar",
      cwd: root,
      script: "app.py",
      interpreter: python,
      exec_mode: "fork", // never "cluster": that is for node programs
      instances: processes,
      increment_var: "PORT",
      env: { PORT: port, SIDECAR_PORT: "" }, // SIDECAR_PORT would be the same for all
      autorestart: true,
      // A wrong setting or a port already taken ends the process with 2: starting it again wouldn't help.
      stop_exit_codes: [2],
      // The sidecar ends within 10 s of pm2's SIGINT, if it isn't told to take its time: it says goodbye to browsers and
      // finishes what it has accepted.
      kill_timeout: 10000 + 1000 * drain,
    },
    ...larkApps.map(lark),
  ],
};
