import { ContractError } from "../errors.js";
import type { Stream, Tensor } from "../native/index.js";
import type { Loss } from "./loss.js";

/** A response as a loss in JavaScript sees it. */
export interface HostResponse {
  /** Log-probability of each of its scored tokens. */
  readonly logps: Float32Array;
  /** Their sum. */
  readonly sum: number;
  /** Their mean; 0 for a response without scored tokens. */
  readonly mean: number;
}

/** A pair as a loss in JavaScript sees it. */
export interface HostPair {
  /** The preferred response. */
  readonly chosen: HostResponse;
  /** The other one. */
  readonly rejected: HostResponse;
}

/**
 * Derivative of an example's loss with respect to a response: a number is d loss / d mean, an array holds
 * d loss / d logps, token by token.
 */
export type HostGradient = number | Float32Array;

/** What a pair is worth, and the derivatives with respect to its two responses. */
export interface HostPairTerm {
  /** Loss of this pair; the loss of an optimizer step is the mean over its pairs. */
  readonly loss: number;
  /** Derivative with respect to the chosen response. */
  readonly dChosen: HostGradient;
  /** Derivative with respect to the rejected response. */
  readonly dRejected: HostGradient;
}

/** What a sequence is worth, and the derivative with respect to its log-probabilities. */
export interface HostSequenceTerm {
  /** Loss of this sequence; the loss of an optimizer step is the mean over its sequences. */
  readonly loss: number;
  /** Derivative with respect to the sequence. */
  readonly dSequence: HostGradient;
}

/**
 * A loss on preference pairs, written in JavaScript. The log-probabilities of each group of pairs are read
 * to the host, `term` is called for each pair, and the coefficients are written back. The event loop stays
 * free, but the device has nothing to do while `term` runs, and waits for one round trip per group (a few
 * hundred microseconds on a CPU device). `term` may be asynchronous: the pairs of a group are then
 * awaited together.
 *
 * @param name kept in checkpoints; a run is resumed with the loss it was begun with
 * @param term loss and derivatives of one pair
 * @throws ContractError from the run, naming loss and pair, when `term` returns something else
 * @example
 * // IPO without its reference model: (margin − 1/(2β))² of the mean log-probabilities.
 * const ipo = hostPairLoss("ipo", ({ chosen, rejected }) => {
 *   const error = chosen.mean - rejected.mean - 0.5;
 *   return { loss: error ** 2, dChosen: 2 * error, dRejected: -2 * error };
 * });
 * await train({ config, loss: ipo });
 */
export function hostPairLoss(
  name: string,
  term: (pair: HostPair) => HostPairTerm | Promise<HostPairTerm>,
): Loss {
  return hostLoss(name, "pairs", async ([chosen, rejected]) => {
    const result = await term({ chosen: chosen!, rejected: rejected! });
    const { loss, dChosen, dRejected } = requireResult(name, result, "dChosen, dRejected");
    return { loss, gradients: { dChosen, dRejected } };
  });
}

/**
 * A loss on single sequences (`loss_type: sft` in the recipe), written in JavaScript: as
 * {@link hostPairLoss}, with one sequence at a time.
 *
 * @param name kept in checkpoints; a run is resumed with the loss it was begun with
 * @param term loss and derivative of one sequence
 * @throws ContractError from the run, naming loss and sequence, when `term` returns something else
 */
export function hostSequenceLoss(
  name: string,
  term: (sequence: HostResponse) => HostSequenceTerm | Promise<HostSequenceTerm>,
): Loss {
  return hostLoss(name, "sequences", async ([sequence]) => {
    const { loss, dSequence } = requireResult(name, await term(sequence!), "dSequence");
    return { loss, gradients: { dSequence } };
  });
}

interface Term {
  readonly loss: number;
  /** Of each response of the example, by the name that the user gave it. */
  readonly gradients: Readonly<Record<string, HostGradient>>;
}

function hostLoss(
  name: string,
  examples: Loss["examples"],
  term: (responses: readonly HostResponse[]) => Promise<Term>,
): Loss {
  const size = examples === "pairs" ? 2 : 1;
  return {
    name,
    examples,
    wholePairs: size === 2,
    scale: (step) => 1 / step.examples,
    async reduce(s, mean, loss, coefficient, logp, ranges, scale) {
      const [logps, table] = await readBoth(s, logp, ranges);
      const count = table.length / 3;
      const responses = Array.from({ length: count }, (_, r) =>
        response(logps.subarray(table[3 * r]!, table[3 * r + 1]!)),
      );
      const members = Array.from({ length: count / size }, (_, e) =>
        responses.slice(size * e, size * (e + 1)),
      );
      const terms = await Promise.all(members.map(term));
      const losses = new Float32Array(count);
      // Rows of other groups get 0: those before are done with, those behind are yet to come.
      const coefficients = new Float32Array(logps.length);
      terms.forEach(({ loss: value, gradients }, e) => {
        const where = `loss "${name}": ${examples === "pairs" ? "pair" : "sequence"} ${e} of a group`;
        losses[size * e] = scale * requireNumber(value, `${where}: loss`);
        Object.entries(gradients).forEach(([key, gradient], i) => {
          const r = size * e + i;
          const target = coefficients.subarray(table[3 * r]!, table[3 * r + 1]!);
          spread(target, gradient, scale, `${where}: ${key}`);
        });
      });
      s.write(
        mean,
        Float32Array.from(responses, (each) => each.mean),
      );
      s.write(loss, losses);
      s.write(coefficient, coefficients);
    },
  };
}

async function readBoth(s: Stream, logp: Tensor, ranges: Tensor) {
  const [logps, table] = await Promise.all([s.read(logp), s.read(ranges)]);
  return [logps as Float32Array, table as Int32Array] as const;
}

function response(logps: Float32Array): HostResponse {
  const sum = logps.reduce((total, logp) => total + logp, 0);
  return { logps, sum, mean: logps.length > 0 ? sum / logps.length : 0 };
}

/** d loss / d logp of each token: of the mean it is the n-th part. */
function spread(target: Float32Array, gradient: unknown, scale: number, where: string): void {
  if (gradient instanceof Float32Array) {
    if (gradient.length !== target.length) {
      throw new ContractError(
        `${where} has ${gradient.length} elements, expected one for each of the ${target.length} scored tokens`,
      );
    }
    for (let i = 0; i < target.length; i++) target[i] = scale * gradient[i]!;
  } else if (typeof gradient === "number") {
    target.fill((scale * gradient) / target.length);
  } else {
    throw new ContractError(
      `${where} is ${describe(gradient)}, expected a number (d loss / d mean) or a Float32Array of ` +
        `${target.length} (d loss / d logps)`,
    );
  }
}

function requireResult<T>(name: string, result: T, gradients: string): T {
  if (typeof result === "object" && result !== null) return result;
  throw new ContractError(
    `loss "${name}" returned ${describe(result)}, expected an object {loss, ${gradients}}`,
  );
}

function requireNumber(value: unknown, where: string): number {
  if (typeof value === "number") return value;
  throw new ContractError(`${where} is ${describe(value)}, expected a number`);
}

function describe(value: unknown): string {
  if (typeof value === "object" && value !== null)
    return `a ${value.constructor?.name ?? "object"}`;
  return typeof value === "string" ? JSON.stringify(value) : String(value);
}
