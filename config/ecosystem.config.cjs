// pm2: `pm2 start config/ecosystem.config.cjs`, from anywhere. Settings come from the environment of that command
// (names in config/example.env); secrets belong there, not here.
//
// Several processes, one a port, share one PostgreSQL (SIDECAR_DATABASE_URL); nginx/sidecar.conf spreads browsers over
// them. Add to the app below:
//     instances: 2, increment_var: "PORT", env: { PORT: 8091 },      // 8091 and 8092
const { existsSync } = require("node:fs");
const { join } = require("node:path");

const root = join(__dirname, "..");
const installed = join(root, ".venv", "bin", "python");

module.exports = {
  apps: [
    {
      name: "sidecar",
      cwd: root,
      script: "app.py",
      interpreter: process.env.PYTHON || (existsSync(installed) ? installed : "python3"),
      exec_mode: "fork", // never "cluster": that is for node programs
      autorestart: true,
      // A wrong setting or a port already taken ends the process with 2: starting it again wouldn't help.
      stop_exit_codes: [2],
      // The sidecar ends within 10 s of pm2's SIGINT: it says goodbye to browsers and finishes what it has accepted.
      kill_timeout: 12000,
    },
  ],
};
