import type { Config } from "../config/schema.js";
import { CommError } from "../errors.js";
import type { Communicator, Device, Stream } from "../native/index.js";
import type { ProcessGroup } from "../parallel/group.js";
import type { Ranks } from "../parallel/ranks.js";

/** The other processes of a run, and what connects this one with them. */
export interface World {
  /** Small agreements between processes, and who is still there. */
  readonly group: ProcessGroup;
  /** Carries tensors. */
  readonly comm: Communicator;
  /** The stream of `comm`. */
  readonly stream: Stream;
}

/** Meets the other processes of the run; undefined where there are none. @throws CommError */
export async function openWorld(
  ranks: Ranks,
  _device: Device,
  _config: Config,
): Promise<World | undefined> {
  if (ranks.size === 1) return undefined;
  throw new CommError(`rank ${ranks.rank} of ${ranks.size}: several processes cannot meet yet`);
}

/** Leaves the other processes, in good order where nothing has failed. */
export async function closeWorld({ comm, group, stream }: World): Promise<void> {
  if (!group.failure.aborted) {
    await comm.close();
    await group.close();
  }
  stream.dispose();
}
