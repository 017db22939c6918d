// Random histories by yjs itself: {seed, count} -> lines of {updates, text}.
// And its reading of ours: {updates} -> {text}. Updates are base64, one JSON a line.
import { createInterface } from 'node:readline';
import * as Y from 'yjs';

const WORDS = ['a', 'line\n', 'é', '😀', 'def f(x):\n    return x\n', '\n', '\t', 'ß\u0301', '1e400'];

// mulberry32: the same histories each time.
function drawer(seed) {
  return (below) => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) % below;
  };
}

// A position that is not in the midst of a surrogate pair.
function place(text, at) {
  const code = text.charCodeAt(at);
  return code >= 0xdc00 && code <= 0xdfff ? at - 1 : at;
}

function edit(doc, undo, draw) {
  const source = doc.getText('source');
  const text = source.toString();
  const kind = draw(10);
  if (kind < 6 || text.length === 0) {
    source.insert(place(text, draw(text.length + 1)), WORDS[draw(WORDS.length)]);
  } else if (kind < 9) {
    const from = place(text, draw(text.length));
    const to = place(text, Math.min(text.length, from + 1 + draw(12)));
    source.delete(from, Math.max(0, to - from));
  } else {
    undo.undo();
  }
}

function history(seed) {
  const draw = drawer(seed);
  const updates = [];
  const docs = Array.from({ length: 2 + draw(3) }, (_, n) => {
    const doc = new Y.Doc();
    doc.clientID = 1000 * (seed + 1) + n;
    doc.on('update', (update, origin) => origin !== 'sync' && updates.push(update));
    return [doc, new Y.UndoManager(doc.getText('source'), { captureTimeout: 0 })];
  });
  for (let step = 0; step < 10 + draw(40); step++) {
    const [doc, undo] = docs[draw(docs.length)];
    edit(doc, undo, draw);
    if (draw(3) === 0) {
      const [other] = docs[draw(docs.length)];
      Y.applyUpdate(other, Y.encodeStateAsUpdate(doc, Y.encodeStateVector(other)), 'sync');
    }
  }
  return { updates: updates.map(coded), text: merged(updates) };
}

function merged(updates) {
  const doc = new Y.Doc();
  for (const update of updates) Y.applyUpdate(doc, update);
  return doc.getText('source').toString();
}

const coded = (bytes) => Buffer.from(bytes).toString('base64');
const decoded = (text) => new Uint8Array(Buffer.from(text, 'base64'));

for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line);
  const answers = 'seed' in request
    ? Array.from({ length: request.count }, (_, n) => history(request.seed + n))
    : [{ text: merged(request.updates.map(decoded)) }];
  for (const answer of answers) process.stdout.write(JSON.stringify(answer) + '\n');
}
