import { createConnection } from "node:net";
import type { ProcessGroup } from "#src/parallel/group.js";
import { Hub } from "#src/parallel/hub.js";
import { Member } from "#src/parallel/member.js";
import type { GroupLimits } from "#src/parallel/tcp-group.js";

/** A run's secret. */
export const TOKEN = "correct horse battery staple";

/** Bounds that no test reaches unless it wants to, on a machine that is busy with others. */
export const PATIENT: GroupLimits = { connect: 60, silence: 60, call: 60 };

/** Place of a rank on one machine. */
export function place(rank: number, size: number) {
  return { rank, size, localRank: rank, localSize: size };
}

/** Rank 0 listening on a port that is free. */
export function openHub(size: number, limits: Partial<GroupLimits> = {}): Promise<Hub> {
  return Hub.open(place(0, size), TOKEN, 0, { ...PATIENT, ...limits });
}

/** Another rank of the hub's run. */
export function join(
  hub: Hub,
  rank: number,
  change: { size?: number; token?: string; limits?: Partial<GroupLimits> } = {},
): Promise<Member> {
  const { size = hub.size, token = TOKEN, limits } = change;
  const at = { addresses: ["127.0.0.1"], port: hub.port };
  return Member.join(place(rank, size), token, at, { ...PATIENT, ...limits });
}

/** All ranks of a run in this process, connected over the loopback interface. */
export async function openGroups(
  size: number,
  limits: Partial<GroupLimits> = {},
): Promise<ProcessGroup[]> {
  const hub = await openHub(size, limits);
  const others = Array.from({ length: size - 1 }, (_, i) => join(hub, i + 1, { limits }));
  return [hub, ...(await Promise.all(others))];
}

/** The reason of a group's failure, once it has one. */
export async function failureOf(group: ProcessGroup): Promise<Error> {
  const { failure } = group;
  if (!failure.aborted)
    await new Promise((resolve) => failure.addEventListener("abort", resolve, { once: true }));
  return failure.reason as Error;
}

/** Sends bytes to a port; resolves with all that came back once the other side has closed. */
export async function talk(port: number, bytes: Uint8Array | string): Promise<Buffer> {
  const socket = createConnection({ host: "127.0.0.1", port });
  socket.on("error", () => {});
  if (bytes.length > 0) socket.write(bytes);
  const parts: Buffer[] = [];
  socket.on("data", (part: Buffer) => parts.push(part));
  await new Promise((resolve) => socket.once("close", resolve));
  return Buffer.concat(parts);
}
