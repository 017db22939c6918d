// The dashboard's face. Everything shown is set as text, never as markup: output and messages
// come from agents. Elements are kept by key and updated in place, so that focus, scroll and
// open sections survive an update.

const make = (tag, attributes = {}, ...children) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
};

const say = (element, text) => {
  const wanted = text === null || text === undefined ? "" : String(text);
  if (element.textContent !== wanted) element.textContent = wanted;
  return element;
};

// Keep one child per item, in order; `update(element, item)` writes what changed.
const reconcile = (parent, items, key, create, update) => {
  const present = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let place = parent.firstElementChild;
  for (const item of items) {
    const id = String(key(item));
    let child = present.get(id);
    present.delete(id);
    if (!child) {
      child = create(item);
      child.dataset.key = id;
    }
    if (child !== place) parent.insertBefore(child, place);
    else place = place.nextElementSibling;
    update(child, item);
  }
  for (const child of present.values()) child.remove();
};

const part = (element, name) => element.querySelector(`[data-part="${name}"]`);
const slot = (tag, name, attributes = {}) => make(tag, { "data-part": name, ...attributes });
const MARKS = {
  ok: "✓", passed: "✓", promoted: "✓", approved: "✓", running: "▸", "cut-off": "?", testing: "▸", accepted: "·",
  received: "·", merged: "·", waiting: "?", cancelling: "▸",
};
const GOOD = new Set(["ok", "passed", "promoted", "approved"]);
const BUSY = new Set(["running", "cut-off", "accepted", "testing", "received", "pending", "waiting", "cancelling"]);

const setState = (element, word) => {
  const tone = GOOD.has(word) ? "good" : BUSY.has(word) ? "busy" : "bad";
  element.className = `ad-state ad-${tone}`;
  say(element, `${MARKS[word] ?? "✗"} ${word}`);
};

// -- the page's own connection ---------------------------------------------------------------
// In JupyterLab the page itself follows the system, with the session of the page, over the
// subprotocol angelos.v1.json. So it goes on when the hub was started again, without a reload and
// without the kernel, which ended with the hub. Elsewhere the kernel sends the views.

const SUBPROTOCOL = "angelos.v1.json";
const TASKS = 20, PROPOSALS = 50, RECENT = 8, CHANGES = 30, OUTPUT = 8_000, DIFF = 20_000;
const ALIVE_MS = 2_000, PATIENCE_MS = 2_500, GONE_MS = 5_000;
const REFRESH_MS = 500, FIRST_PAUSE_MS = 500, LAST_PAUSE_MS = 5_000;
const HIDDEN = /[\p{Cc}\p{Cf}\p{Cn}\p{Co}\p{Cs}\p{Zl}\p{Zp}]/gu;

// Where the API of this page's server is; null outside of Jupyter.
const apiOf = () => {
  const config = document.getElementById("jupyter-config-data");
  if (!config) return null;
  const base = new URL(JSON.parse(config.textContent).baseUrl ?? "/", location.href);
  return new URL("angelos/api/", base);
};

const call = async (base, path, body, patience = 0) => {
  const xsrf = /(?:^|; )_xsrf=([^;]*)/.exec(document.cookie)?.[1] ?? "";
  const headers = { "X-XSRFToken": decodeURIComponent(xsrf) };
  if (body) headers["Content-Type"] = "application/json";
  const options = body ? { method: "POST", headers, body: JSON.stringify(body) } : { headers };
  if (patience) options.signal = AbortSignal.timeout(patience);
  const answer = await fetch(new URL(path, base), options);
  const content = await answer.json().catch(() => ({}));
  if (answer.ok) return content;
  throw new Error(content.detail ?? `The server answered with ${answer.status}.`);
};

// Text without hidden characters, as `visible` in dashboard/state.py.
const visible = (text) =>
  (text ?? "").replaceAll("\r\n", "\n").replace(HIDDEN, (c) =>
    "\n\t".includes(c) ? c : `<U+${c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}>`,
  );

const short = (revision) => (revision ?? "").slice(0, 12);
const plain = (id) => visible(id.slice(id.indexOf("/") + 1));
const newest = (items) => [...items].sort((a, b) => (a.id < b.id ? 1 : -1));

const approvalOf = (item) => ({
  id: item.id, digest: item.digest, repo: visible(item.repo), base: short(item.base),
  author: visible(item.author), message: visible(item.message), reason: visible(item.reason),
  long: item.long ?? false, commit: item.commit ?? "",
  needs: item.needs ?? 1, approvals: (item.approvals ?? []).map(visible), notice: "", failures: 0,
  hidden: Math.max((item.changes ?? []).length - CHANGES, 0),
  changes: (item.changes ?? []).slice(0, CHANGES).map((change) => ({
    path: visible(change.path), diff: visible(change.diff.slice(0, DIFF)),
    cut: Boolean(change.cut) || change.diff.length > DIFF,
  })),
  steps: (item.steps ?? []).map((step) => ({
    name: visible(step.name), status: visible(step.status), seconds: Number(step.seconds.toFixed(2)),
    output: visible((step.output ?? "").slice(-OUTPUT)),
  })),
});

const recentOf = (item) => ({
  id: item.id, state: item.state, author: visible(item.author), message: visible(item.message),
  reason: visible(item.reason), revision: short(item.revision),
});

const taskOf = (task, live) => {
  const { result } = task;
  const output = result ? result.stdout + result.stderr : live;
  return {
    id: task.id, label: visible(task.label) || task.id, by: visible(task.by),
    node: visible(task.node), state: task.state, reason: visible(task.reason),
    status: result ? result.status : task.reason ? "cancelling" : task.state,
    seconds: result ? Number(result.duration_s.toFixed(2)) : null,
    output: visible(output.slice(-OUTPUT)), cut: output.length > OUTPUT,
  };
};

const systemOf = (status) => ({
  connected: true, detail: "", tier: status.tier ?? "", banner: visible(status.banner),
  repos: (status.repos ?? []).map((repo) => ({
    name: visible(repo.name), main: short(repo.main), dev: short(repo.dev),
  })),
});

const nodeOf = (node) => ({
  name: plain(node.id), role: node.role, connected: node.connected ?? false, tier: node.tier,
  running: node.running ?? 0,
  revisions: Object.entries(node.revisions ?? {}).sort().map(([repo, revision]) => ({
    repo: visible(repo), revision: short(revision),
  })),
});

// The same face as a model: `get`, `on`, `off`, `send`; until it has loaded once, the model's views.
class PageSource {
  constructor(model, base) {
    Object.assign(this, { model, base, loaded: false, closed: false, stale: new Set() });
    this.handlers = new Map();
    this.values = {};
    this.output = new Map();
    this.pages = 1;
    this.follow();
    this.alive = setInterval(() => this.check(), ALIVE_MS);
  }

  get(name) { return this.loaded ? this.values[name] : this.model.get(name); }
  send(message) { this.model.send(message); }
  on(event, handler) {
    this.handlers.set(event, handler);
    this.model.on(event, handler);
  }
  off(event, handler) {
    this.handlers.delete(event);
    this.model.off(event, handler);
  }
  close() {
    this.closed = true;
    clearInterval(this.alive);
    this.socket?.close();
  }

  // A server that hangs closes no socket: it is asked now and then whether it is still there.
  async check() {
    if (!this.loaded || this.checking || !this.values.system.connected) return;
    this.checking = true;
    try {
      await call(this.base, "whoami", null, PATIENCE_MS);
    } catch (error) {
      if (!this.closed) this.lost(error);
      this.socket?.close();
    }
    this.checking = false;
  }

  lost(error) {
    const detail = visible(`Not connected: ${error.message} What is shown is old; trying again.`);
    this.set({ system: { ...this.values.system, connected: false, detail } });
  }

  // Every waiting proposal can be reached: a page more each time.
  async waiting() {
    const rows = [];
    let after = "", total = 0;
    for (let page = 0; page < this.pages; page += 1) {
      const path = `proposals?state=waiting&limit=${PROPOSALS}${after && `&after=${encodeURIComponent(after)}`}`;
      const answer = await call(this.base, path);
      rows.push(...(answer.proposals ?? []));
      total = answer.total ?? rows.length;
      after = answer.next ?? "";
      if (!after) break;
    }
    return { rows, total };
  }

  more() {
    this.pages += 1;
    return this.load(["proposals"]);
  }

  set(values) {
    Object.assign(this.values, values);
    for (const name of Object.keys(values)) this.handlers.get(`change:${name}`)?.();
  }

  async follow() {
    for (let pause = FIRST_PAUSE_MS; !this.closed; pause = Math.min(pause * 2, LAST_PAUSE_MS)) {
      try {
        const after = await this.load(["status", "tasks", "proposals"]);
        this.loaded = true;
        this.set(this.values);
        await this.events(after, () => { pause = FIRST_PAUSE_MS; });
      } catch (error) {
        if (this.loaded && !this.closed) this.lost(error);
      }
      await new Promise((resolve) => { setTimeout(resolve, pause); });
    }
  }

  async load(names) {
    const paths = { status: "status", tasks: `tasks?limit=${TASKS}`, proposals: `proposals?limit=${PROPOSALS}` };
    const [inbox, ...answers] = await Promise.all([
      names.includes("proposals") ? this.waiting() : null,
      ...names.map((name) => call(this.base, paths[name])),
    ]);
    let after = "";
    answers.forEach((answer, index) => {
      if (names[index] === "status") {
        after = answer.journal;
        const nodes = [...(answer.nodes ?? [])].sort((a, b) => (a.id < b.id ? -1 : 1)).map(nodeOf);
        this.set({ system: systemOf(answer), nodes });
      } else if (names[index] === "tasks") {
        this.tasks = newest(answer.tasks ?? []);
        this.showTasks();
      } else {
        const proposals = newest(answer.proposals ?? []);
        const waits = (item) => item.state === "waiting";
        this.set({
          approvals: newest(inbox.rows).map(approvalOf),
          waiting: inbox.total,
          recent: proposals.filter((item) => !waits(item)).slice(0, RECENT).map(recentOf),
        });
      }
    });
    return after;
  }

  showTasks() {
    const open = new Set(this.tasks.filter((task) => !task.result).map((task) => task.id));
    for (const id of this.output.keys()) if (!open.has(id)) this.output.delete(id);
    this.set({ tasks: this.tasks.map((task) => taskOf(task, this.output.get(task.id) ?? "")) });
  }

  // Follow the journal until the connection is lost.
  events(after, opened) {
    const address = new URL(`events?after=${encodeURIComponent(after)}`, this.base);
    address.protocol = address.protocol.replace("http", "ws");
    return new Promise((_, reject) => {
      const socket = new WebSocket(address, SUBPROTOCOL);
      this.socket = socket;
      socket.onopen = opened;
      socket.onmessage = (message) => this.take(JSON.parse(message.data));
      socket.onclose = (event) => reject(new Error(event.reason || "The connection was lost."));
    });
  }

  take({ kind, subject, data }) {
    if (!kind) return; // a notice that facts were lost: all was loaded just now
    if (kind === "task.output") {
      const gap = data.omitted ? `\n... ${data.omitted} bytes left out ...\n` : "";
      const text = (this.output.get(subject) ?? "") + gap + data.text;
      this.output.set(subject, text.slice(-OUTPUT - 1));
      this.stale.add("output");
    } else if (kind === "task.started" && (data.attempt ?? 1) !== 1) {
      this.output.set(subject, `[started again, attempt ${data.attempt}]\n`);
      this.stale.add("tasks");
    } else if (kind.startsWith("task.")) this.stale.add("tasks");
    else if (kind.startsWith("proposal.")) this.stale.add("proposals");
    else this.stale.add("status");
    this.timer ??= setTimeout(() => this.refresh(), REFRESH_MS);
  }

  async refresh() {
    this.timer = null;
    const names = [...this.stale];
    this.stale.clear();
    if (names.includes("output") && !names.includes("tasks")) this.showTasks();
    // What fails now is loaded after the next connection.
    await this.load(names.filter((name) => name !== "output")).catch(() => this.socket?.close());
  }
}

let instances = 0;
const section = (title) => {
  const id = `ad-heading-${(instances += 1)}`;
  const count = make("span", { class: "ad-count" });
  const body = make("div", { class: "ad-body" });
  const empty = make("p", { class: "ad-empty" });
  const root = make(
    "section",
    { class: "ad-section", "aria-labelledby": id },
    make("h3", { id }, make("span", {}, title), count),
    empty,
    body,
  );
  return { root, body, count, empty };
};

const fill = (place, items, none) => {
  say(place.count, items.length || "");
  say(place.empty, items.length ? "" : none);
  place.empty.hidden = items.length > 0;
};

// -- nodes -----------------------------------------------------------------------------------

const createNode = () =>
  make(
    "div",
    { class: "ad-node", role: "listitem" },
    slot("span", "light", { class: "ad-light", "aria-hidden": "true" }),
    slot("strong", "name"),
    slot("span", "role", { class: "ad-muted" }),
    slot("span", "tier", { class: "ad-tag" }),
    slot("span", "running", { class: "ad-muted" }),
    slot("span", "revisions", { class: "ad-mono ad-muted" }),
  );

const updateNode = (element, node) => {
  part(element, "light").className = `ad-light ad-${node.connected ? "good" : "bad"}`;
  say(part(element, "name"), node.name);
  say(part(element, "role"), `${node.role}, ${node.connected ? "connected" : "not connected"}`);
  say(part(element, "tier"), `isolation: ${node.tier}`);
  say(part(element, "running"), node.running === 1 ? "1 task" : `${node.running} tasks`);
  const at = node.revisions.map((known) => `${known.repo} @ ${known.revision}`);
  say(part(element, "revisions"), at.join("  "));
};

// -- approvals -------------------------------------------------------------------------------

const createChange = () =>
  make(
    "details",
    { class: "ad-change", open: "" },
    make("summary", {}, slot("span", "path", { class: "ad-mono" })),
    slot("pre", "diff", { class: "ad-diff", tabindex: "0" }),
    slot("p", "cut", { class: "ad-muted" }),
  );

const diffClass = (line) => {
  if (/^(\+\+\+|---|diff |index )/.test(line)) return "ad-file";
  if (line.startsWith("+")) return "ad-plus";
  if (line.startsWith("-")) return "ad-minus";
  return line.startsWith("@@") ? "ad-hunk" : "";
};

const updateChange = (element, change) => {
  say(part(element, "path"), change.path);
  const diff = part(element, "diff");
  diff.setAttribute("aria-label", `Changes of ${change.path}`);
  if (diff.textContent !== change.diff) {
    const lines = change.diff.split(/(?<=\n)/);
    diff.replaceChildren(...lines.map((line) => say(make("span", { class: diffClass(line) }), line)));
  }
  say(part(element, "cut"), change.cut ? "The rest of this diff is too long to show here." : "");
};

const createStep = () =>
  make(
    "details",
    { class: "ad-step" },
    make(
      "summary",
      {},
      slot("span", "status"),
      slot("span", "name"),
      slot("span", "seconds", { class: "ad-muted" }),
    ),
    slot("pre", "output", { class: "ad-output", tabindex: "0" }),
  );

const updateStep = (element, step) => {
  setState(part(element, "status"), step.status);
  say(part(element, "name"), step.name);
  say(part(element, "seconds"), `${step.seconds} s`);
  say(part(element, "output"), step.output || "(no output)");
  part(element, "output").setAttribute("aria-label", `Output of ${step.name}`);
};

// A review is given by the person at this page, with the session of the page; the kernel could only
// give it in the name of whose kernel it is. A page that is not Jupyter's leaves it to the kernel.
const review = async (model, { word, proposal, digest, comment, shown }) => {
  const base = apiOf();
  const body = shown ? { digest, comment, shown } : { digest, comment };
  if (base) await call(base, `proposals/${encodeURIComponent(proposal)}/${word}`, body);
  else model.send({ word, proposal, digest, comment });
};

// The whole change as it would become main, page by page. The last page gives the word with which
// this person, and nobody else, may approve it.
const wholeOf = async (base, item) => {
  const texts = new Map();
  let after = "";
  for (;;) {
    const query = after ? `?after=${encodeURIComponent(after)}` : "";
    const page = await call(base, `proposals/${encodeURIComponent(item.id)}/diff${query}`);
    if (page.digest !== item.digest) throw new Error("It has changed; look at it again.");
    for (const { path, diff } of page.changes) texts.set(path, (texts.get(path) ?? "") + diff);
    if (!page.next) {
      const changes = [...texts].map(([path, diff]) => ({ path: visible(path), diff: visible(diff), cut: false }));
      return { digest: item.digest, commit: item.commit, shown: page.shown, changes };
    }
    after = page.next;
  }
};

const createApproval = (model) => (item) => {
  const comment = make("input", {
    class: "ad-comment", type: "text", maxlength: "2000", placeholder: "Comment (optional)",
    "aria-label": `Comment on ${item.message}`,
  });
  const approve = make("button", { class: "ad-button ad-primary", type: "button" }, "Approve");
  const reject = make("button", { class: "ad-button", type: "button" }, "Reject");
  const all = make("button", { class: "ad-button", type: "button" }, "Show the whole change");
  const card = make(
    "article",
    { class: "ad-card" },
    make(
      "header",
      { class: "ad-card-head" },
      slot("strong", "message"),
      slot("span", "meta", { class: "ad-muted" }),
    ),
    slot("p", "reason", { class: "ad-reason" }),
    slot("div", "steps", { class: "ad-steps" }),
    slot("div", "changes"),
    slot("p", "hidden", { class: "ad-muted" }),
    all,
    make("div", { class: "ad-actions" }, comment, approve, reject),
    slot("p", "notice", { class: "ad-notice", role: "alert" }),
  );
  const send = (word) => {
    const { id, digest } = card.item;
    const sent = { word };
    [card.sent, card.failure] = [sent, ""];
    card.show();
    const { shown = "" } = card.whole ?? {};
    review(model, { word, proposal: id, digest, comment: comment.value, shown }).catch((error) => {
      if (card.sent === sent) [card.sent, card.failure] = [null, error.message];
      card.show();
    });
  };
  card.show = () => {
    say(part(card, "notice"), card.failure || card.item.notice);
    reject.disabled = Boolean(card.sent);
    approve.disabled = Boolean(card.sent) || !(card.whole || isWhole(card.item));
    approve.title = approve.disabled && !card.sent ? "Enabled when the whole change is shown." : "";
    all.hidden = Boolean(card.whole) || isWhole(card.item) || !apiOf();
    say(approve, card.sent?.word === "approve" ? "Approving…" : "Approve");
    say(reject, card.sent?.word === "reject" ? "Rejecting…" : "Reject");
  };
  all.addEventListener("click", async () => {
    all.disabled = true;
    try {
      card.whole = await wholeOf(apiOf(), card.item);
      card.failure = "";
    } catch (error) {
      card.failure = error.message;
    }
    all.disabled = false;
    updateApproval(card, card.item);
    if (card.whole) part(card, "changes").querySelector("summary")?.focus();
  });
  approve.addEventListener("click", () => send("approve"));
  reject.addEventListener("click", () => send("reject"));
  card.buttons = { approve, reject };
  return card;
};

const isWhole = (item) => !item.long && !item.hidden && !item.changes.some((change) => change.cut);

const updateApproval = (card, item) => {
  // What was asked is answered when the text of the proposal or its approvals change, or when it
  // failed once more, in the same words or others.
  const before = card.item;
  const answered =
    before &&
    (before.failures !== item.failures ||
      before.digest !== item.digest ||
      before.approvals.length !== item.approvals.length);
  if (answered) card.sent = null;
  if (card.whole && (card.whole.digest !== item.digest || card.whole.commit !== item.commit)) {
    card.whole = null; // it is another change now
  }
  card.item = item;
  card.setAttribute("aria-label", `Proposal: ${item.message}`);
  say(part(card, "message"), item.message);
  say(part(card, "meta"), `${item.author} · ${item.repo} @ ${item.base}`);
  const more = item.needs > 1 ? ` ${item.needs} people have to approve.` : "";
  const given = item.approvals.length ? ` Approved by ${item.approvals.join(", ")}.` : "";
  say(part(card, "reason"), item.reason + more + given);
  reconcile(part(card, "steps"), item.steps, (step) => step.name, createStep, updateStep);
  const changes = card.whole?.changes ?? item.changes;
  reconcile(part(card, "changes"), changes, (c) => c.path, createChange, updateChange);
  const hidden = card.whole ? 0 : item.hidden;
  const files = hidden ? `${hidden} more files are not shown here. ` : "";
  const elsewhere = "Look at all of it and approve it with: angelos proposal approve --whole " + item.id;
  const aside = card.whole || isWhole(item) || apiOf() ? "" : elsewhere;
  say(part(card, "hidden"), files + aside);
  for (const [word, button] of Object.entries(card.buttons)) {
    button.setAttribute("aria-label", `${word === "approve" ? "Approve" : "Reject"}: ${item.message}`);
  }
  card.show();
};

// -- recent proposals and tasks --------------------------------------------------------------

const createRecent = () =>
  make(
    "div",
    { class: "ad-row", role: "listitem" },
    slot("span", "state"),
    slot("span", "message"),
    slot("span", "meta", { class: "ad-muted" }),
  );

const updateRecent = (element, item) => {
  setState(part(element, "state"), item.state);
  say(part(element, "message"), item.message);
  const became = item.revision ? ` · main ${item.revision}` : item.reason && ` · ${item.reason}`;
  say(part(element, "meta"), `${item.author}${became}`);
};

const createTask = () =>
  make(
    "details",
    { class: "ad-task" },
    make(
      "summary",
      {},
      slot("span", "status"),
      slot("span", "label", { class: "ad-mono" }),
      slot("span", "meta", { class: "ad-muted" }),
    ),
    slot("pre", "output", { class: "ad-output", tabindex: "0" }),
  );

const updateTask = (element, task) => {
  setState(part(element, "status"), task.status);
  say(part(element, "label"), task.label);
  const took = task.seconds === null ? "" : ` · ${task.seconds} s`;
  const why = task.reason ? ` · ${task.reason}` : "";
  say(part(element, "meta"), `${task.by} on ${task.node}${took}${why}`);
  const output = part(element, "output");
  const atEnd = output.scrollTop + output.clientHeight >= output.scrollHeight - 4;
  say(output, (task.cut ? "…" : "") + (task.output || "(no output yet)"));
  output.setAttribute("aria-label", `Output of ${task.label}`);
  if (atEnd) output.scrollTop = output.scrollHeight;
  if (task.state === "running" && task.output && !element.dataset.shown) {
    element.open = true;
    element.dataset.shown = "1";
  }
};

// -- the whole -------------------------------------------------------------------------------

export default {
  render({ model: kernel, el }) {
    const base = kernel.get("own") ? apiOf() : null;
    const model = base ? new PageSource(kernel, base) : kernel;
    const light = make("span", { class: "ad-light", "aria-hidden": "true" });
    const connection = make("span", { role: "status" });
    const repos = make("span", { class: "ad-mono ad-muted" });
    const banner = make("p", { class: "ad-banner", role: "alert" });
    const announce = make("p", { class: "ad-unseen", role: "status", "aria-live": "polite" });
    const nodes = section("Nodes");
    const approvals = section("Waiting for approval");
    const more = make("button", { class: "ad-button", type: "button", hidden: "" });
    more.addEventListener("click", () => model.more());
    approvals.root.append(more);
    const recent = section("Changes");
    const tasks = section("Tasks");
    nodes.body.setAttribute("role", "list");
    recent.body.setAttribute("role", "list");
    const root = make(
      "div",
      {
        class: "ad-root", role: "region", "aria-label": "AngelOS dashboard",
        "data-lm-suppress-shortcuts": "true", // no key pressed here is a command of Lab's
      },
      make("header", { class: "ad-head" }, make("h2", {}, "AngelOS"), light, connection, repos),
      banner, announce, approvals.root, nodes.root, recent.root, tasks.root,
    );

    let beat;
    const showSystem = () => {
      const system = model.get("system");
      light.className = `ad-light ad-${system.connected ? "good" : "bad"}`;
      say(connection, system.connected ? `connected · isolation: ${system.tier}` : system.detail);
      say(repos, (system.repos ?? []).map((repo) => `${repo.name} main ${repo.main}`).join("  "));
      say(banner, system.banner);
      banner.hidden = !system.banner;
      root.classList.toggle("ad-old", !system.connected);
    };
    // Without a page of its own it lives by its kernel, which sends a beat.
    const hear = () => {
      clearTimeout(beat);
      if (base || !model.get("beat")) return;
      beat = setTimeout(() => {
        light.className = "ad-light ad-bad";
        root.classList.add("ad-old");
        say(connection, "The kernel of this dashboard does not answer. Run its cell again.");
      }, GONE_MS);
      showSystem();
    };
    const showNodes = () => {
      const items = model.get("nodes");
      fill(nodes, items, "No node is enrolled.");
      reconcile(nodes.body, items, (node) => node.name, createNode, updateNode);
    };
    let waiting = 0;
    const showApprovals = () => {
      const items = model.get("approvals");
      fill(approvals, items, "Nothing waits for you.");
      const total = Math.max(model.get("waiting") ?? 0, items.length);
      if (total) say(approvals.count, total);
      more.hidden = total <= items.length || !base;
      say(more, `Show more (${total - items.length} more wait)`);
      reconcile(approvals.body, items, (item) => item.id, createApproval(model), updateApproval);
      if (items.length > waiting) say(announce, `${items.length} changes wait for approval.`);
      waiting = items.length;
    };
    const showRecent = () => {
      const items = model.get("recent");
      fill(recent, items, "Nothing else was proposed yet.");
      reconcile(recent.body, items, (item) => item.id, createRecent, updateRecent);
    };
    const showTasks = () => {
      const items = model.get("tasks");
      fill(tasks, items, "No task ran yet.");
      reconcile(tasks.body, items, (task) => task.id, createTask, updateTask);
    };

    const watched = {
      system: showSystem, nodes: showNodes, approvals: showApprovals, recent: showRecent,
      tasks: showTasks, waiting: showApprovals, beat: hear,
    };
    for (const [name, show] of Object.entries(watched)) {
      show();
      model.on(`change:${name}`, show);
    }
    el.append(root);
    return () => {
      for (const [name, show] of Object.entries(watched)) model.off(`change:${name}`, show);
      clearTimeout(beat);
      if (base) model.close();
    };
  },
};
