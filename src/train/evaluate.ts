import { toRecipeKey } from "../config/names.js";
import type { Config } from "../config/schema.js";
import { DataError } from "../errors.js";
import type { Loss } from "../loss/index.js";
import type { ProcessGroup } from "../parallel/group.js";
import type { EvalRecord } from "../report/records.js";
import type { ExampleSet } from "./examples.js";
import { sftShares, stepLoss } from "./loss-groups.js";
import { responseMetrics } from "./metrics.js";
import type { Session } from "./session.js";
import type { StepResults } from "./step-results.js";

/** What an evaluation found. */
export interface Evaluation {
  readonly record: EvalRecord;
  /** The examples whose log-prob or loss is not finite: how many, and where the first one stands. */
  readonly nonFinite?: { readonly count: number; readonly first: string };
}

/**
 * Loss and metrics over a whole split: means over its pairs (or scored tokens), whatever the batches.
 * Work already enqueued runs first; the weights are not touched. Between rounds a run that is to stop gives up and
 * returns undefined.
 *
 * @param results brings the results of a round to all ranks
 * @param group the processes that share the evaluation
 * @param options.round examples uploaded per round trip
 * @param options.groupSize pairs of a loss group, and of a step as `eval_steps_per_second` counts
 */
export async function evaluate(
  session: Session,
  results: StepResults,
  group: ProcessGroup,
  examples: ExampleSet,
  loss: Loss,
  options: {
    readonly maxTokens: number;
    readonly round: number;
    readonly groupSize: number;
  },
  at: { readonly step: number; readonly epoch: number },
): Promise<Evaluation | undefined> {
  const pairs = loss.examples === "pairs";
  const started = performance.now();
  const means: Float32Array[] = [];
  const terms: Float32Array[] = [];
  const members: number[] = [];
  const whole = stepLoss(loss, examples, options.groupSize);
  const shares: number[] | undefined = whole.weights && [];
  for (let begin = 0; begin < examples.count; begin += options.round) {
    if (results.stopped()) return undefined;
    const count = Math.min(options.round, examples.count - begin);
    const indices = Int32Array.from({ length: count }, (_, i) => begin + i);
    const weights = whole.weights?.subarray(begin, begin + count);
    const packed = examples.pack(indices, options.maxTokens, group);
    results.begin(packed.responses);
    for (const [slot, batch] of packed.batches.entries()) {
      const step = { ...whole, ...(weights && { weights }) };
      await session.pass.evaluate(batch, step, packed.firstResponse[slot]!);
    }
    for (const member of packed.members) members.push(begin + member);
    const chosenTokens = examples.chosenTokens.subarray(begin, begin + count);
    if (weights) shares?.push(...sftShares(packed.members, chosenTokens, weights));
    results.share(packed.responses);
    const found = await results.read();
    results.accept(found);
    means.push(found.means);
    terms.push(found.losses);
  }
  const metrics = responseMetrics(concatenate(means), concatenate(terms), pairs, shares);
  const nonFinite = findNonFinite(concatenate(means), concatenate(terms), pairs);
  // One clock counts, so that the records of all ranks are equal.
  const seconds = await group.broadcast("evaluation time", (performance.now() - started) / 1e3);
  const named = Object.entries(metrics.pairs ?? {}).map(([name, value]) => [`eval_${name}`, value]);
  const record = {
    step: at.step,
    epoch: at.epoch,
    eval_loss: metrics.loss,
    ...Object.fromEntries(named),
    eval_runtime: seconds,
    eval_samples_per_second: examples.count / seconds,
    eval_steps_per_second: Math.ceil(examples.count / options.groupSize) / seconds,
  };
  if (nonFinite.length === 0) return { record };
  const first = examples.where(Math.min(...nonFinite.map((e) => members[e]!)));
  return { record, nonFinite: { count: nonFinite.length, first } };
}

/** Examples, in the order of the results, one of whose responses has a mean log-prob or a loss that is not finite. */
function findNonFinite(means: Float32Array, terms: Float32Array, pairs: boolean): number[] {
  const found = new Set<number>();
  for (let i = 0; i < means.length; i++) {
    if (!Number.isFinite(means[i]!) || !Number.isFinite(terms[i]!)) found.add(pairs ? i >> 1 : i);
  }
  return [...found];
}

function concatenate(parts: readonly Float32Array[]): Float32Array {
  const whole = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    whole.set(part, offset);
    offset += part.length;
  }
  return whole;
}

/**
 * Without test rows nothing is evaluated, which a notice says; what rests on evaluations is refused.
 * @throws DataError
 */
export function requireTestRows(config: Config, count: number): void {
  if (count > 0) return;
  for (const key of ["loadBestModelAtEnd", "generateDuringEval"] as const) {
    if (!config[key]) continue;
    throw new DataError(
      `${toRecipeKey(key)}: expected test rows to evaluate on, found none in dataset_mixer`,
      { hint: "add a test split (test.jsonl), or leave the key out" },
    );
  }
}
