import type { Communicator, Stream } from "../native/index.js";
import type { ProcessGroup } from "../parallel/group.js";

/** The other processes of a run, and what connects this one with them. */
export interface World {
  /** Small agreements between processes, and who is still there. */
  readonly group: ProcessGroup;
  /** Carries tensors. */
  readonly comm: Communicator;
  /** The stream of `comm`. */
  readonly stream: Stream;
}
