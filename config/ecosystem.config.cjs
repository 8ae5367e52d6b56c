// pm2: `pm2 start config/ecosystem.config.cjs`, from anywhere. Settings come from the environment of that command
// (names in config/example.env); secrets belong there, not here.
//
// WEB_CONCURRENCY=4 starts four processes on this host, one a port: PORT (8091), PORT + 1 and so on. They share one
// instance folder and one database; nginx/sidecar.conf spreads browsers over them.
const { existsSync } = require("node:fs");
const { join } = require("node:path");

const root = join(__dirname, "..");
const installed = join(root, ".venv", "bin", "python");
const processes = Number(process.env.WEB_CONCURRENCY || 1);
const port = Number(process.env.SIDECAR_PORT || process.env.PORT || 8091);

module.exports = {
  apps: [
    {
      name: "sidecar",
      cwd: root,
      script: "app.py",
      interpreter: process.env.PYTHON || (existsSync(installed) ? installed : "python3"),
      exec_mode: "fork", // never "cluster": that is for node programs
      instances: processes,
      increment_var: "PORT",
      env: { PORT: port, SIDECAR_PORT: "" }, // SIDECAR_PORT would be the same for all
      autorestart: true,
      // A wrong setting or a port already taken ends the process with 2: starting it again wouldn't help.
      stop_exit_codes: [2],
      // The sidecar ends within 10 s of pm2's SIGINT: it says goodbye to browsers and finishes what it has accepted.
      kill_timeout: 12000,
    },
  ],
};
