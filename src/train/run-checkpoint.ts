import { readdir, readFile } from "node:fs/promises";
import path from "node:path";
import { writeFileAtomic } from "../checkpoint/files.js";
import type { ConfigFile } from "../checkpoint/model-directory.js";
import { openPieces, type TensorSource } from "../checkpoint/piece-source.js";
import { pieceFile, pieceIndex, pieceIndexFile } from "../checkpoint/pieces.js";
import { openSafetensors } from "../checkpoint/safetensors.js";
import { Together, writeDirectoryTogether } from "../checkpoint/together.js";
import type { WeightMover } from "../checkpoint/weights.js";
import type { Config } from "../config/schema.js";
import { CheckpointError } from "../errors.js";
import { type ProcessGroup, soloGroup } from "../parallel/group.js";
import type { StateKind } from "../parallel/store.js";
import type { ResidentModel } from "./resident-model.js";
import { saveModel } from "./save-model.js";

export { saveModel };

/** What a resumed run must agree on with the run that wrote the checkpoint, and where that run stood. */
export interface RunState {
  /** Raised when the meaning of a field changes. */
  readonly format: 1;
  /** Optimizer steps done; with the seed they are the position in the data, too. */
  readonly step: number;
  /** The last step whose evaluation is in the metrics; -1: none. */
  readonly evaluatedStep: number;
  readonly seed: number;
  readonly shuffle: boolean;
  /** How the data set is ordered before the epochs' orders; checkpoints that do not say have the files' order. */
  readonly poolOrder: "files" | "numpy-42";
  /** Rules the rows were rendered and tokenized by; checkpoints that do not say have the reference's. */
  readonly dataSemantics: Config["dataSemantics"];
  readonly examples: number;
  readonly examplesPerStep: number;
  readonly lossType: string;
  /** What the loss depends on, by the recipe's keys; absent in checkpoints of earlier versions: nothing. */
  readonly lossOptions?: Readonly<Record<string, number>>;
  readonly bf16: boolean;
  readonly prefixSharing: boolean;
  /** Tokens per micro-batch: packing decides the order of sums, so a resumed run keeps it. */
  readonly maxTokens: number;
  readonly totalSteps: number;
  /** Processes that wrote it; absent: one. */
  readonly ranks?: number;
  /** How much they shared, for people: any stage reads what another wrote. */
  readonly zeroStage?: number;
  /** The recipe's examples per optimizer step and process; absent: `examplesPerStep` over `ranks`. */
  readonly examplesPerRank?: number;
  /** How the best evaluation is chosen; absent: it is not. */
  readonly bestBy?: string;
}

/** Fields that a resumed run may not change, in the recipe's words. */
const fixed = {
  seed: "seed",
  shuffle: "shuffle",
  poolOrder: "order of the data set",
  dataSemantics: "data_semantics",
  examples: "number of training examples",
  examplesPerStep: "examples per optimizer step",
  lossType: "loss_type",
  bf16: "bf16",
} as const satisfies Partial<Record<keyof RunState, string>>;

const STATE_FILE = "run_state.json";
const OPTIMIZER = "optimizer";
const prefixes = { master: "master.", m: "exp_avg.", v: "exp_avg_sq." } as const;

/** A checkpoint that a run can go on from. */
export interface Checkpoint {
  readonly dir: string;
  readonly state: RunState;
  /** Content of HF's trainer_state.json. */
  readonly trainerState: string;
}

/** Steps of the complete checkpoints in a folder, ascending. */
export async function listCheckpoints(outputDir: string): Promise<{ step: number; dir: string }[]> {
  const names = await readdir(outputDir).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT" || error.code === "ENOTDIR") return [];
    throw error;
  });
  return names
    .flatMap((name) => {
      const match = /^checkpoint-(\d+)$/.exec(name);
      return match ? [{ step: Number(match[1]), dir: path.join(outputDir, name) }] : [];
    })
    .sort((a, b) => a.step - b.step);
}

/**
 * The checkpoint that the recipe names: a folder, or with `true` the newest one in output_dir (none there:
 * undefined, the run starts anew).
 *
 * @throws CheckpointError when the folder is no checkpoint of ours.
 */
export async function findCheckpoint(config: Config): Promise<Checkpoint | undefined> {
  const { resumeFromCheckpoint: wanted, outputDir } = config;
  if (wanted === false) return undefined;
  const dir = wanted === true ? (await listCheckpoints(outputDir)).at(-1)?.dir : wanted;
  if (dir === undefined) return undefined;
  const read = (name: string) =>
    readFile(path.join(dir, name), "utf8").catch((cause) => {
      throw new CheckpointError(
        `${path.join(dir, name)}: cannot be read: ${(cause as Error).message}`,
        {
          hint: "resume_from_checkpoint must name a checkpoint-<step> folder that this trainer wrote, or be true",
          cause,
        },
      );
    });
  const parsed = async (name: string): Promise<{ text: string; fields: object }> => {
    const text = await read(name);
    try {
      const fields: unknown = JSON.parse(text);
      if (typeof fields === "object" && fields !== null) return { text, fields };
    } catch {
      // Said below, as for JSON of another kind.
    }
    throw new CheckpointError(`${path.join(dir, name)}: expected a JSON object; it is damaged`, {
      hint: "resume from another checkpoint-<step> of the run",
    });
  };
  const state = (await parsed(STATE_FILE)).fields as RunState;
  if (state.format !== 1) {
    throw new CheckpointError(`${path.join(dir, STATE_FILE)}: format ${state.format}, expected 1`, {
      hint: "resume it with the version of simper-native that wrote it",
    });
  }
  return { dir, state, trainerState: (await parsed("trainer_state.json")).text };
}

/** @throws CheckpointError naming every setting that differs between the run and the checkpoint. */
export function checkAgreement(
  checkpoint: Checkpoint,
  now: Omit<RunState, "step" | "evaluatedStep">,
): void {
  const older: Partial<RunState> = { poolOrder: "files", dataSemantics: "reference" };
  const saved: Partial<RunState> = { ...older, ...checkpoint.state };
  const differences = (Object.keys(fixed) as (keyof typeof fixed)[])
    .filter((key) => saved[key] !== now[key])
    .map((key) => `${fixed[key]} was ${saved[key]} and is now ${now[key]}`);
  const [before, after] = [checkpoint.state.lossOptions ?? {}, now.lossOptions ?? {}];
  for (const name of new Set([...Object.keys(before), ...Object.keys(after)])) {
    if (before[name] === after[name] || checkpoint.state.lossType !== now.lossType) continue;
    differences.push(`${name} was ${before[name] ?? "unset"} and is now ${after[name] ?? "unset"}`);
  }
  const [ruleBefore, ruleNow] = [checkpoint.state.bestBy, now.bestBy];
  if (ruleBefore && ruleNow && ruleBefore !== ruleNow) {
    differences.push(`metric_for_best_model was ${ruleBefore}, and is now ${ruleNow}`);
  }
  if (checkpoint.state.step > now.totalSteps) {
    differences.push(
      `it stands after step ${checkpoint.state.step}, beyond the run's ${now.totalSteps} steps`,
    );
  }
  if (differences.length === 0) return;
  throw new CheckpointError(`${checkpoint.dir} belongs to another run: ${differences.join("; ")}`, {
    hint: "restore those settings, or train anew with --resume_from_checkpoint false",
  });
}

/**
 * Writes `checkpoint-<step>/`: the model, the optimizer and where the run stands. It appears complete or not at all.
 * Of several ranks all call it, and each writes the part of the optimizer that it answers for.
 *
 * @throws CheckpointError or CommError on every rank when one of them cannot write its part.
 */
export async function saveCheckpoint(
  model: ResidentModel,
  state: RunState,
  trainerState: string,
  source: ConfigFile,
  config: Config,
  group: ProcessGroup = soloGroup(),
): Promise<string> {
  const target = checkpointDir(config.outputDir, state.step);
  await writeDirectoryTogether(group, target, async (folder, together) => {
    await saveModel(model, folder, source, config, group);
    // The f32 weights are in the model file unless they were rounded on the way.
    const exact = !config.bf16 && config.saveDtype === "float32";
    const kinds = exact ? (["m", "v"] as const) : (["master", "m", "v"] as const);
    await saveOptimizer(model, folder, kinds, together);
    await together.lead(async () => {
      await writeFileAtomic(path.join(folder, "trainer_state.json"), trainerState);
      await writeFileAtomic(path.join(folder, STATE_FILE), toText(state));
    });
  });
  return target;
}

/** One process: a file of whole tensors. Several: a file of flat pieces from each, and an index. */
async function saveOptimizer(
  model: ResidentModel,
  folder: string,
  kinds: readonly StateKind[],
  together: Together,
): Promise<void> {
  const { rank, size } = together.group;
  const own = kinds.flatMap((kind) => model.optimizerState(kind, prefixes[kind], "own"));
  const pieces = size > 1;
  const name = pieces ? pieceFile(OPTIMIZER, rank, size) : `${OPTIMIZER}.safetensors`;
  const written = pieces ? own.filter(({ begin, end }) => end > begin) : own;
  await together.attempt(() =>
    model.withMover(
      (mover) => mover.saveFile(path.join(folder, name), written, { dtype: "f32", pieces }),
      "state",
    ),
  );
  await together.agree("optimizer state");
  if (!pieces) return;
  await together.lead(async () => {
    const piecesOf = (other: number) =>
      kinds.flatMap((kind) => model.statePieces(prefixes[kind], other));
    const index = pieceIndex(OPTIMIZER, size, piecesOf);
    await writeFileAtomic(path.join(folder, pieceIndexFile(OPTIMIZER)), toText(index));
  });
}

function toText(value: object): string {
  return `${JSON.stringify(value, null, 2)}\n`;
}

/** Folder of the checkpoint after `step`. */
export function checkpointDir(outputDir: string, step: number): string {
  return path.join(outputDir, `checkpoint-${step}`);
}

/**
 * Reads weights and optimizer state back, bit for bit: each rank what it holds, whatever number of ranks wrote them.
 *
 * @throws CheckpointError on every rank when one cannot.
 */
export function restoreCheckpoint(
  model: ResidentModel,
  dir: string,
  group: ProcessGroup = soloGroup(),
): Promise<void> {
  return restore(model, dir, true, group);
}

/** As {@link restoreCheckpoint}, weights alone; the moments stay as they are. */
export function restoreWeights(
  model: ResidentModel,
  dir: string,
  group: ProcessGroup = soloGroup(),
): Promise<void> {
  return restore(model, dir, false, group);
}

async function restore(
  model: ResidentModel,
  dir: string,
  withMoments: boolean,
  group: ProcessGroup,
): Promise<void> {
  const together = new Together(group, dir);
  await together.attempt(async () => {
    const optimizer = await openPieces(dir, OPTIMIZER);
    try {
      await model.withMover(
        (mover) => readState(model, optimizer, dir, withMoments, mover),
        "state",
      );
    } finally {
      await optimizer.close();
    }
  });
  await together.agree("reading of the checkpoint");
  await model.store.shareWeights();
}

async function readState(
  model: ResidentModel,
  optimizer: TensorSource,
  dir: string,
  withMoments: boolean,
  mover: WeightMover,
): Promise<void> {
  const weights = await openSafetensors(dir);
  try {
    const moments = withMoments
      ? [...model.optimizerState("m", prefixes.m), ...model.optimizerState("v", prefixes.v)]
      : [];
    const exact = optimizer.names().some((name) => name.startsWith(prefixes.master));
    const masters = model.optimizerState("master", prefixes.master);
    const wanted = exact ? [...masters, ...moments] : moments;
    const left = (name: string) => !withMoments && /^exp_avg(_sq)?\./.test(name);
    if (wanted.length > 0) await mover.load(optimizer, wanted, optimizer.where, left);
    if (!exact) await mover.load(weights, model.weights(), dir);
  } finally {
    await weights.close();
  }
}
