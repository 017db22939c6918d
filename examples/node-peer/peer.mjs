// A node after docs/reference/wire.md: `node peer.mjs DIR`. It answers each task with its code in capitals.
import { createHash, createPublicKey, randomBytes, randomUUID, verify } from "node:crypto";
import { readFileSync } from "node:fs";
import { request } from "node:https";
const read = (name) => readFileSync(`${process.argv[2]}/${name}`), me = JSON.parse(read("enrolled.json"));
const grantKey = createPublicKey({ format: "jwk", key: { kty: "OKP", crv: "Ed25519", x: me.grant_key } }), session = randomUUID();
const sha256 = (data) => createHash("sha256").update(data).digest("hex"), now = () => Date.now() / 1000;
let hub = "", received = 0, acked = 0, queue = [], socket = null; // queue: what the hub has not acknowledged
const unpack = (bytes, at = 0) => { // MessagePack, as far as commands and grants need it
  const raw = (n) => bytes.subarray(at, (at += n)), number = (n) => Number(`0x${raw(n).toString("hex")}`);
  const list = (n, one) => Array.from({ length: n }, one), map = (n) => Object.fromEntries(list(n, () => list(2, value)));
  const value = () => {
    const tag = number(1);
    if (tag < 0xa0) return tag < 0x80 ? tag : tag < 0x90 ? map(tag & 15) : list(tag & 15, value);
    if (tag < 0xc4) return tag < 0xc0 ? raw(tag & 31).toString() : [null, undefined, false, true][tag & 3];
    if (tag < 0xd0) return tag < 0xc7 ? raw(number(1 << (tag & 3))) : tag === 0xcb ? raw(8).readDoubleBE() : number(1 << (tag & 3));
    if (tag < 0xdc) return raw(number(1 << (tag - 0xd9))).toString();
    return tag < 0xde ? list(number(tag % 2 ? 4 : 2), value) : map(number(tag % 2 ? 4 : 2));
  };
  return value();
};
const message = (opcode, body) => { // one WebSocket frame; those of a client are masked
  const size = body.length, form = size < 126 ? size : size < 65536 ? 126 : 127, mask = randomBytes(4);
  const long = Buffer.from(form < 126 ? "" : size.toString(16).padStart(form === 126 ? 4 : 16, "0"), "hex");
  socket.write(Buffer.from([0x80 | opcode, 0x80 | form, ...long, ...mask, ...body.map((byte, i) => byte ^ mask[i % 4])]));
};
const write = (...frame) => message(1, Buffer.from(JSON.stringify(frame)));
const send = (...items) => write("batch", acked + queue.push(...items) - items.length + 1, items);
const fact = (command, kind, subject, data, outcome = "") => {
  const id = `fact-${sha256(`${command} ${kind}`).slice(0, 32)}`, body = { id, at: now(), actor: me.id, kind, subject };
  return ["fact", id, Buffer.from(JSON.stringify({ ...body, data, outcome })).toString("base64"), "json"];
};
const carryOut = ([, position, , , body]) => {
  const { id, grant, payload } = unpack(Buffer.from(body, "base64")), run = unpack(payload), may = unpack(grant.body);
  const signed = verify(null, Buffer.concat([Buffer.from("angelos.grant.v1\0"), grant.body]), grantKey, grant.signature);
  const fits = signed && may.what === sha256(payload) && may.where === me.id && may.not_after > now();
  if (!fits || run.kind !== "run_task") return send(["settle", [position], "refused", "no grant, or no task"]);
  const end = { status: "ok", exit_code: 0, stdout: run.code.toUpperCase(), stderr: "", duration_s: 0, tier: "none", node: me.id };
  send(fact(id, "task.started", run.task, { node: me.id }), fact(id, "task.finished", run.task, end, "ok"), ["settle", [position]]);
};
const ack = (upto) => ([acked, queue] = [upto, queue.slice(upto - acked)]);
const welcome = (_, id, resumed, upto) => (resumed ? ack(upto) : ([hub, acked, received] = [id, 0, 0]), write("batch", acked + 1, queue));
const batch = (first, items) => (items.slice(received + 1 - first).forEach((item) => item[0] === "dispatch" && carryOut(item)),
  write("ack", (received = Math.max(received, first + items.length - 1))));
const take = { welcome, batch, ack, ping: () => write("pong"), bye: console.error };
const parse = (data) => { // takes the whole messages at the beginning of `data` and returns the rest
  const start = data[1] < 126 ? 2 : data[1] === 126 ? 4 : 10, long = start > 2 && Number(`0x${data.toString("hex", 2, start)}`);
  const end = start + (long || data[1]), body = data.subarray(start, end), [opcode] = data;
  if (!(data.length >= end)) return data; // NaN, too
  const [name, ...rest] = opcode === 0x81 ? JSON.parse(body) : ["", opcode === 0x89 && message(10, body)];
  return take[name]?.(...rest), parse(data.subarray(end));
};
const headers = { Connection: "Upgrade", Upgrade: "websocket", "Sec-WebSocket-Version": 13,
  "Sec-WebSocket-Key": randomBytes(16).toString("base64"), "Sec-WebSocket-Protocol": "angelos.v1.json" };
const connect = () => request(`${me.hub_url}/angelos/channel`, { ca: me.ca, cert: me.certificate, key: read("key.pem"), headers })
  .on("response", (refusal) => refusal.pipe(process.stderr)).on("error", again).on("upgrade", (_, stream, rest) => {
    socket = stream.on("data", (data) => { rest = parse(Buffer.concat([rest, data])); }).on("close", again).on("error", () => {});
    write("hello", 2, session, hub, received, 64, 1 << 20, { tier: "none" }); }).end();
const again = () => setTimeout(connect, 100 + 900 * Math.random());
connect();
