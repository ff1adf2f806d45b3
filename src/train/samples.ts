import { appendFile } from "node:fs/promises";
import path from "node:path";
import { writeError } from "../checkpoint/files.js";
import type { Config } from "../config/schema.js";
import { loadTokenizer, type Tokenizer } from "../data/tokenizer.js";
import { DataError } from "../errors.js";
import { continueSequences } from "../inference/decode.js";
import { KvCache } from "../inference/kv-cache.js";
import { endOfSequence } from "../inference/loaded-model.js";
import { cutMetrics } from "../report/jsonl.js";
import type { ExampleSet } from "./examples.js";
import type { RunPlan } from "./plan.js";
import { chooseSamples, sampleBatches } from "./sample-prompts.js";
import type { Session } from "./session.js";
import type { StepResults } from "./step-results.js";

/** An answer, as a line of `samples.jsonl` holds it: texts without special tokens. */
export interface SampleRecord {
  /** Optimizer steps done. */
  readonly step: number;
  readonly prompt: string;
  /** What the model answers now. */
  readonly completion: string;
  /** The answers of the data, as far as the length limits leave them. */
  readonly chosen: string;
  readonly rejected: string;
}

/** What answers of a model in training need besides its session. */
export interface SampleTools {
  readonly tokenizer: Tokenizer;
  /** Ids that end an answer. */
  readonly eosIds: readonly number[];
}

/**
 * Reads the tokenizer and the ids that end an answer, before anything is allocated.
 * @param configFields content of the model's config.json
 * @throws DataError when there is no tokenizer.
 */
export async function readSampleTools(
  modelDir: string,
  tokenizerDir: string,
  configFields: Readonly<Record<string, unknown>>,
): Promise<SampleTools> {
  const tokenizer = await loadTokenizer(tokenizerDir).catch((cause: unknown) => {
    if (!(cause instanceof DataError)) throw cause;
    throw new DataError(`generate_during_eval: ${cause.message}`, {
      hint: "samples.jsonl holds texts: copy the model's tokenizer files there, or leave the key out",
      cause,
    });
  });
  return { tokenizer, eosIds: await endOfSequence(modelDir, configFields, tokenizer) };
}

/** What stops generation half-way; never leaves this module. */
class Stopped extends Error {}

/**
 * Answers the same prompts of the test split again and again with the model in training: its weights and
 * buffers, and a key/value cache of its own that lives as long as the run.
 */
export class Samples {
  readonly #session: Session;
  readonly #tools: SampleTools;
  readonly #test: ExampleSet;
  readonly #file: string;
  readonly #maxNewTokens: number;
  readonly #maxTokens: number;
  readonly #batches: ReturnType<typeof sampleBatches>["batches"];
  readonly #keys: KvCache;

  /**
   * @throws DataError when no pair has a prompt; MemoryError when the cache does not fit.
   */
  constructor(
    session: Session,
    tools: SampleTools,
    config: Config,
    test: ExampleSet,
    plan: Pick<RunPlan, "limits">,
  ) {
    const { tokens } = plan.limits;
    const chosen = chooseSamples(config, test);
    if (chosen.prompts.length === 0) {
      throw new DataError(
        "generate_during_eval: expected pairs with a prompt in the test split, found none",
        { hint: "give the rows a prompt, or leave the key out" },
      );
    }
    const { batches, cacheRows } = sampleBatches(chosen, plan.limits);
    this.#session = session;
    this.#tools = tools;
    this.#test = test;
    this.#file = samplesFile(config.outputDir);
    this.#maxNewTokens = chosen.maxNewTokens;
    this.#maxTokens = tokens;
    this.#batches = batches;
    this.#keys = new KvCache(session, session.model.shape, cacheRows, tokens);
  }

  /**
   * Answers all prompts and appends them to the file in one write; false: stopped, nothing was written. Every rank
   * answers them, because the weights may be shared out, and one writes.
   */
  async write(
    step: number,
    results: Pick<StepResults, "ask" | "stopped">,
    writes: boolean,
  ): Promise<boolean> {
    const records: SampleRecord[] = [];
    for (const batch of this.#batches) {
      await results.ask();
      const sequences = batch.map(({ prompt, cache }, row) => ({ row, prompt, cache, answer: [] }));
      try {
        await continueSequences(this.#session, this.#session.model.shape, this.#keys, sequences, {
          maxNewTokens: this.#maxNewTokens,
          maxTokens: this.#maxTokens,
          eosIds: this.#tools.eosIds,
          beforePass: () => {
            if (results.stopped()) throw new Stopped();
          },
        });
      } catch (error) {
        if (error instanceof Stopped) return false;
        throw error;
      }
      batch.forEach(({ example }, i) => {
        const { prompt, chosen, rejected } = this.#test.parts!(example);
        const completion = sequences[i]!.answer;
        const ids = { prompt, completion, chosen, rejected };
        records.push({ step, ...this.#texts(ids) });
      });
    }
    if (!writes) return true;
    const lines = records.map((record) => `${JSON.stringify(record)}\n`).join("");
    await appendFile(this.#file, lines).catch((error: unknown) => {
      throw writeError(this.#file, error);
    });
    return true;
  }

  /** Frees the cache. */
  dispose(): void {
    this.#keys.dispose();
  }

  #texts<Name extends string>(ids: Record<Name, Iterable<number>>): Record<Name, string> {
    const decode = (list: Iterable<number>) =>
      this.#tools.tokenizer.decode(list, { skipSpecialTokens: true });
    const entries = Object.entries<Iterable<number>>(ids).map(([name, list]) => [
      name,
      decode(list),
    ]);
    return Object.fromEntries(entries) as Record<Name, string>;
  }
}

/** Where answers go. */
export function samplesFile(outputDir: string): string {
  return path.join(outputDir, "samples.jsonl");
}

/**
 * Leaves the answers up to `evaluatedStep`, the last step that the checkpoint of a resumed run has an evaluation
 * of (-1: none, or the run starts anew).
 * @throws CheckpointError when the file cannot be written.
 */
export function cutSamples(outputDir: string, evaluatedStep: number): void {
  const file = samplesFile(outputDir);
  try {
    cutMetrics(file, evaluatedStep);
  } catch (error) {
    throw writeError(file, error);
  }
}
