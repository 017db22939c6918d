// The overlay of one open notebook or file: a card in each cell that a proposal changes, and a bar
// above with what belongs to no cell that is there. Texts are set as text, never as markup: they
// come from agents. Cards are kept by key and updated in place, so focus and scroll survive.

import { button, make, reconcile, say, showDiff } from "./dom.js";

const SETTLE_MS = 1500; // after the last keystroke, the places of hunks are asked for again

const MAX_BAR = 320; // pixels

const TITLES = {
  text: "changes lines",
  created: "is new",
  deleted: "is deleted",
  moved: "moves",
  outputs: "gets other outputs",
  metadata: "gets other metadata",
  mode: "gets another mode",
  link: "is another link",
  blob: "is another blob",
};

export class Overlay {
  constructor(panel, api, Widget) {
    this.panel = panel;
    this.api = api;
    this.pending = [];
    this.notes = new Map(); // key of a card -> what went wrong with it
    this.root = make("div", { class: "angelos-bar", role: "region", "aria-label": "Pending edits" });
    this.bar = new Widget({ node: this.root });
    this.bar.hide();
    this.observer = new ResizeObserver(() => this.fit());
    this.observer.observe(this.root);
    panel.contentHeader.addWidget(this.bar);
    this.isNotebook = panel.content.widgets !== undefined && panel.content.model !== undefined;
    panel.context.ready.then(() => this.start());
  }

  start() {
    if (this.disposed) return;
    const model = this.panel.context.model;
    model.contentChanged.connect(this.settle, this);
    this.panel.context.pathChanged.connect(this.refresh, this);
    this.refresh();
  }

  dispose() {
    this.disposed = true;
    this.observer.disconnect();
    clearTimeout(this.timer);
  }

  // Repository and path: a file of the workspace is `<repo>/<path>`, behind the drive's name.
  address() {
    const path = this.panel.context.path.replace(/^[^/:]*:/, "");
    const slash = path.indexOf("/");
    return slash < 0 ? null : [path.slice(0, slash), path.slice(slash + 1)];
  }

  settle() {
    this.draw(); // cells may have come or gone
    if (this.pending.length === 0) return;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.refresh(), SETTLE_MS);
  }

  // One question at a time; whoever asks meanwhile is answered by the next.
  async refresh() {
    if (this.disposed) return;
    if (this.asking) {
      this.again = true;
      return;
    }
    this.asking = true;
    try {
      const address = this.address();
      this.pending = address ? await this.api.pending(...address) : [];
      this.failure = "";
    } catch (problem) {
      if (problem.status === 404) this.pending = []; // no file of a repository
      else this.failure = `Pending edits cannot be shown: ${problem.message}`;
    } finally {
      this.asking = false;
    }
    this.draw();
    if (this.again) {
      this.again = false;
      await this.refresh();
    }
  }

  async review(verdict, card) {
    this.notes.delete(card.key);
    try {
      const hunks = card.hunks.map((hunk) => hunk.id);
      await this.api.review(verdict, card.proposal.id, card.proposal.digest, hunks);
    } catch (problem) {
      this.notes.set(card.key, problem);
    }
    await this.refresh();
  }

  draw() {
    if (this.disposed) return;
    const cells = this.cells();
    const cards = this.pending.flatMap((proposal) => cardsOf(proposal, this.address()?.[1], cells));
    const placed = (cell) => cards.filter((card) => card.place === cell);
    for (const [id, node] of cells) this.drawIn(node, placed(id));
    const loose = cards.filter((card) => !cells.has(card.place));
    const waits = new Set(this.pending.map((proposal) => proposal.id)).size;
    let head = this.failure || "";
    if (!head && waits) head = `${waits} pending proposal${waits > 1 ? "s" : ""} for this file`;
    reconcile(
      this.root,
      head ? [{ key: "head", head }, ...loose] : [],
      (item) => item.key,
      (item) => (item.head ? make("p", { class: "angelos-head" }) : this.create()),
      (element, item) => (item.head ? say(element, item.head) : this.update(element, item)),
    );
    if (head) this.bar.show();
    else this.bar.hide();
    this.fit();
  }

  // The bar is laid out by JupyterLab, by its least height.
  fit() {
    if (this.disposed || this.bar.isHidden) return;
    const children = [...this.root.children];
    const height = children.reduce((sum, child) => sum + child.offsetHeight + 8, 0);
    const least = `${Math.min(height, MAX_BAR)}px`;
    if (this.root.style.minHeight === least) return;
    this.root.style.minHeight = least;
    this.panel.contentHeader.fit();
  }

  drawIn(node, cards) {
    let place = node.querySelector(":scope > .angelos-cards");
    if (!place) {
      if (cards.length === 0) return;
      place = make("div", { class: "angelos-cards" });
      node.append(place);
    }
    reconcile(
      place,
      cards,
      (card) => card.key,
      () => this.create(),
      (element, card) => this.update(element, card),
    );
  }

  cells() {
    const widgets = this.isNotebook ? this.panel.content.widgets : [];
    return new Map(widgets.map((cell) => [cell.model.id, cell.node]));
  }

  create() {
    const part = (tag, name) => make(tag, { "data-part": name, class: `angelos-${name}` });
    return make(
      "section",
      { class: "angelos-card" },
      make(
        "header",
        {},
        part("strong", "author"),
        part("span", "title"),
        part("span", "stale"),
        part("span", "buttons"),
      ),
      part("p", "message"),
      part("div", "hunks"),
      part("p", "note"),
    );
  }

  update(element, card) {
    const part = (name) => element.querySelector(`:scope [data-part="${name}"]`);
    const { proposal, hunks, conflicts } = card;
    element.classList.toggle("angelos-is-stale", conflicts.length > 0);
    element.setAttribute("aria-label", `Proposed by ${proposal.author}`);
    say(part("author"), proposal.author);
    const kinds = [...new Set(hunks.map((hunk) => TITLES[hunk.kind] ?? hunk.kind))];
    say(part("title"), `${card.what} ${kinds.join(", ")}`);
    say(part("stale"), conflicts.length ? "stale: changed since it was read" : "");
    say(part("message"), proposal.message);
    const whole = [{ key: "all", hunks, name: hunks.length > 1 ? " all here" : "" }];
    this.buttons(part("buttons"), whole, card);
    reconcile(
      part("hunks"),
      hunks.map((hunk) => ({ ...hunk, single: hunks.length > 1 })),
      (hunk) => hunk.id,
      () => make("div", { class: "angelos-hunk" }, make("pre"), make("span")),
      (row, hunk) => {
        const where = hunk.at ? `line ${hunk.at}` : "";
        showDiff(row.firstChild, hunk, where);
        const own = hunk.single ? [{ key: hunk.id, hunks: [hunk], name: "" }] : [];
        this.buttons(row.lastChild, own, card);
      },
    );
    const now = conflicts.map((conflict) => `It is now:\n${conflict.current}`).join("\n");
    const problem = this.notes.get(card.key);
    say(part("note"), [problem?.message, now].filter(Boolean).join("\n"));
  }

  buttons(place, groups, card) {
    const verdicts = groups.flatMap((group) => [
      { key: `accept-${group.key}`, verdict: "accept", label: `Accept${group.name}`, group },
      { key: `reject-${group.key}`, verdict: "reject", label: `Reject${group.name}`, group },
    ]);
    reconcile(
      place,
      verdicts,
      (item) => item.key,
      () => button(),
      (element, item) => {
        say(element, item.label);
        element.onclick = async () => {
          element.disabled = true;
          await this.review(item.verdict, { ...card, hunks: item.group.hunks });
          element.disabled = false;
        };
      },
    );
  }
}

// Return a proposal's open hunks of one file as cards: one for each cell, one for the file itself.
const cardsOf = (proposal, path, cells) => {
  const groups = new Map();
  for (const hunk of proposal.hunks) {
    if (hunk.state !== "open" || (hunk.path !== path && hunk.to !== path)) continue;
    groups.set(hunk.cell, [...(groups.get(hunk.cell) ?? []), hunk]);
  }
  return [...groups].map(([cell, hunks]) => ({
    key: `${proposal.id}/${cell}`,
    proposal,
    hunks,
    // A new cell is shown below the one that it comes after.
    place: cells.has(cell) ? cell : hunks[0].previous,
    what: cell === "" ? "This file" : cells.has(cell) ? "This cell" : "A cell",
    conflicts: proposal.conflicts.filter((c) => c.path === path && (c.cell ?? "") === cell),
  }));
};
