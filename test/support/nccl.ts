import { existsSync } from "node:fs";
import path from "node:path";
import { addonInfo } from "#src/native/index.js";
import { TEST_DEVICES } from "../ops/harness/devices.js";

// Tests of what goes through NCCL run on GPUs (SIMPER_TEST_DEVICES=cuda, all ranks on the first one), or on the
// emulated device with a library of our own in NCCL's place (`npm run test:emulator` builds both).

/** The device of these tests. */
export const ncclDevice = TEST_DEVICES[0]!;

const folder = path.dirname(process.env.SIMPER_NATIVE_BINDING ?? "");
const library = path.join(folder, "simper_fake_nccl.so");

/** What ranks need in their environment. Newer versions of NCCL let ranks share a GPU where they are told to. */
export const ncclEnvironment: Record<string, string> =
  ncclDevice === "emulated" ? { SIMPER_NCCL: library } : { NCCL_MULTI_RANK_GPU_ENABLE: "1" };

/** Why NCCL cannot be used, for `test(…, { skip })`; false where it can. */
export const noNccl: string | false = cannotRun();

/** Whether a run failed because this NCCL does not let ranks share a GPU. */
export function refusesToShare(stderr: string): boolean {
  return ncclDevice === "cuda" && /invalid usage|Duplicate GPU/i.test(stderr);
}

function cannotRun(): string | false {
  if (ncclDevice === "cpu") return "needs a GPU, or the emulated device: npm run test:emulator";
  if (ncclDevice === "emulated") return existsSync(library) ? false : `${library} is not there`;
  const found = addonInfo().backends.find(({ name }) => name === "NCCL");
  return found?.available ? false : `NCCL: ${found?.detail}`;
}
