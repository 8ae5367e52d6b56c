/**
 * The sidecar in a page: a menu and permissions that stay in sync, projects and deployments followed live.
 *
 *     import { Sidecar } from "/project-dashboard/static/sidecar.js";
 *     const sidecar = new Sidecar({ url: "/project-dashboard", token: () => fetchToken(), user: "ada" });
 *     const menu = sidecar.menu();
 *     menu.subscribe(({ items, stale }) => render(items, stale));
 *     await menu.start();
 *
 * An ES module without build step or dependency. Live news need socket.io-client 4.8 or later (the global `io` or the
 * option); without it menu and permissions are polled. Times are milliseconds. Nothing here is global: each Sidecar has
 * its own connections, and close() leaves no timer, listener or request. Reference: docs/browser.md.
 *
 * @typedef {{key: string, name: string, menu_level: string, icon: string, url: string, sort_order: number,
 *   is_active: boolean, description: string, parent: ?string, children: MenuItem[]}} MenuItem
 * @typedef {{resource: string, action: string, effect: "allow"|"deny"}} Grant
 * @typedef {{items: MenuItem[], roles: string[]}} Menu
 * @typedef {{grants: Grant[], permissions: string[], roles: string[], menus: string[]}} Permissions
 * @typedef {{user: ?string, version: ?number, checksum: ?string, source: ?("server"|"copy"), stale: boolean,
 *   error: ?SidecarError}} Standing  `stale`: the server has not confirmed it, or can't be asked; `error` says why
 * @typedef {{type: string, payload: Object, timestamp: string, seq: number, epoch: string, offset: string}} LiveEvent
 * @typedef {{state: "connecting"|"live"|"away"|"refused"|"stopped", code: ?string, message: ?string}} LineState
 *   `away` comes back by itself; `refused` doesn't, or only with other rights
 */

const TOKEN_SPARE = 10_000; // a token that ends sooner is not used any more
const FINAL = new Set(["unauthenticated", "token_expired"]); // for who has only this one token
const PASSING = new Set(["unavailable", "error", "no_answer"]);
const DOUBTS = 4; // times that the server is asked after a connection was lost and doesn't come back
const LIST = "limit=50"; // a project's snapshot, as long as the one that the server sends

/** What went wrong. `code` is the server's (docs/protocol.md, section 10), or `unreachable`, `bad_answer`, `no_token`,
 * `no_answer`, `lagging`; `status` that of HTTP, 0 without an answer; `retryAfter` the least to wait. */
export class SidecarError extends Error {
  constructor(code, message, status = 0, retryAfter = 0) {
    super(message);
    Object.assign(this, { name: "SidecarError", code, status, retryAfter });
  }
}

/** One server, one user. Make another for another user, and close() this one. */
export class Sidecar {
  /**
   * @param {Object} [options]
   * @param {string} [options.url] the server with its prefix, absolute or relative to the page
   * @param {?string|function(): (?string|Promise<?string>)} [options.token] a function is asked again before its token
   *   ends and when the server refuses it; null: by cookie, or as nobody
   * @param {?string} [options.user] the token's `sub`, if the page knows it: copies are shown before a token is there
   * @param {?function} [options.io] socket.io-client
   * @param {number} [options.spread] an answer to news is asked for within this time, at random, so that not all
   *   browsers ask at once
   * @param {{first: number, most: number}} [options.retry] the waits after failures: doubled from first to most
   * @param {number} [options.timeout] for one request
   * @param {string} [options.path] the path of Socket.IO
   * @param {Object} [options.socket] more options of socket.io-client
   * @param {RequestCredentials} [options.credentials] as for fetch; `include` for the cookie of another origin
   * @param {function} [options.fetch] @param {function(): number} [options.random] in place of the browser's own
   */
  constructor(options = {}) {
    const { url = "/project-dashboard", token = null, user = null, io = globalThis.io ?? null } = options;
    const address = new URL(url, globalThis.location?.href);
    const prefix = address.pathname.replace(/\/+$/, "");
    this.base = address.origin + prefix;
    this.spread = options.spread ?? 200;
    this.retry = { first: 1_000, most: 60_000, ...options.retry };
    this.timeout = options.timeout ?? 15_000;
    this.credentials = options.credentials ?? "same-origin";
    this.fetch = options.fetch ?? ((...request) => globalThis.fetch(...request));
    this.random = options.random ?? Math.random;
    this._tokens = new Tokens(token, user, this.timeout);
    this._io = io;
    const path = options.path ?? (prefix ? `${prefix}/ws/` : "/socket.io/");
    this._socketAt = [address.origin, { path, ...options.socket }];
    this._line = io === null ? null : new Line(this); // of menu and permissions; a room has its own
    this._parts = new Set(); // what was started
  }

  /** The menu that this user may see, to be started. `storage`: where its last copy is kept (null: nowhere), under
   * names that begin with `key`; `every`: how often the version is asked for.
   * @returns {Synced} whose subscribers get Menu & Standing */
  menu({ storage, key, every } = {}) {
    return new Synced(this, MENU, storage, key, every);
  }

  /** This user's permissions, to be started; options as for the menu. They are for showing and hiding: the server
   * decides. @returns {Synced} whose subscribers get Permissions & Standing, and that has `can` */
  permissions({ storage, key, every } = {}) {
    return new Synced(this, PERMISSIONS, storage, key, every);
  }

  /** A project's newest 50 deployments (`{project, deployments}`), then its events: started at once.
   * @param {string} name @param {RoomHandlers} handlers @returns {Room} */
  project(name, handlers) {
    return new Room(this, "project", name, handlers).start();
  }

  /** A deployment as GET /api/deployments/<id> shows it (null: not seen yet), then its events: started at once.
   * @param {string|number} id @param {RoomHandlers} handlers @returns {Room} */
  deployment(id, handlers) {
    return new Room(this, "deployment", id, handlers).start();
  }

  /** Stop all that was started. */
  close() {
    for (const part of [...this._parts]) part.stop();
  }

  /** Forget the token and ask for a new one when it is needed next. */
  renew() {
    this._tokens.drop();
  }

  /** @returns {number} a wait that grows with the attempts, half of it random */
  _backoff(attempt, error) {
    const most = Math.min(this.retry.most, this.retry.first * 2 ** attempt);
    return Math.max(error?.retryAfter ?? 0, most * (0.5 + this.random() / 2));
  }

  /** GET as JSON. Raises SidecarError.
   * @returns {Promise<{unchanged: boolean, body: ?Object, etag: ?string, user: ?string}>} */
  async _get(path, signal, etag = null, again = true) {
    const token = await this._tokens.get();
    const headers = { Accept: "application/json" };
    if (token) headers.Authorization = `Bearer ${token}`;
    if (etag) headers["If-None-Match"] = etag;
    const abort = new AbortController();
    const cancel = () => abort.abort();
    const timer = setTimeout(cancel, this.timeout);
    signal?.addEventListener("abort", cancel);
    let answer, body;
    try {
      const { credentials } = this;
      answer = await this.fetch(this.base + path, { headers, credentials, cache: "no-store", signal: abort.signal });
      const text = await answer.text();
      body = readJson(text);
    } catch (error) {
      throw new SidecarError("unreachable", `The server can't be reached: ${error.message}`);
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", cancel);
    }
    const user = this._tokens.userOf(token);
    if (answer.status === 304 && etag) return { unchanged: true, body: null, etag, user };
    if (answer.status === 401 && again && this._tokens.renewable) {
      this._tokens.drop(token);
      return this._get(path, signal, etag, false);
    }
    if (!answer.ok) {
      const after = Number(answer.headers.get("Retry-After")) * 1_000 || 0;
      const message = body?.detail ?? body?.message ?? `The server answered ${answer.status}.`;
      throw new SidecarError(body?.code ?? "error", message, answer.status, after);
    }
    if (body === null) throw new SidecarError("bad_answer", "The server's answer is not JSON.", answer.status);
    return { unchanged: false, body, etag: answer.headers.get("ETag"), user };
  }
}

/** The page's token: asked for when it is needed, by one request at a time, kept until shortly before its end. */
class Tokens {
  constructor(source, user, timeout) {
    Object.assign(this, { source, user, timeout, held: null, asked: null, renewable: typeof source === "function" });
  }

  /** Raises SidecarError `no_token`. @returns {Promise<?string>} */
  async get() {
    if (!this.renewable) return this.source || null;
    if (this.held !== null && Date.now() < endOf(this.held) - TOKEN_SPARE) return this.held;
    this.asked ??= this._ask().finally(() => (this.asked = null));
    return this.asked;
  }

  async _ask() {
    let timer;
    const late = new Promise((_, fail) => (timer = setTimeout(() => fail(new Error("no answer")), this.timeout)));
    try {
      const token = await Promise.race([this.source(), late]);
      if (!token && (token === undefined || this.user !== null)) throw new Error("the function gave none");
      this.held = token || null;
      return this.held;
    } catch (error) {
      throw new SidecarError("no_token", `There is no token: ${error?.message ?? error}`);
    } finally {
      clearTimeout(timer);
    }
  }

  /** Forget it, if it is still this one. */
  drop(token = this.held) {
    if (this.held === token) this.held = null;
  }

  /** Who a token is for: its `sub`, else whom the page has named, else the API token's own id; null for nobody. */
  userOf(token) {
    return claimsOf(token).sub ?? this.user ?? (/^sct_[^_]+/.exec(token ?? "")?.[0] || null);
  }

  /** As far as it is known without asking; undefined if it isn't. */
  get knownUser() {
    if (this.user === null && this.renewable && this.held === null) return undefined;
    return this.userOf(this.renewable ? this.held : this.source);
  }
}

/** What has timers and listeners, and can be rid of them. */
class Part {
  constructor(sidecar) {
    this.sidecar = sidecar;
    this._timers = new Map();
    this._undo = [];
  }

  _after(wait, action) {
    const timer = setTimeout(() => {
      this._timers.delete(timer);
      action();
    }, wait);
    this._timers.set(timer, action);
    return timer;
  }

  _pause(wait) {
    return new Promise((resolve) => this._after(wait, resolve)); // never, if it is released before
  }

  _cancel(timer) {
    clearTimeout(timer);
    this._timers.delete(timer);
  }

  _listen(target, name, action) {
    target?.addEventListener?.(name, action);
    this._undo.push(() => target?.removeEventListener?.(name, action));
  }

  _release() {
    for (const timer of this._timers.keys()) clearTimeout(timer);
    this._timers.clear();
    for (const undo of this._undo.splice(0)) undo();
  }
}

/** One Socket.IO connection of one or more members, which are told `connected(recovered)`, `event`, `snapshot`,
 * `revoked` and `lineState`. It comes back by itself, with a new token where that is what it takes. */
class Line extends Part {
  constructor(sidecar) {
    super(sidecar);
    Object.assign(this, { members: new Set(), socket: null, life: null, attempt: 0, waiting: null, end: null });
    this.token = null; // that the connection rests on
  }

  get connected() {
    return this.socket?.connected ?? false;
  }

  join(member) {
    this.members.add(member);
    if (this.socket === null) this._open();
    else if (this.connected) member.connected(false);
  }

  leave(member) {
    this.members.delete(member);
    if (this.members.size > 0 || this.socket === null) return;
    this._release();
    this.life = this.waiting = null;
    this.socket.off();
    this.socket.disconnect();
    this.socket = null;
  }

  /** Come back as another user. */
  restart() {
    this.socket?.disconnect().connect();
  }

  /** Emit with an acknowledgement, again as long as the refusal is a passing one and the connection lasts.
   * Raises SidecarError. */
  async ask(name, ...given) {
    for (let attempt = 0, { life } = this; ; attempt += 1) {
      try {
        return await new Promise((resolve, reject) =>
          this.socket.timeout(this.sidecar.timeout).emit(name, ...given, (failure, answer) => {
            if (answer?.ok) resolve(answer);
            else if (failure) reject(new SidecarError("no_answer", failure.message));
            else reject(new SidecarError(answer?.code ?? "error", answer?.message ?? "The server refused."));
          }),
        );
      } catch (error) {
        if (!PASSING.has(error.code) || !this.connected || this.life !== life) throw error;
        await this._pause(this.sidecar._backoff(attempt));
        if (!this.connected || this.life !== life) throw error;
      }
    }
  }

  _open() {
    const tokens = this.sidecar._tokens;
    const [origin, options] = this.sidecar._socketAt;
    const auth = async (give) => {
      const { engine } = this.socket.io;
      try {
        const token = await tokens.get();
        if (this.socket?.io.engine !== engine || engine.readyState !== "open") return;
        this.token = token;
        give(token ? { token } : {});
      } catch (error) {
        if (this.socket?.io.engine === engine) this._lost(error);
      }
    };
    const transports = ["websocket", "polling"];
    const socket = this.sidecar._io(origin, {
      transports, tryAllTransports: true, ...options, forceNew: true, autoConnect: false, auth,
    });
    this.socket = socket;
    this.end = null;
    this._listen(globalThis, "online", () => this.waiting?.());
    this._tell("lineState", "connecting", null);
    socket.on("connect", () => {
      Object.assign(this, { attempt: 0, end: null, life: {} });
      this._tell("connected", socket.recovered);
    });
    socket.on("event", (event) => this._tell("event", event));
    socket.on("snapshot", (snapshot) => this._tell("snapshot", snapshot));
    socket.on("subscription:revoked", (room) => this._tell("revoked", room));
    socket.on("token_expiring", () => this._renew().catch(() => {})); // token_expired will follow
    for (const name of ["token_expired", "disconnected"]) {
      socket.on(name, ({ message }) => (this.end = new SidecarError(name, message)));
    }
    socket.on("connect_error", (error) => {
      const why = new SidecarError(error.data?.code ?? "unreachable", error.message);
      if (socket.active) this._tell("lineState", "away", why);
      else this._lost(why);
    });
    socket.on("disconnect", (reason) => {
      if (reason === "io server disconnect") this._lost(this.end ?? new SidecarError("closed", "The server closed."));
      else this._tell("lineState", "away", new SidecarError("closed", reason));
    });
    socket.connect();
  }

  async _renew() {
    const tokens = this.sidecar._tokens;
    if (!tokens.renewable) return;
    tokens.drop(this.token); // another line may have a new one already
    const token = await tokens.get();
    if (!token || !this.connected) return;
    await this.ask("refresh_token", token);
    this.token = token;
  }

  /** socket.io-client does not try again: we do, unless there is nothing to try. */
  _lost(why) {
    const tokens = this.sidecar._tokens;
    if (FINAL.has(why.code)) tokens.drop(this.token);
    const final = why.code === "disconnected" || (FINAL.has(why.code) && !tokens.renewable);
    this.socket.disconnect();
    this._tell("lineState", final ? "refused" : "away", why);
    if (final || this.waiting !== null || this.socket === null) return;
    const timer = this._after(this.sidecar._backoff(this.attempt), () => this.waiting());
    this.waiting = () => {
      this._cancel(timer);
      this.waiting = null;
      this.socket?.connect();
    };
    this.attempt += 1;
  }

  _tell(name, ...given) {
    for (const member of [...this.members]) member[name]?.(...given);
  }
}

const MENU = {
  path: "/api/menu", version: "/api/menu/version", list: "items", shown: ["items", "roles"], room: "menu",
  types: new Set(["menu_updated", "menu_access_changed", "permission_changed", "role_updated", "cache_invalidation"]),
};
const PERMISSIONS = {
  path: "/api/permissions", version: "/api/permissions/version", list: "grants",
  shown: ["grants", "permissions", "roles", "menus"],
  types: new Set(["permission_changed", "role_updated", "menu_access_changed", "cache_invalidation"]),
};

/** One answer of the server, kept in sync: the last copy at once, what changed as soon as it changes, the copy while
 * the server can't be reached. A newer answer is never replaced by an older one of the same epoch. */
class Synced extends Part {
  constructor(sidecar, what, storage = browserStorage(), key = "sidecar", every = 300_000) {
    super(sidecar);
    Object.assign(this, { what, storage, key, every, listeners: new Set(), running: null, busy: null, told: false });
    this._empty(undefined);
  }

  /** Be called with what is held, now if there is something to tell and at each change. What is given is shared: don't
   * change it. @param {function((Menu|Permissions) & Standing): void} listener @returns {function} ends it */
  subscribe(listener) {
    this.listeners.add(listener);
    if (this.told) guarded(listener, this.current);
    return () => this.listeners.delete(listener);
  }

  /** What subscribers were told last. @returns {(Menu|Permissions) & Standing} */
  get current() {
    const { held, who, source, stale, error } = this;
    const shown = Object.fromEntries(this.what.shown.map((name) => [name, held?.[name] ?? []]));
    const { version = null, checksum = null } = held ?? {};
    return { ...shown, version, checksum, user: who ?? null, source, stale, error };
  }

  /** Show the copy, ask the server, stay in sync. Never rejects. @returns {Promise<void>} once it was asked */
  start() {
    if (this.running !== null) return this.busy ?? Promise.resolve();
    this.running = new AbortController();
    this.sidecar._parts.add(this);
    Object.assign(this, { attempt: 0, soon: null, retry: null, again: false, wanted: null, next: null, doubts: 0 });
    Object.assign(this, { subscription: null, sureOf: null });
    const user = this.sidecar._tokens.knownUser;
    if (user !== undefined) this._become(user);
    this._listen(globalThis, "storage", (event) => this._stored(event));
    this._listen(globalThis, "online", () => this._ask());
    const page = globalThis.document;
    this._listen(page, "visibilitychange", () => page.visibilityState === "visible" && this.check());
    this._tick();
    const asked = this.check();
    this.sidecar._line?.join(this);
    return asked;
  }

  /** Ask the server now whether there is something newer. Never rejects. @returns {Promise<void>} */
  check() {
    const { running } = this;
    if (running === null) return Promise.resolve();
    if (this.busy === null) return this._run(false);
    // What is on its way may have been asked with the former token, or before what the caller knows of.
    this.next ??= this.busy.then(() => {
      this.next = null;
      return this.running === running ? this._run(false) : undefined;
    });
    return this.next;
  }

  /** Leave no timer, listener or request. What is held stays, and so does the copy. */
  stop() {
    if (this.running === null) return;
    this.running.abort();
    this.running = this.busy = this.next = null;
    this.sidecar._parts.delete(this);
    this._release();
    const line = this.sidecar._line;
    if (line?.connected && this.what.room) line.socket.emit(`unsubscribe_${this.what.room}`);
    line?.leave(this);
  }

  /** At the user's logout: stop, and forget what is held, its copy and the token. Other tabs forget it too. */
  forget() {
    this.stop();
    this.sidecar.renew();
    attempt(() => this.storage?.removeItem(this._place));
    this._empty(undefined);
    this._tell();
  }

  /** Permissions only: may the user do this, as far as is known? Denied unless a grant allows it and none denies it.
   * @param {string} resource @param {string} action */
  can(resource, action) {
    const meant = (this.held?.grants ?? []).filter((g) => matches(g.resource, resource) && matches(g.action, action));
    return meant.length > 0 && meant.every((grant) => grant.effect !== "deny");
  }

  // The line's member

  async connected(recovered) {
    if (recovered && this.subscription !== null) return; // what was missed comes by itself
    this.subscription = null;
    const { running, held } = this;
    try {
      const since = held && { since: held.offset, epoch: held.epoch };
      if (this.what.room) await this.sidecar._line.ask(`subscribe_${this.what.room}`, ...(since ? [since] : []));
    } catch {
      return; // it is polled, until the next connection
    }
    if (this.running !== running) return;
    this.subscription = {};
    this.doubts = 0;
    this._ask(); // what happened before is in no room's past: changed rights
  }

  event({ type, payload, seq, epoch }) {
    if (!this.what.types.has(type)) return;
    const { held, wanted } = this;
    const version = type === "menu_updated" ? payload?.version : 0;
    if (held?.epoch === epoch && (seq <= held.seq || (type === "menu_updated" && version <= held.version))) return;
    if (wanted?.epoch === epoch && seq <= wanted.seq) return; // a repetition
    this.wanted = { epoch, seq, version: Math.max(version, wanted?.epoch === epoch ? wanted.version : 0) };
    this._ask();
  }

  /** Is the server still there? One that ends may answer once more, so who can't come back asks again. */
  lineState(_, error) {
    if (error?.code === "closed" && this.subscription !== null) this.doubts = DOUBTS;
    else if (error?.code !== "unreachable" || this.doubts === 0) return;
    this.doubts -= 1;
    this._ask();
  }

  // Asking: one request at a time

  /** Ask for the whole soon, at a random moment. What comes meanwhile is answered by the same request. */
  _ask() {
    if (this.running === null) return;
    if (this.busy !== null) this.again = true;
    else this.soon ??= this._after(this.sidecar.random() * this.sidecar.spread, () => this._run(true));
  }

  _tick() {
    this._after(this.every * (0.9 + this.sidecar.random() / 5), () => {
      this.check();
      this._tick();
    });
  }

  _run(whole) {
    if (this.busy !== null) return this.busy;
    for (const timer of ["soon", "retry"]) {
      if (this[timer] !== null) {
        this._cancel(this[timer]);
        whole = true;
      }
      this[timer] = null;
    }
    const { running } = this;
    const done = this._round(whole, running).then(() => {
      if (this.running !== running) return;
      this.busy = null;
      if (this.again) this._ask();
      this.again = false;
    });
    this.busy = done;
    return done;
  }

  async _round(whole, running) {
    try {
      await this._sync(whole, running);
      this.attempt = 0;
    } catch (error) {
      if (this.running !== running) return;
      if (!(error instanceof SidecarError)) guarded(() => { throw error; });
      if (error.code !== "lagging") this._stand(this.source, true, error);
      this.retry = this._after(this.sidecar._backoff(this.attempt, error), () => this._run(true));
      this.attempt += 1;
    }
  }

  async _sync(whole, running) {
    const { sidecar, what } = this;
    const get = async (path, etag) => {
      const answer = await sidecar._get(path, running.signal, etag);
      if (this.running !== running) throw new SidecarError("stopped", "It was stopped.");
      if (answer.user !== this.who) throw new SidecarError("user_changed", "Another user has come."); // asked once more
      return answer;
    };
    const user = sidecar._tokens.userOf(await sidecar._tokens.get());
    if (this.running !== running) return;
    this._become(user);
    if (!whole && this.held !== null) {
      const answer = await get(what.version, this.known?.etag);
      if (!answer.unchanged) this.known = { etag: answer.etag, ...pick(answer.body, "version", "checksum") };
      const { version, checksum } = this.held.seen ?? this.held;
      // Rights may have changed without a new version: only who was told live all the time is sure that they have not.
      const sure = this.sureOf !== null && this.sureOf === this.subscription && sidecar._line.connected;
      if (sure && this.known.version === version && this.known.checksum === checksum) {
        return this._stand("server", false, null);
      }
    }
    const { subscription, wanted } = this;
    // After news the whole is asked for: a 304 of a process that lags would not say how far it is.
    const answer = await get(what.path, wanted === null ? this.held && this.etag : null);
    if (!answer.unchanged) this._accept(answer.body, answer.etag);
    const { held } = this;
    if (wanted?.epoch === held.epoch && (wanted.version > held.version || wanted.seq > held.seq)) {
      throw new SidecarError("lagging", "This process does not know the last news yet.");
    }
    if (this.wanted === wanted) this.wanted = null;
    this.sureOf = subscription;
    if (this.known?.version === held.version) held.seen = pick(this.known, "version", "checksum");
    this._save();
    this._stand("server", false, null);
  }

  // What is held

  _accept(body, etag) {
    if (!isAnswer(body, this.what)) throw new SidecarError("bad_answer", "The server's answer has another shape.", 200);
    if (this.held !== null && !newer(body, this.held)) {
      throw new SidecarError("lagging", "This answer is older than what is known.");
    }
    this.told &&= this.source === "server" && sameText(body, this.held);
    Object.assign(this, { held: body, etag });
  }

  _empty(who) {
    Object.assign(this, { who, held: null, etag: null, known: null, source: null, stale: true, error: null });
  }

  /** Hold what is this user's: never another's. */
  _become(user) {
    if (this.who === user) return;
    const shown = this.held !== null;
    if (this.who !== undefined) this.sidecar._line?.restart();
    this._empty(user);
    const copy = this._load(attempt(() => this.storage?.getItem(this._place)));
    if (copy) Object.assign(this, { held: copy.body, etag: copy.etag, source: "copy" });
    if (copy || shown) this._tell();
  }

  get _place() {
    return `${this.key}:${this.what.path}:${this.sidecar.base}:${encodeURIComponent(this.who)}`;
  }

  /** @returns {?{body: Object, etag: ?string}} null for garbage, and for what is another's */
  _load(text) {
    if (typeof this.who !== "string" || !text) return null;
    const copy = readJson(text);
    return copy?.user === this.who && isAnswer(copy.body, this.what) ? copy : null;
  }

  /** Unless another tab has stored something newer. Without a user nothing is kept: nobody could tell whose it was. */
  _save() {
    if (typeof this.who !== "string") return;
    attempt(() => {
      const { held: body, etag, who: user } = this;
      const text = JSON.stringify({ user, etag, body });
      const stored = this.storage?.getItem(this._place);
      const copy = this._load(stored);
      if (stored !== text && !(copy?.body.epoch === body.epoch && !newer(body, copy.body))) {
        this.storage?.setItem(this._place, text);
      }
    });
  }

  /** Another tab has stored something, or forgotten it. */
  _stored({ storageArea, key, newValue }) {
    if (storageArea !== this.storage || typeof this.who !== "string") return;
    if (key === null || (key === this._place && newValue === null)) {
      this._empty(this.who);
      this._tell();
      this.sidecar.renew();
      this._ask();
    } else if (key === this._place) {
      const copy = this._load(newValue);
      if (copy === null || (this.held?.epoch === copy.body.epoch && !newer(copy.body, this.held))) return;
      if (this.held !== null && this.held.epoch !== copy.body.epoch) return void this._ask(); // the server knows which
      const same = sameText(copy.body, this.held);
      this.told &&= same;
      Object.assign(this, { held: copy.body, etag: copy.etag });
      this._stand(same ? this.source : "copy", false, null);
    }
  }

  _stand(source, stale, error) {
    if (this.told && this.source === source && this.stale === stale && this.error?.code === error?.code) return;
    Object.assign(this, { source, stale, error });
    this._tell();
  }

  _tell() {
    this.told = true;
    const { current } = this;
    for (const listener of [...this.listeners]) guarded(listener, current);
  }
}

/**
 * A project or a deployment, followed: a snapshot, then each event after it once and in order, over reconnects and
 * restarts; when some can't be had any more, a new snapshot. It has a connection of its own: on one that is in several
 * rooms an event comes once, by whichever replays it first, and so out of order for the others.
 *
 * @typedef {Object} RoomHandlers
 * @property {function(?Object, {seq: number, epoch: ?string, reason: "start"|"truncated"}): void} [onSnapshot] replaces
 *   all that was known
 * @property {function(LiveEvent): void} [onEvent]
 * @property {function(LineState): void} [onState]
 */
class Room extends Part {
  constructor(sidecar, kind, name, { onSnapshot, onEvent, onState } = {}) {
    super(sidecar);
    if (sidecar._io === null) throw new TypeError("A room needs socket.io-client: the global io, or the option.");
    Object.assign(this, { kind, name: String(name).trim(), onSnapshot, onEvent, onState, running: null, last: null });
    this.line = new Line(sidecar);
    this.state = { state: "stopped", code: null, message: null };
  }

  /** Again, after stop(): with a new snapshot. @returns {Room} itself */
  start() {
    if (this.running !== null) return this;
    this.running = new AbortController();
    this.sidecar._parts.add(this);
    this.subscribed = false;
    this._listen(globalThis, "online", () => this.waiting?.());
    this._begin(this.running);
    return this;
  }

  stop() {
    if (this.running === null) return;
    this.running.abort();
    this.running = null;
    this.sidecar._parts.delete(this);
    this._release();
    this.line.leave(this);
    this.lineState("stopped", null);
  }

  async _begin(running) {
    this.lineState("connecting", null);
    for (let attempt = 0; ; attempt += 1) {
      try {
        const found = await this._read(running.signal);
        if (this.running !== running) return;
        this._replace(found.snapshot, found, "start");
        return void this.line.join(this);
      } catch (error) {
        if (this.running !== running) return;
        this.lineState("away", error);
        await new Promise((resolve) => {
          const timer = this._after(this.sidecar._backoff(attempt, error), resolve);
          this.waiting = () => (this._cancel(timer), resolve());
        });
        this.waiting = null;
      }
    }
  }

  async _read(signal) {
    const name = encodeURIComponent(this.name);
    if (this.kind === "project") {
      const { body } = await this.sidecar._get(`/api/deployments?project=${name}&${LIST}`, signal);
      return { ...body, snapshot: { project: this.name, deployments: body.items } };
    }
    try {
      const { body } = await this.sidecar._get(`/api/deployments/${name}`, signal);
      const { seq, epoch, offset, ...snapshot } = body;
      return { seq, epoch, offset, snapshot };
    } catch (error) {
      if (error.status !== 404) throw error;
      return { seq: 0, epoch: null, offset: 0, snapshot: null }; // not seen yet: all of its events are still to come
    }
  }

  _replace(snapshot, { seq, epoch, offset }, reason) {
    this.last = { seq, epoch, offset };
    guarded(this.onSnapshot, snapshot, { seq, epoch, reason });
  }

  // The line's member

  async connected(recovered) {
    if (recovered && this.subscribed) return this.lineState("live", null); // what was missed comes by itself
    const { running, line } = this;
    const { life } = line;
    this.subscribed = false;
    const { offset: since, epoch } = this.last;
    try {
      await line.ask(`subscribe_${this.kind}`, this.name, epoch === null ? { since } : { since, epoch });
      if (this.running !== running || line.life !== life) return;
      this.subscribed = true;
      this.lineState("live", null);
    } catch (error) {
      if (this.running === running && line.life === life && line.connected) this.lineState("refused", error);
    }
  }

  snapshot({ type, snapshot, seq, offset, epoch }) {
    if (type === this.kind) this._replace(snapshot, { seq, epoch, offset }, "truncated");
  }

  event(event) {
    const { type, payload, seq, epoch, offset } = event;
    if (ELSEWHERE.has(type) || typeof seq !== "number") return;
    if ((this.kind === "project" ? payload?.project : payload?.deployment_id) !== this.name) return;
    if (this.last.epoch !== null && (epoch !== this.last.epoch || seq <= this.last.seq)) return;
    this.last = { seq, epoch, offset };
    guarded(this.onEvent, event);
  }

  revoked({ type, code }) {
    if (type !== this.kind) return;
    this.subscribed = false;
    this.lineState("refused", new SidecarError(code, "The right to this room has ended."));
  }

  lineState(state, error) {
    const { code = null, message = null } = error ?? {};
    if (this.state.state === state && this.state.code === code) return;
    this.state = { state, code, message };
    guarded(this.onState, this.state);
  }
}

/** What comes to a connection whatever room it has asked for (a user's own news, news for everyone), with payloads
 * that may well name a project. */
const ELSEWHERE = new Set([
  "api_message", "chat_message", "project_created", ...MENU.types, "system_notification", "tool_status_changed",
  "user_status_changed",
]);

const isAnswer = (body, what) =>
  Array.isArray(body?.[what.list]) && Number.isFinite(body.version) && Number.isFinite(body.seq) && !!body.epoch;

/** May this answer take the place of that one? */
const newer = (one, other) =>
  one.epoch !== other.epoch || one.version > other.version || (one.version === other.version && one.seq >= other.seq);

const sameText = (one, other) => {
  const text = (body) => JSON.stringify({ ...body, seq: null, offset: null, seen: null });
  return other !== null && text(one) === text(other);
};

const pick = (from, ...names) => Object.fromEntries(names.map((name) => [name, from?.[name]]));

/** Does a pattern, in which `*` is any text, also none, mean this text? */
function matches(pattern, text) {
  const [first, ...rest] = pattern.split("*");
  if (rest.length === 0) return pattern === text;
  const last = rest.pop();
  if (!text.startsWith(first) || text.length < first.length + last.length || !text.endsWith(last)) return false;
  let at = first.length;
  for (const part of rest) {
    const found = text.indexOf(part, at);
    if (found < 0) return false;
    at = found + part.length;
  }
  return at <= text.length - last.length;
}

/** What a connection token says of itself, unverified: it names the user's copy and its end. */
function claimsOf(token) {
  const body = token?.split(".")[1]?.replaceAll("-", "+").replaceAll("_", "/");
  const bytes = attempt(() => Uint8Array.from(atob(body), (letter) => letter.charCodeAt(0)));
  return (bytes && readJson(new TextDecoder().decode(bytes))) ?? {};
}

const endOf = (token) => (claimsOf(token).exp ?? Infinity) * 1_000;

const readJson = (text) => attempt(() => JSON.parse(text)) ?? null;

const browserStorage = () => attempt(() => globalThis.localStorage) ?? null;

/** What can fail without harm: storage in a private window or over its quota, text that is no JSON. */
function attempt(action) {
  try {
    return action();
  } catch {
    return undefined;
  }
}

/** Call a consumer; its exception is shown in the browser's console and hurts nobody else. */
function guarded(listener, ...given) {
  try {
    listener?.(...given);
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}
