import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { createServer } from "node:net";
import { test } from "node:test";
import { CommError, DataError, isReported } from "#src/errors.js";
import { type ProcessGroup, soloGroup } from "#src/parallel/group.js";
import { Hub } from "#src/parallel/hub.js";
import { Member } from "#src/parallel/member.js";
import { failureOf, join, openGroups, openHub, PATIENT, place, TOKEN, talk } from "./support.js";

const closeAll = (groups: readonly ProcessGroup[]) => Promise.all(groups.map((g) => g.close()));

/** Ends groups of a failed run, of which none is there for the others any more. */
const failAll = (groups: readonly ProcessGroup[]) =>
  Promise.all(groups.map((g) => g.fail(new Error("end of the test"))));

test("group: gather, broadcast and barrier give every rank the same values", async () => {
  const groups = await openGroups(4);
  const values = [{ digest: "a", n: 1 }, null, [1.5, Number.NaN], Number.POSITIVE_INFINITY];
  const gathered = await Promise.all(groups.map((g) => g.gather("values", values[g.rank])));
  for (const found of gathered) assert.deepEqual(found, values);
  const told = await Promise.all(groups.map((g) => g.broadcast("name", `from ${g.rank}`)));
  assert.deepEqual(told, Array(4).fill("from 0"));
  let inside = 0;
  const leave = groups.map(async (g) => {
    if (g.rank === 2) await new Promise((resolve) => setTimeout(resolve, 50));
    inside++;
    await g.barrier("meet");
    return inside;
  });
  assert.deepEqual(await Promise.all(leave), Array(4).fill(4));
  await closeAll(groups);
  assert.ok(groups.every((g) => !g.failure.aborted));
});

test("group: calls that follow each other without waiting keep their order", async () => {
  const groups = await openGroups(3);
  const rounds = Array.from({ length: 50 }, (_, round) => round);
  const all = groups.flatMap((g) =>
    rounds.map(async (round) => {
      const found = await g.gather(`round ${round}`, [g.rank, round]);
      assert.deepEqual(
        found,
        [0, 1, 2].map((rank) => [rank, round]),
      );
    }),
  );
  await Promise.all(all);
  await closeAll(groups);
});

test("group: values of several megabytes arrive whole", async () => {
  const groups = await openGroups(2);
  const long = randomBytes(3 << 20).toString("hex");
  const found = await Promise.all(groups.map((g) => g.gather("long", `${g.rank}${long}`)));
  assert.ok(found.every(([a, b]) => a === `0${long}` && b === `1${long}`));
  await closeAll(groups);
});

test("group: the group of one process answers itself", async () => {
  const solo = soloGroup();
  assert.deepEqual(await solo.gather("x", 7), [7]);
  assert.equal(await solo.broadcast("x", 8), 8);
  await solo.barrier("x");
  await solo.close();
});

test("group: ranks that are in different calls are told both", async () => {
  const groups = await openGroups(3);
  const [a, b, c] = groups as [ProcessGroup, ProcessGroup, ProcessGroup];
  const says =
    /^rank 1 is in barrier "saved" and rank (0|2) in gather "plan": expected the same on every rank$/;
  const swapped =
    /^rank (0|2) is in gather "plan" and rank 1 in barrier "saved": expected the same on every rank$/;
  const results = await Promise.allSettled([
    a.gather("plan", 1),
    b.barrier("saved"),
    c.gather("plan", 1),
  ]);
  for (const result of results) {
    assert.ok(result.status === "rejected" && result.reason instanceof CommError);
    const { message } = result.reason;
    assert.ok(says.test(message) || swapped.test(message), message);
  }
  await failAll(groups);
});

test("group: an error of one rank reaches all, once told, and names its rank", async () => {
  for (const origin of [0, 2]) {
    const groups = await openGroups(3);
    const waiting = groups.filter((g) => g.rank !== origin).map((g) => g.barrier("saved"));
    const rejected = Promise.allSettled(waiting);
    const error = new DataError("rows.jsonl:3: no label", { hint: "add one" });
    await groups[origin]!.fail(error);
    for (const result of await rejected) {
      assert.ok(result.status === "rejected" && result.reason instanceof CommError);
      assert.equal(result.reason.message, `rank ${origin}: rows.jsonl:3: no label`);
      assert.equal(result.reason.hint, "add one");
      assert.equal(result.reason.rank, origin);
      assert.equal(result.reason.exitCode, 1);
    }
    // Rank 0 prints it: its own error, or the news of another's.
    const printed = groups.map((g) => !isReported(g.rank === origin ? error : g.failure.reason));
    assert.deepEqual(printed, [true, false, false]);
    await assert.rejects(groups[1]!.gather("later", 0), /rows\.jsonl:3/);
  }
});

test("group: of errors of all ranks at once one is told", async () => {
  const groups = await openGroups(4);
  const errors = groups.map((g) => new DataError(`broken on ${g.rank}`));
  await Promise.all(groups.map((g) => g.fail(errors[g.rank])));
  assert.deepEqual(
    errors.map((error) => isReported(error)),
    [false, true, true, true],
  );
});

test("group: a call that one rank never makes ends in its bound and names the missing", async () => {
  const groups = await openGroups(4, { call: 0.2, silence: 0.5 });
  const waiting = [groups[0]!.barrier("saved"), groups[3]!.barrier("saved")];
  const says = /^barrier "saved", which rank [03] is in: no answer from ranks 1, 2 within 0.2 s$/;
  for (const result of await Promise.allSettled(waiting)) {
    assert.ok(result.status === "rejected");
    assert.match(result.reason.message, says);
    assert.match(result.reason.hint, /ddp_timeout/);
  }
  await failAll(groups);
});

test("group: ranks that never connect are named in the bound", async () => {
  const hub = await openHub(4, { connect: 0.3, silence: 0.5 });
  const member = await join(hub, 2);
  await assert.rejects(
    hub.barrier("start"),
    /^CommError: no connection from ranks 1, 3 to rank 0, port \d+, within 0.3 s$/,
  );
  assert.match((await failureOf(member)).message, /^no connection from ranks 1, 3/);
});

test("group: a member finds no rank 0 in the bound and says where it looked", async () => {
  const at = { addresses: ["127.0.0.1"], port: 1 };
  const limits = { ...PATIENT, connect: 0.3 };
  await assert.rejects(
    Member.join(place(3, 4), TOKEN, at, limits),
    /^CommError: rank 3 found no rank 0 within 0.3 s; 127\.0\.0\.1:1: connect ECONNREFUSED/,
  );
});

test("group: a member waits for a rank 0 that starts later", async () => {
  const first = await openHub(2);
  const { port } = first;
  await first.fail(new Error("only its port was wanted"));
  const member = Member.join(place(1, 2), TOKEN, { addresses: ["127.0.0.1"], port }, PATIENT);
  await new Promise((resolve) => setTimeout(resolve, 100));
  const hub = await Hub.open(place(0, 2), TOKEN, port, PATIENT);
  await closeAll([hub, await member]);
});

test("group: of several addresses of rank 0 the one that leads there is taken", async () => {
  const other = createServer((socket) => socket.end("HTTP/1.1 400 Bad Request\r\n\r\n"));
  other.on("error", () => {});
  const hub = await openHub(2);
  // Another program at the same port of another address of this machine.
  await new Promise<void>((resolve) => {
    other.once("error", () => resolve());
    other.listen(hub.port, "127.0.0.2", () => resolve());
  });
  const at = { addresses: ["127.0.0.2", "127.0.0.1"], port: hub.port };
  const member = await Member.join(place(1, 2), TOKEN, at, PATIENT);
  await closeAll([hub, member]);
  other.close();
});

test("group: a wrong token, size or rank is refused, without harm to the others", async () => {
  const hub = await openHub(3);
  const first = await join(hub, 1);
  const other = "another secret of 16";
  await assert.rejects(
    join(hub, 2, { token: other }),
    /^CommError: rank 2 finds another program in place of rank 0 at 127\.0\.0\.1:\d+: it has another SIMPER_RUN_TOKEN$/,
  );
  await assert.rejects(
    join(hub, 2, { size: 8 }),
    /^CommError: rank 2 was refused by rank 0 at .*: it is in a run of 8 processes, and rank 0 in one of 3$/,
  );
  await assert.rejects(
    join(hub, 1),
    /^CommError: rank 1 was refused by rank 0 at .*: another process, from .*127\.0\.0\.1, is rank 1 already$/,
  );
  await assert.rejects(join(hub, 0), /there is no other rank 0 in a run of 3$/);
  await assert.rejects(join(hub, 7), /there is no other rank 7 in a run of 3$/);
  const second = await join(hub, 2);
  await assert.rejects(join(hub, 2), /is rank 2 already$/);
  const all = [hub, first, second];
  assert.deepEqual(
    await Promise.all(all.map((g) => g.gather("rank", g.rank))),
    Array(3).fill([0, 1, 2]),
  );
  await closeAll(all);
});

test("group: what was refused is told when somebody is missing in the end", async () => {
  const hub = await openHub(2, { connect: 0.5, silence: 0.5 });
  const waiting = assert.rejects(
    hub.barrier("start"),
    /no connection from rank 1 to rank 0, .* \(refused connections: 1 × rank 1: it is in a run of 3 processes, and rank 0 in one of 2\)$/,
  );
  await assert.rejects(join(hub, 1, { size: 3 }));
  await waiting;
});

test("group: garbage from a port scanner is dropped, without harm to the others", async () => {
  const hub = await openHub(2);
  const frame = (text: string) => {
    const head = Buffer.alloc(4);
    head.writeUInt32BE(Buffer.byteLength(text));
    return Buffer.concat([head, Buffer.from(text)]);
  };
  const nonce = "0".repeat(64);
  const garbage = [
    "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    Buffer.from([22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]), // the start of TLS
    randomBytes(4096),
    frame("{"),
    frame("[]"),
    frame("null"),
    frame("{}"),
    frame(JSON.stringify({ protocol: 2, rank: 1, size: 2, nonce })),
    frame(JSON.stringify({ protocol: 1, rank: "1", size: 2, nonce })),
    frame(JSON.stringify({ protocol: 1, rank: 1, size: 2, nonce: "short" })),
    frame(JSON.stringify({ protocol: 1, rank: -1, size: 2, nonce })),
    Buffer.concat([
      frame(JSON.stringify({ protocol: 1, rank: 1, size: 2, nonce })),
      frame(JSON.stringify({ proof: "é".repeat(32) })),
    ]),
    Buffer.concat([
      frame(JSON.stringify({ protocol: 1, rank: 1, size: 2, nonce })),
      frame(JSON.stringify({ proof: nonce })),
    ]),
  ];
  for (const bytes of garbage) {
    const answer = await talk(hub.port, bytes);
    // At most the hub's half of the proof, which is a keyed hash: never a welcome.
    assert.ok(!answer.includes("welcome"), String(answer));
  }
  const member = await join(hub, 1);
  const after = await talk(hub.port, garbage[0]!);
  assert.equal(after.length, 0);
  await closeAll([hub, member]);
});

test("group: connections that say nothing do not keep a rank out", async () => {
  const hub = await openHub(2);
  const silent = Array.from({ length: 300 }, () => talk(hub.port, Buffer.alloc(0)));
  const member = await join(hub, 1);
  await closeAll([hub, member]); // which ends the silent ones, too
  await Promise.all(silent);
});

test("group: another program in rank 0's place is no rank 0", async () => {
  const server = createServer((socket) => socket.end("HTTP/1.1 400 Bad Request\r\n\r\n"));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as { port: number };
  await assert.rejects(
    Member.join(place(1, 2), TOKEN, { addresses: ["127.0.0.1"], port }, PATIENT),
    /^CommError: rank 1 finds another program in place of rank 0 at 127\.0\.0\.1:\d+: it speaks another protocol$/,
  );
  server.close();
});

test("group: a port that is in use is named", async () => {
  const hub = await openHub(2);
  await assert.rejects(
    Hub.open(place(0, 2), TOKEN, hub.port, PATIENT),
    /^CommError: rank 0 cannot listen on port \d+: .*EADDRINUSE/,
  );
  await hub.fail(new Error("end of the test"));
});
