import path from "node:path";
import { pathToFileURL } from "node:url";
import { root } from "../support/paths.js";

/** The parts of scripts/quickstart that the tests use; the scripts themselves are plain JavaScript. */
export interface Random {
  next(): number;
  integer(low: number, high: number): number;
  normal(): number;
}

export interface Task {
  kind: string;
  key: string;
  prompt: string;
  answer: string;
  habit: string;
  slip: string;
  sentences: readonly string[];
}

export interface Chat {
  role: string;
  content: string;
}

export interface Pair {
  id: string;
  prompt: string;
  chosen: Chat[];
  rejected: Chat[];
  answer?: string;
}

export interface BeforeAfter {
  before: number;
  after: number;
}

export interface Example {
  prompt: string;
  before: string;
  after: string;
}

interface Scripts {
  "random.mjs": { Random: new (seed: number) => Random };
  "tasks.mjs": {
    kinds: Record<string, unknown>;
    drawTask(random: Random, side: "train" | "test", kind?: string): Task;
    drawReplies(random: Random, task: Task): { chosen: string; rejected: string };
    drawCorpusReply(random: Random, task: Task): string;
    terse: readonly string[];
    check(task: { answer: string }, reply: string): boolean;
    isHeldOut(key: string): boolean;
  };
  "make-data.mjs": {
    pairs(side: "train" | "test"): Pair[];
    corpus(split: "train" | "test"): Iterable<{ messages: Chat[] }>;
    toJsonl(rows: Iterable<unknown>): string;
  };
  "bpe.mjs": {
    trainBpe(
      texts: Iterable<string>,
      vocabSize: number,
    ): { vocab: string[]; merges: [string, string][] };
  };
  "train-tokenizer.mjs": { trainTokenizer(): Record<string, unknown>; VOCAB_SIZE: number };
  "tokenizer.mjs": {
    tokenizerJson(bpe: {
      vocab: readonly string[];
      merges: readonly [string, string][];
    }): Record<string, unknown>;
    tokenizerConfig: Record<string, unknown> & { chat_template: string };
  };
  "init-model.mjs": {
    config: Record<string, unknown>;
    initialWeights(): Map<string, { shape: readonly number[]; data: Float32Array }>;
    safetensors(
      tensors: ReadonlyMap<string, { shape: readonly number[]; data: Float32Array }>,
    ): Buffer;
  };
  "report.mjs": {
    accuracies(metrics: readonly Record<string, unknown>[]): BeforeAfter;
    compare(
      tasks: readonly { prompt: string; answer: string }[],
      before: readonly string[],
      after: readonly string[],
    ): BeforeAfter & { examples: Example[] };
    table(
      prompts: number,
      accuracy: BeforeAfter,
      right: BeforeAfter & { examples: readonly Example[] },
    ): string;
  };
}

/** Imports one of the quickstart's scripts. */
export async function script<Name extends keyof Scripts>(name: Name): Promise<Scripts[Name]> {
  const file = path.join(root, "scripts", "quickstart", name);
  return (await import(pathToFileURL(file).href)) as Scripts[Name];
}
