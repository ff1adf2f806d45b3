import { randomBytes } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { CommError, ConfigError, isReported, markReported } from "../errors.js";
import {
  Communicator,
  type Device,
  ncclUniqueId,
  openDevice,
  type Stream,
} from "../native/index.js";
import type { ProcessGroup } from "../parallel/group.js";
import { Hub, ownAddresses } from "../parallel/hub.js";
import { Member } from "../parallel/member.js";
import { meetingOf, type Ranks, rankTimeout } from "../parallel/ranks.js";
import type { GroupLimits } from "../parallel/tcp-group.js";

/** The other processes of a run, and what connects this one with them. */
export interface World {
  /** Small agreements between processes, and who is still there. */
  readonly group: ProcessGroup;
  /** Carries tensors. */
  readonly comm: Communicator;
  /** The stream of `comm`. */
  readonly stream: Stream;
}

/** Ranks that a launcher starts together have so many times that long to meet. */
const MEETING_TIMES = 5;
/** How long a failed process may take to put its things away, in milliseconds: then it is killed. */
const UNWIND_MS = 30_000;
/** How long an error of the connection waits for the news of the rank behind it, in milliseconds. */
const NEWS_MS = 2000;
/** Head start of the rank that tells the user: launchers kill all when the first process has failed. */
const HEAD_START_MS = 300;
/** Size of what rank 0 tells the others over MPI: where its hub is. */
const MEETING_BYTES = 2048;

const watchdogs = new WeakMap<ProcessGroup, NodeJS.Timeout>();

/**
 * Meets the other processes of the run: over MPI between CPUs; over TCP at MASTER_ADDR:MASTER_PORT and then NCCL
 * between GPUs. When a rank fails later, everything enqueued on `comm` fails at once.
 *
 * @param device what this rank computes on
 * @param config `ddpTimeout`: bound of one exchange in seconds, and how long processes that were started one by one
 *   may take to come
 * @returns undefined where there are no others
 * @throws CommError when the others do not come or are others than they should be; ConfigError when the environment
 *   does not say where to meet
 */
export async function openWorld(
  ranks: Ranks,
  device: Device,
  config: { readonly ddpTimeout: number },
): Promise<World | undefined> {
  if (ranks.size === 1) return undefined;
  const call = config.ddpTimeout;
  const silence = rankTimeout(process.env);
  const limits = { connect: Math.min(call, MEETING_TIMES * silence), call, silence };
  // Never synchronous: an exchange waits for others, and this thread has to answer them meanwhile.
  const stream = device.stream({ synchronous: false });
  try {
    // The emulated device, which is there for tests, takes the one that its launcher serves.
    const byNccl =
      device.name === "cuda" || (device.name === "emulated" && ranks.launcher === "torchrun");
    const meet = byNccl ? meetOverNccl : meetOverMpi;
    const world = { ...(await meet(ranks, stream, limits)), stream };
    abortOnFailure(world);
    return world;
  } catch (error) {
    stream.dispose();
    throw error;
  }
}

/**
 * Ends a run that has failed on this rank or on another: all ranks come to know, and what is enqueued on `comm` fails.
 * @returns the error to end with: the first rank's, where this one's is but its consequence
 */
export async function failWorld({ comm, group }: World, error: unknown): Promise<unknown> {
  const { failure } = group;
  // A connection breaks when the process at its other end dies: who that was is known a little later.
  if (error instanceof CommError && !failure.aborted) await aborted(failure, NEWS_MS);
  if (!failure.aborted) {
    await group.fail(error);
    comm.abort(error instanceof Error ? error.message : String(error));
    await letOthersTell(error);
    return error;
  }
  const reason = failure.reason as CommError;
  await group.fail(reason);
  if (reason.cause === undefined && error !== reason) reason.cause = error;
  await letOthersTell(reason);
  return reason;
}

/** Waits a little where another rank tells the user of an error. */
export async function letOthersTell(error: unknown): Promise<void> {
  if (isReported(error)) await sleep(HEAD_START_MS);
}

/** Leaves the other processes, in good order where nothing has failed. @throws CommError when others do not. */
export async function closeWorld(world: World): Promise<void> {
  const { comm, group, stream } = world;
  try {
    if (group.failure.aborted) return; // MPI must not be finalized while others expect this rank
    group.doing("its parting");
    // A library that takes leave of the others waits for them, and hears of no failure.
    await orFailure(group, comm.close());
    await group.close();
  } catch (error) {
    throw await failWorld(world, error);
  } finally {
    clearTimeout(watchdogs.get(group));
    stream.dispose();
  }
}

/** Resolves as `work` does, or rejects when the run has failed meanwhile. */
async function orFailure(group: ProcessGroup, work: Promise<void>): Promise<void> {
  const { failure } = group;
  await new Promise<void>((resolve, reject) => {
    const fail = (): void => reject(failure.reason);
    failure.addEventListener("abort", fail, { once: true });
    work.then(resolve, reject).finally(() => failure.removeEventListener("abort", fail));
  });
}

type Connected = Pick<World, "group" | "comm">;

/** MPI's own launcher has said where the others are; the group meets through it. */
async function meetOverMpi(ranks: Ranks, stream: Stream, limits: GroupLimits): Promise<Connected> {
  const { rank, size, launcher } = ranks;
  if (launcher === "torchrun") {
    throw new ConfigError(
      `RANK and WORLD_SIZE make this rank ${rank} of ${size}, and processes that compute on the CPU meet over MPI`,
      { hint: "start them with simper-native train, mpirun or srun --mpi=pmix" },
    );
  }
  // MPI would end the process, with advice for whoever has built it.
  if (launcher === "slurm" && !Object.keys(process.env).some((name) => /^PMI/.test(name))) {
    const hint = "srun --mpi=pmix; `srun --mpi=list` shows what this Slurm can do";
    const error = new ConfigError(`srun started ${size} ranks without MPI`, { hint });
    if (rank > 0) markReported(error);
    throw error;
  }
  const comm = await Communicator.open(stream, {
    engine: "mpi",
    rank,
    size,
    timeoutSeconds: limits.call,
    connectSeconds: limits.connect,
  });
  // A rank that stops now is not in the group yet, where it would be missed.
  const late = setTimeout(() => {
    const silent = rank === 0 ? "another rank" : "rank 0";
    comm.abort(
      `rank ${rank}: ${silent} gave no sign of life within ${limits.connect} s; it is stopped or stuck`,
    );
  }, 1e3 * limits.connect);
  try {
    return { comm, group: await meetThrough(comm, ranks, limits) };
  } catch (error) {
    comm.abort(error instanceof Error ? error.message : String(error));
    throw error;
  } finally {
    clearTimeout(late);
  }
}

/** Rank 0's addresses and a fresh token go to the others through the communicator. */
async function meetThrough(
  comm: Communicator,
  ranks: Ranks,
  limits: GroupLimits,
): Promise<ProcessGroup> {
  if (ranks.rank > 0) {
    const bytes = await comm.broadcastBytes(new Uint8Array(MEETING_BYTES), 0);
    const { token, port, addresses, error } = JSON.parse(Buffer.from(bytes).toString()) as Meeting;
    if (error !== undefined) throw new CommError(`rank 0: ${error}`, { rank: 0 });
    return Member.join(ranks, token, { addresses, port }, limits);
  }
  const token = randomBytes(32).toString("hex");
  try {
    const hub = await Hub.open(ranks, token, 0, limits);
    await comm.broadcastBytes(
      meetingBytes({ token, port: hub.port, addresses: ownAddresses() }),
      0,
    );
    return hub;
  } catch (error) {
    const text = error instanceof Error ? error.message.slice(0, 500) : String(error);
    const bytes = meetingBytes({ token: "", port: 0, addresses: [], error: text });
    await comm.broadcastBytes(bytes, 0).catch(() => {}); // the others hear of it, or find out by themselves
    throw error;
  }
}

/** What rank 0 tells the others over MPI. */
interface Meeting {
  readonly token: string;
  readonly port: number;
  readonly addresses: readonly string[];
  /** Why there is nothing to meet at. */
  readonly error?: string;
}

function meetingBytes(meeting: Meeting): Uint8Array {
  const { addresses } = meeting;
  const text = JSON.stringify(meeting);
  // A host of containers may have hundreds of addresses; its own come before those.
  if (Buffer.byteLength(text) > MEETING_BYTES)
    return meetingBytes({ ...meeting, addresses: addresses.slice(0, -1) });
  return Buffer.from(text.padEnd(MEETING_BYTES));
}

/** Meets at MASTER_ADDR:MASTER_PORT, or through mpirun where it has started the processes; then NCCL. */
async function meetOverNccl(ranks: Ranks, stream: Stream, limits: GroupLimits): Promise<Connected> {
  const { rank, size } = ranks;
  const group = await meetForNccl(ranks, limits);
  try {
    // An addon without NCCL fails here on rank 0 and below on others: all hear of it.
    const own = rank === 0 ? [...ncclUniqueId()] : [];
    const uniqueId = Uint8Array.from(await group.broadcast("NCCL id", own));
    const options = { rank, size, uniqueId, timeoutSeconds: limits.call };
    const { connect: connectSeconds } = limits;
    const comm = await Communicator.open(stream, { engine: "nccl", ...options, connectSeconds });
    return { comm, group };
  } catch (error) {
    await group.fail(error);
    throw group.failure.reason.cause === error ? error : group.failure.reason;
  }
}

async function meetForNccl(ranks: Ranks, bounds: GroupLimits): Promise<ProcessGroup> {
  const { rank, launcher, master } = ranks;
  const limits = launcher === "torchrun" ? { ...bounds, connect: bounds.call } : bounds;
  if (launcher === "openmpi" && master === undefined) return meetByMpirun(ranks, limits);
  const { address, port, token } = meetingOf(ranks);
  return rank === 0
    ? Hub.open(ranks, token, port, limits)
    : Member.join(ranks, token, { addresses: [address], port }, limits);
}

/** MPI carries one message and rests: tensors go by NCCL. */
async function meetByMpirun(ranks: Ranks, limits: GroupLimits): Promise<ProcessGroup> {
  const device = openDevice("cpu", { threads: 1 });
  const stream = device.stream({ synchronous: false });
  try {
    const { comm, group } = await meetOverMpi(ranks, stream, limits);
    await group.barrier("meeting");
    await comm.close();
    return group;
  } finally {
    stream.dispose();
    device.dispose();
  }
}

/** What is under way on the device ends when a rank is gone, and so does a process that does not. */
function abortOnFailure({ comm, group }: World): void {
  const abort = (): void => {
    const { message } = group.failure.reason as CommError;
    comm.abort(message);
    const kill = (): void => {
      process.stderr.write(`simper-native: ${message}; killing process ${process.pid}\n`);
      process.kill(process.pid, "SIGKILL");
    };
    watchdogs.set(group, setTimeout(kill, UNWIND_MS).unref());
  };
  if (group.failure.aborted) abort();
  else group.failure.addEventListener("abort", abort, { once: true });
}

async function aborted(signal: AbortSignal, ms: number): Promise<void> {
  await sleep(ms, undefined, { signal }).catch(() => {});
}
