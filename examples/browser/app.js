'use strict';
// A page that watches deployments live. What comes from the sidecar was written by others: it is shown with
// textContent only, never as HTML.

const MAX_LOG_LINES = 2000; // more would make the page slow; the whole log is at /api/deployments/<id>/logs
const MAX_EVENTS = 2000; // kept of one deployment
const MAX_DEPLOYMENTS = 50;
const TOKEN_RETRY_MILLISECONDS = 3000;
const FINISHED = ['success', 'failed', 'cancelled', 'skipped', 'timed_out'];

const byId = (id) => document.getElementById(id);
const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));
const notice = (text) => { byId('notice').textContent = text; };

let socket = null;
let openDeployment = null;

// Every room we want to be in, with the place up to which we know it: {kind, name, since, seq, epoch}.
const rooms = new Map();

// What came of each deployment: id -> {epoch, events} in the order of seq. An event is sent once on a connection:
// what came by the project's room does not come again when its deployment is opened.
const stories = new Map();

start();

async function start() {
  const config = await (await fetch('/config.json')).json();
  byId('user').textContent = config.user ? `as ${config.user}` : 'nobody is logged in';
  byId('project').value = config.project;
  await loadScript(`${config.sidecar}${config.prefix}/static/vendor/socket.io.min.js`);
  connect(config);
  watchProject(config.project);
  byId('project-form').addEventListener('submit', (event) => {
    event.preventDefault();
    watchProject(byId('project').value);
  });
  byId('deployment-form').addEventListener('submit', (event) => {
    event.preventDefault();
    watchDeployment(byId('deployment').value);
  });
}

// The client comes from the sidecar, so that its version always fits.
function loadScript(url) {
  return new Promise((loaded) => {
    const script = document.createElement('script');
    script.src = url;
    script.onload = loaded;
    script.onerror = () => notice(`The sidecar does not answer at ${url}; reload this page when it does.`);
    document.head.append(script);
  });
}

// ---- connection ----------------------------------------------------------------------------------

function connect(config) {
  socket = io(`${config.sidecar}${config.prefix}/ws`, {
    transports: ['websocket'],
    path: '/socket.io',
    // asked before each connect, so a page that slept for hours comes back with a fresh token
    auth: (cb) => fetchToken().then((token) => cb({ token })),
  });

  socket.on('connect', () => {
    byId('connection').textContent = 'connected';
    notice('');
    rooms.forEach(subscribe);
  });
  socket.on('disconnect', (reason) => {
    byId('connection').textContent = `disconnected: ${reason}`;
    // the client comes back by itself except when the server said goodbye, as it does to an expired token
    if (reason === 'io server disconnect') pause(1000).then(() => socket.connect());
  });
  socket.on('connect_error', (error) => {
    byId('connection').textContent = socket.active ? 'connecting again' : 'refused';
    notice(`No connection: ${error.message}`);
  });

  socket.on('token_expiring', async () => {
    socket.emit('refresh_token', await fetchToken(), (answer) => {
      if (!answer.ok) notice(`The session could not be extended: ${answer.message}`);
    });
  });
  socket.on('token_expired', ({ message }) => notice(message));
  socket.on('subscription:revoked', ({ type, id }) => {
    rooms.delete(`${type}:${id}`);
    notice(`You may not watch ${type} ${id} any more.`);
  });

  socket.on('event', receive);
}

// Answers only with a token: a refused connect is final for the client, a back end that restarts is not.
async function fetchToken() {
  for (;;) {
    try {
      const answer = await fetch('/token', { method: 'POST' });
      const body = await answer.json();
      if (answer.ok) return body.token;
      notice(body.message);
    } catch {
      notice('The back end of this page does not answer.');
    }
    await pause(TOKEN_RETRY_MILLISECONDS);
  }
}

// ---- rooms ---------------------------------------------------------------------------------------

function watchProject(name) {
  want({ kind: 'project', name, seq: 0, since: null, epoch: null });
}

// since 0: the whole story of a deployment, then what is new
function watchDeployment(id) {
  if (openDeployment !== null) leave(`deployment:${openDeployment}`);
  openDeployment = id;
  byId('deployment').value = id;
  retell();
  want({ kind: 'deployment', name: id, seq: 0, since: 0, epoch: null });
}

function want(room) {
  const key = `${room.kind}:${room.name}`;
  if (rooms.has(key)) return;
  rooms.set(key, room);
  if (socket.connected) subscribe(room);
}

function leave(key) {
  const room = rooms.get(key);
  rooms.delete(key);
  if (room && socket.connected) socket.emit(`unsubscribe_${room.kind}`, room.name);
}

function subscribe(room) {
  const options = room.since === null ? {} : { since: room.since };
  socket.emit(`subscribe_${room.kind}`, room.name, options, (answer) => {
    if (!answer.ok) {
      rooms.delete(`${room.kind}:${room.name}`);
      notice(`${room.kind} ${room.name}: ${answer.message} (${answer.code})`);
      return;
    }
    if (answer.truncated) notice(`${room.kind} ${room.name}: older events are not kept any more.`);
    // Nothing of the room was asked for from before this answer, so it is the place to go on from. With a
    // since it is not: the events up to here are still to come.
    if (room.since === null) Object.assign(room, { since: answer.offset, seq: answer.seq, epoch: answer.epoch });
  });
}

// Notes how far each room of the event is known now. Seq grows within an epoch; another epoch is another journal.
function notePlace(event) {
  const { project, deployment_id: id } = event.payload;
  for (const key of [`project:${project}`, `deployment:${id}`]) {
    const room = rooms.get(key);
    if (!room || (room.epoch === event.epoch && room.seq >= event.seq)) continue;
    Object.assign(room, { since: event.offset, seq: event.seq, epoch: event.epoch });
  }
}

// ---- events --------------------------------------------------------------------------------------

function receive(event) {
  const { payload } = event;
  if (event.offset) notePlace(event); // what has none is not kept by the sidecar
  if (payload.deployment_id) {
    const id = String(payload.deployment_id);
    showDeployment(id, event);
    const place = remember(id, event);
    if (id === openDeployment && place === 'last') tell(event);
    if (id === openDeployment && place === 'between') retellSoon();
  } else if (event.type === 'test') {
    notice(`Test message for project ${payload.project}.`);
  }
}

// Where the event stands in its deployment's story: 'last', 'between', or 'known' if it came before.
function remember(id, event) {
  let story = stories.get(id);
  if (story?.epoch !== event.epoch) {
    story = { epoch: event.epoch, events: [] };
    stories.set(id, story);
    if (stories.size > MAX_DEPLOYMENTS) stories.delete(stories.keys().next().value);
  }
  const { events } = story;
  let place = events.length;
  while (place > 0 && events[place - 1].seq > event.seq) place -= 1;
  if (event.offset && events[place - 1]?.seq === event.seq) return 'known';
  events.splice(place, 0, event);
  const isLast = place === events.length - 1;
  if (events.length > MAX_EVENTS) events.shift();
  return isLast ? 'last' : 'between';
}

// A replay brings many older events at once: they are told together.
let retelling = null;

function retellSoon() {
  retelling ??= setTimeout(retell);
}

function retell() {
  clearTimeout(retelling);
  retelling = null;
  byId('steps').replaceChildren();
  byId('log').replaceChildren();
  byId('metrics').textContent = '';
  stories.get(openDeployment)?.events.forEach(tell);
}

// Shows what an event says about the open deployment.
function tell({ type, payload }) {
  switch (type) {
    case 'step_started':
    case 'step_completed':
    case 'step_manual':
      showStep(payload);
      break;
    case 'log_entry':
      showLines([payload]);
      break;
    case 'log_batch':
      showLines(payload.logs);
      break;
    case 'metrics_update':
      showMetrics(payload.metrics);
      break;
    case 'deployment_started':
    case 'deployment_completed':
    case 'test':
      break; // its row says it all
    default: // a newer sidecar may know more types than this page
      console.info('event of unknown type', type);
  }
}

// The row of a table's body that has this key, made when there is none.
function row(body, key, columns) {
  const known = [...body.rows].find((candidate) => candidate.dataset.key === key);
  if (known) return known;
  const made = body.insertRow();
  made.dataset.key = key;
  for (let column = 0; column < columns; column += 1) made.insertCell();
  return made;
}

function showStatus(cell, status) {
  cell.textContent = status;
  cell.dataset.status = status;
}

// Anything that is said of a deployment tells that it runs, unless it has ended: deliveries may overtake each other.
function showDeployment(id, { type, payload, timestamp }) {
  const [idCell, project, status, changed] = row(byId('deployments'), id, 4).cells;
  if (!idCell.firstChild) {
    const button = document.createElement('button');
    button.textContent = id;
    button.addEventListener('click', () => watchDeployment(id));
    idCell.append(button);
  }
  project.textContent = payload.project;
  changed.textContent = new Date(timestamp).toLocaleTimeString();
  if (FINISHED.includes(status.dataset.status)) return;
  showStatus(status, type.startsWith('deployment_') ? payload.status : 'running');
}

function showStep(payload) {
  const [name, status, seconds, note] = row(byId('steps'), payload.step_name, 4).cells;
  name.textContent = payload.step_name;
  if (FINISHED.includes(status.dataset.status) && !FINISHED.includes(payload.status)) return;
  showStatus(status, payload.status);
  seconds.textContent = payload.duration ?? '';
  note.textContent = payload.logs ?? '';
}

function showLines(lines) {
  const log = byId('log');
  const following = log.scrollTop + log.clientHeight >= log.scrollHeight - 4;
  for (const line of lines) {
    const shown = document.createElement('div');
    shown.textContent = line.message;
    shown.dataset.level = line.level ?? 'info';
    log.append(shown);
  }
  while (log.childElementCount > MAX_LOG_LINES) log.firstElementChild.remove();
  if (following) log.scrollTop = log.scrollHeight;
}

function showMetrics(metrics) {
  const figures = Object.entries(metrics).map(([name, value]) => `${name}: ${value}`);
  byId('metrics').textContent = figures.join(', ');
}
