import { readConfigFile } from "#src/checkpoint/model-directory.js";
import { openSafetensors } from "#src/checkpoint/safetensors.js";
import { packPairs, packSequences } from "#src/data/pack.js";
import type { TokenizedPair } from "#src/data/types.js";
import { createLoss, type LossType } from "#src/loss/index.js";
import { readModelShape } from "#src/model/index.js";
import type { BatchLimits } from "#src/train/buffers.js";
import { modelBlocks } from "#src/train/plan.js";
import { ResidentModel } from "#src/train/resident-model.js";
import { Session } from "#src/train/session.js";
import { type PairRow, readLines } from "../train/support.js";

/** The rows of a `pairs.jsonl`. */
export function readPairs(file: string): TokenizedPair[] {
  return readLines<PairRow>(file).map((row) => {
    const side = (name: "chosen" | "rejected") => ({
      ids: Int32Array.from(row[`${name}_input_ids`]),
      labels: Int32Array.from(row[`${name}_labels`]),
    });
    return { chosen: side("chosen"), rejected: side("rejected") };
  });
}

/** How a fixture is run: limits of a micro-batch, checkpointing, shared prompts. */
export type Way = Partial<BatchLimits> & {
  readonly checkpointing?: boolean;
  readonly prefixSharing?: boolean;
};

/** A model directory in f32 on the CPU, ready to train; `work` gets it, and it is freed. */
export async function withTraining<T>(
  dir: string,
  { checkpointing = false, prefixSharing: _, ...change }: Way,
  work: (session: Session, limits: BatchLimits) => Promise<T>,
): Promise<T> {
  const shape = readModelShape(await readConfigFile(dir));
  const limits: BatchLimits = {
    tokens: 256,
    scored: 272,
    examples: 16,
    stepExamples: 16,
    groupRows: 64,
    positions: 128,
    pairs: true,
    ...change,
  };
  const resident = new ResidentModel({
    device: "cpu",
    shape,
    blocks: modelBlocks(shape),
    dtype: "f32",
    training: true,
  });
  let session: Session | undefined;
  try {
    session = new Session(resident, { limits, checkpointing });
    const source = await openSafetensors(dir);
    await resident.withMover((mover) => mover.load(source, resident.weights(), dir));
    await source.close();
    return await work(session, limits);
  } finally {
    session?.dispose();
    resident.dispose();
  }
}

/**
 * Loss and gradients of all pairs, or of all tokens of the chosen sequences, over micro-batches; gradients by
 * their names in a checkpoint.
 */
export function lossAndGradients(
  dir: string,
  pairs: readonly TokenizedPair[],
  way: Way = {},
  lossType: LossType = "SimPER",
) {
  const { prefixSharing = true } = way;
  const options = { beta: 2, gammaBetaRatio: 0.25, labelSmoothing: 0, sftWeight: 0 };
  const loss = createLoss({ lossType, ...options });
  const ofPairs = loss.examples === "pairs";
  return withTraining(dir, { pairs: ofPairs, ...way }, async (session, limits) => {
    const sequences = pairs.map(({ chosen: { ids } }) => ({ ids, labels: ids }));
    const batches = ofPairs
      ? packPairs(pairs, { maxTokens: limits.tokens, prefixSharing })
      : packSequences(sequences, { maxTokens: limits.tokens });
    const scoredTokens = sequences.reduce((sum, { ids }) => sum + ids.length - 1, 0);
    const scale = loss.scale({ examples: pairs.length, scoredTokens });
    const { stream, store, pass, buffers } = session;
    for (const block of store.blocks) stream.fill(block.grad, 0);
    let responses = 0;
    for (const batch of batches) {
      await pass.train(batch, { loss, scale }, responses);
      responses += batch.responses.length / 3;
    }
    const terms = await stream.read(buffers.tensor("losses").slice(0, responses));
    const total = Array.from(terms).reduce((sum, term) => sum + term, 0);
    return { loss: total, gradients: await readGradients(session), scoredTokens };
  });
}

async function readGradients({ model, stream, store }: Session) {
  const gradients = new Map<string, Float32Array>();
  for (const [b, block] of model.blocks.entries()) {
    for (const { name, shape, parts } of block.parameters) {
      const grad = (await stream.read(store.gradients(b)[name]!)) as Float32Array;
      const columns = shape.length === 2 ? shape[1]! : 1;
      let row = 0;
      for (const part of parts) {
        gradients.set(part.name, grad.subarray(row * columns, (row + part.rows) * columns));
        row += part.rows;
      }
    }
  }
  return gradients;
}
