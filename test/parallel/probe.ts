// One rank of a run as a process: does what it is told over IPC and tells what becomes of it. See
// group-processes.test.ts.   probe.js <rank> <size> <port> <silence seconds>

import { isReported } from "#src/errors.js";
import type { ProcessGroup } from "#src/parallel/group.js";
import { Hub } from "#src/parallel/hub.js";
import { Member } from "#src/parallel/member.js";
import { place, TOKEN } from "./support.js";

const [rank = 0, size = 1, port = 0, silence = 60] = process.argv.slice(2).map(Number);
const limits = { connect: 60, silence, call: 60 };

let group: ProcessGroup;
if (rank === 0) {
  const hub = await Hub.open(place(0, size), TOKEN, 0, limits);
  process.send?.({ port: hub.port });
  group = hub;
} else {
  const at = { addresses: ["127.0.0.1"], port };
  group = await Member.join(place(rank, size), TOKEN, at, limits);
}
process.on("message", async ({ call, what }: { call: string; what: string }) => {
  if (call === "doing") group.doing(what);
  if (call === "barrier")
    await group.barrier(what).then(
      () => process.connected && process.send?.({ passed: what }),
      () => {},
    );
  if (call === "fail") await group.fail(new Error(what));
  if (call === "close") await group.close();
  if (call === "exit") process.exit(Number(what));
  if (call === "throw") throw new Error(what);
  if (call === "block") Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, Number(what));
  if (call === "leave") process.disconnect();
});
group.failure.addEventListener("abort", () => {
  const { message, rank } = group.failure.reason;
  process.send?.({ message, rank, reported: isReported(group.failure.reason) });
});
await group.barrier("start");
process.send?.({ started: true });
