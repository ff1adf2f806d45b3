import path from "node:path";
import { handOver, publish, writeFileAtomic } from "../checkpoint/files.js";
import {
  type ConfigFile,
  removeOtherWeights,
  writeModelFiles,
} from "../checkpoint/model-directory.js";
import { SafetensorsWriter } from "../checkpoint/safetensors-writer.js";
import { planShards, type Shard } from "../checkpoint/shards.js";
import { Together } from "../checkpoint/together.js";
import { fileEntry, type StoredPiece, type WeightMover } from "../checkpoint/weights.js";
import type { Config } from "../config/schema.js";
import { type DType, elementCount } from "../native/index.js";
import { type ProcessGroup, soloGroup } from "../parallel/group.js";
import type { BlockTensors } from "../parallel/store.js";
import type { ResidentModel } from "./resident-model.js";

/** Largest file of a model, in bytes, as transformers cuts them. */
const MAX_SHARD_BYTES = 5e9;
const INDEX = "model.safetensors.index.json";

/**
 * Writes weights, config, tokenizer and chat template of a complete HF model directory. Of several ranks all call
 * it; none of them holds the whole model.
 *
 * @throws CheckpointError or CommError on every rank when one of them cannot write; the weights that were in the
 *   folder are then still there.
 */
export async function saveModel(
  model: ResidentModel,
  folder: string,
  source: ConfigFile,
  config: Pick<Config, "saveDtype">,
  group: ProcessGroup = soloGroup(),
  maxShardBytes = MAX_SHARD_BYTES,
): Promise<void> {
  const together = new Together(group, folder);
  await together.lead(() => writeModelFiles(folder, source, config.saveDtype));
  const dtype = config.saveDtype === "float32" ? "f32" : "bf16";
  if (group.size > 1) return saveShared(model, folder, dtype, together, maxShardBytes);
  await together.agree("config and tokenizer");
  const { files, index } = await model.withMover(
    (mover) => mover.save(folder, model.weights(), dtype, maxShardBytes),
    "state",
  );
  await nameFiles(folder, files, index);
}

/** Writes the index and removes what an earlier save left. */
async function nameFiles(folder: string, files: string[], index: object | undefined) {
  const indexFile = path.join(folder, INDEX);
  if (index) await writeFileAtomic(indexFile, `${JSON.stringify(index, null, 2)}\n`);
  await removeOtherWeights(folder, index ? [...files, indexFile] : files);
}

/** A file under its temporary name. */
interface SealedFile {
  readonly file: string;
  readonly temporary: string;
}

/**
 * File k is written by rank k mod N. Blocks are gathered one after another, on all ranks; the one whose file it is
 * writes its part, and forces a finished file to disk while the others go on.
 */
async function saveShared(
  model: ResidentModel,
  folder: string,
  dtype: DType,
  together: Together,
  maxShardBytes: number,
): Promise<void> {
  const { group } = together;
  const tensors = wholeTensors(model);
  const entries = [...tensors.values()].map(({ piece }) => fileEntry(piece, { dtype }));
  const plan = planShards(entries, maxShardBytes);
  const writers: SafetensorsWriter[] = [];
  const sealing: Promise<SealedFile | undefined>[] = [];
  try {
    await model.withMover(async (mover) => {
      for (const [k, shard] of plan.shards.entries()) {
        const file = path.join(folder, shard.file);
        const mine = k % group.size === group.rank;
        const writer = mine
          ? await together.attempt(() => SafetensorsWriter.create(file, shard.entries))
          : undefined;
        if (writer) writers.push(writer);
        for (const [block, names] of blocksOf(shard, tensors)) {
          const gathered = await model.store.gatherMasters(block);
          if (!writer) continue;
          const pieces = names.map((name) => gatheredPiece(tensors.get(name)!, gathered));
          await together.attempt(() => writeAll(mover, writer, pieces, dtype));
        }
        if (writer) {
          const seal = async () => ({ file, temporary: await writer.seal() });
          sealing.push(together.attempt(seal));
        }
      }
      await model.stream.done();
    });
    const sealed = (await Promise.all(sealing)).filter((file) => file !== undefined);
    const files = (await together.agree("files of the model", sealed)).flat();
    await together.lead(async () => {
      for (const { file, temporary } of files) await publish(temporary, file);
      const names = plan.shards.map((shard) => path.join(folder, shard.file));
      await nameFiles(folder, names, plan.index);
    });
    await together.agree("publication of the model");
    for (const { temporary } of sealed) handOver(temporary);
  } catch (error) {
    await Promise.allSettled(sealing);
    await Promise.allSettled(writers.map((writer) => writer.abort()));
    throw error;
  }
}

async function writeAll(
  mover: WeightMover,
  writer: SafetensorsWriter,
  pieces: readonly StoredPiece[],
  dtype: DType,
): Promise<void> {
  for (const piece of pieces) await mover.write(writer, piece, dtype);
}

/** A checkpoint tensor as a whole, and the parameter that it is a part of. */
interface WholeTensor {
  readonly block: number;
  readonly parameter: string;
  /** `at`: where it begins in the parameter. */
  readonly piece: Omit<StoredPiece, "tensors">;
}

/** All tensors of the model by name, in the order of its blocks. */
function wholeTensors({ blocks }: ResidentModel): Map<string, WholeTensor> {
  const tensors = new Map<string, WholeTensor>();
  for (const [block, { parameters }] of blocks.entries()) {
    for (const { name: parameter, shape: extents, parts } of parameters) {
      let at = 0;
      for (const { name, rows } of parts) {
        const shape = [rows, ...extents.slice(1)];
        const end = elementCount(shape);
        tensors.set(name, { block, parameter, piece: { name, shape, begin: 0, end, at } });
        at += end;
      }
    }
  }
  return tensors;
}

function gatheredPiece({ piece, parameter }: WholeTensor, gathered: BlockTensors): StoredPiece {
  return { ...piece, tensors: [gathered[parameter]!] };
}

/** The blocks that a file's tensors are in, one after another. */
function blocksOf(shard: Shard, tensors: ReadonlyMap<string, WholeTensor>): Map<number, string[]> {
  const blocks = new Map<number, string[]>();
  for (const { name } of shard.entries) {
    const { block } = tensors.get(name)!;
    blocks.set(block, [...(blocks.get(block) ?? []), name]);
  }
  return blocks;
}
