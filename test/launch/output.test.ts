import assert from "node:assert/strict";
import { test } from "node:test";
import { createTagReader } from "#src/launch/openmpi-output.js";
import { createRankOutput } from "#src/launch/output.js";

/** Rank texts and mpirun's messages from its output, cut into pieces of these sizes. */
function read(text: string, size: number): { ranks: Map<number, string>; mpirun: string[] } {
  const ranks = new Map<number, string>();
  const mpirun: string[] = [];
  const reader = createTagReader((piece) => {
    if ("mpirun" in piece) mpirun.push(piece.mpirun);
    else ranks.set(piece.rank, (ranks.get(piece.rank) ?? "") + piece.text);
  });
  const bytes = Buffer.from(text).toString("latin1");
  for (let at = 0; at < bytes.length; at += size) reader.feed(bytes.slice(at, at + size));
  reader.end();
  for (const [rank, said] of ranks) ranks.set(rank, Buffer.from(said, "latin1").toString());
  return { ranks, mpirun };
}

const rule = `${"-".repeat(74)}\n`;

test("launch: mpirun's output is taken apart wherever it is cut", () => {
  const text =
    "[1,1]<stderr>:half[1,0]<stderr>:step 3/9\n" +
    "[1,1]<stderr>: a line — [x,1] mpi\n" +
    "[1,12]<stdout>:m\nmpirun: Forwarding signal 12 to job\n[1,0]<stderr>:\rlive" +
    `${rule}mpirun noticed that process rank 1 with PID 0 on node vm exited on signal 9 (Killed).\n${rule}` +
    "[1,0]<stderr>:[end]";
  for (const size of [1, 2, 3, 7, 16, 50, 1000]) {
    const { ranks, mpirun } = read(text, size);
    assert.deepEqual(
      Object.fromEntries(ranks),
      {
        0: "step 3/9\n\rlive[end]",
        1: "half a line — [x,1] mpi\n",
        12: "m\n",
      },
      `in pieces of ${size}`,
    );
    assert.deepEqual(mpirun, [
      "mpirun noticed that process rank 1 with PID 0 on node vm exited on signal 9 (Killed).\n",
    ]);
  }
});

test("launch: a table that a rank draws with dashes is not taken for a message of mpirun", () => {
  const { ranks, mpirun } = read(
    `[1,0]<stderr>:op   ms\n[1,0]<stderr>:${rule}[1,0]<stderr>:matmul 3\n[1,0]<stderr>:${rule}[1,0]<stderr>:end\n`,
    5,
  );
  assert.equal(ranks.get(0), `op   ms\n${rule}matmul 3\n${rule}end\n`);
  assert.deepEqual(mpirun, []);
});

function output(live: boolean) {
  let written = "";
  const ranks = createRankOutput({
    live,
    write: (text) => {
      written += text;
    },
  });
  return {
    ...ranks,
    say: (rank: number, text: string) => ranks.feed(rank, Buffer.from(text)),
    written: () => written,
  };
}

test("launch: rank 0's lines are as they are, the others' say whose they are, and none is cut", () => {
  const { say, written, end } = output(false);
  say(0, "one\ntw");
  say(2, "alpha\nbe");
  say(0, "o\r\n");
  say(2, "ta\nrest");
  end();
  assert.equal(written(), "one\n[rank 2] alpha\ntwo\n[rank 2] beta\n[rank 2] rest\n");
});

test("launch: a character that arrives in two pieces stays one", () => {
  const { feed, written } = output(false);
  const bytes = Buffer.from("5 €\n");
  feed(1, bytes.subarray(0, 3));
  feed(1, bytes.subarray(3));
  assert.equal(written(), "[rank 1] 5 €\n");
});

test("launch: an error that several ranks found is told once, other errors and other lines each", () => {
  const { say, written } = output(false);
  const error = "simper-native: data.jsonl:3: no prompt\n  Look there.\n";
  say(1, error);
  say(0, error);
  say(2, `${error}after it\n`);
  say(2, "simper-native: rank 2 has no memory\n");
  assert.equal(
    written(),
    "[rank 1] simper-native: data.jsonl:3: no prompt\n[rank 1]   Look there.\n" +
      "[rank 2] after it\n[rank 2] simper-native: rank 2 has no memory\n",
  );
});

/** What a terminal shows of a text: a line is what stands on it in the end. */
function screen(text: string): string[] {
  const lines = [""];
  // Each return comes with an order to clear the line.
  for (const part of text.replaceAll("\r\x1b[K", "\r").split(/([\r\n])/)) {
    if (part === "\n") lines.push("");
    else if (part === "\r") lines[lines.length - 1] = "";
    else lines[lines.length - 1] += part;
  }
  return lines;
}

test("launch: on a terminal rank 0's progress is the last line, below what the others say", () => {
  const { say, written, end } = output(true);
  say(0, "\r\x1b[K3 steps\n");
  say(0, "\r\x1b[Kstep 1/3");
  say(1, "a notice\n");
  assert.deepEqual(screen(written()), ["3 steps", "[rank 1] a notice", "step 1/3"]);
  say(0, "\r\x1b[Kstep 2/3");
  say(0, "\r\x1b[Kanother notice\nstep 2/3");
  say(0, "\ndone\n");
  end();
  assert.deepEqual(screen(written()), [
    ...["3 steps", "[rank 1] a notice", "another notice", "step 2/3", "done", ""],
  ]);
});
