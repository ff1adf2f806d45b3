import { ContractError } from "../errors.js";
import { MATMUL_FORMS, type MatmulForm, type Ops } from "./ops.js";
import { type DType, hostArray, Tensor } from "./tensor.js";

/** What an argument can be: `integer` and `number` differ in that NaN and fractions are no integers. */
type Kind = "tensor" | "number" | "integer" | "form";

/** Arguments of every op in order, tensors unless they say otherwise: native/ops/ops.def, for messages. */
const signatures = {
  fill: "x, value: number",
  convert: "y, x",
  matmul: "c, a, b, form: form",
  matmulAdd: "c, a, b, form: form",
  addBias: "x, bias",
  biasBackward: "dBias, dy",
  embeddingForward: "y, tokens, weight",
  embeddingBackward: "dWeight, dy, unique, offsets, rows",
  rmsnormForward: "y, rstd, x, weight, eps: number",
  addRmsnormForward: "y, sum, rstd, x, branch, weight, eps: number",
  rmsnormBackward: "dx, dWeight, dy, x, weight, rstd",
  rmsnormBackwardAdd: "dx, y, dWeight, dy, x, weight, rstd",
  qkNormForward: "y, rstd, x, qWeight, kWeight, heads: integer, kvHeads: integer, eps: number",
  qkNormBackward:
    "dx, dQWeight, dKWeight, dy, x, qWeight, kWeight, rstd, heads: integer, kvHeads: integer",
  ropeForward: "x, positions, table, heads: integer",
  ropeBackward: "dx, positions, table, heads: integer",
  attentionForward: "o, lse, qkv, segments, heads: integer, kvHeads: integer, window: integer",
  attentionBackward:
    "dQkv, delta, dO, o, lse, qkv, segments, heads: integer, kvHeads: integer, window: integer",
  kvCacheWrite: "kCache, vCache, qkv, slots, heads: integer",
  attentionDecode: "o, qkv, kCache, vCache, ranges, heads: integer",
  swigluForward: "hidden, gateUp",
  swigluBackward: "dGateUp, hidden, dHidden, gateUp",
  gatherRows: "y, x, rows",
  scatterRows: "dx, dy, sources",
  logprobForward: "logp, lse, logits, labels",
  logprobBackward: "dLogits, logits, lse, labels, coefficient",
  simperLoss: "mean, loss, coefficient, logp, responses, scale: number",
  sftLoss: "mean, loss, coefficient, logp, responses, scale: number",
  simperSftLoss: "mean, loss, coefficient, logp, responses, tokenWeight, scale: number",
  sigmoidLoss:
    "mean, loss, coefficient, logp, responses, tokenWeight, scale: number, beta: number, " +
    "gammaBetaRatio: number, labelSmoothing: number",
  hingeLoss:
    "mean, loss, coefficient, logp, responses, tokenWeight, scale: number, beta: number, " +
    "gammaBetaRatio: number",
  sumSquares: "partials, x",
  clipFactor: "out, partials, maxNorm: number",
  adamw:
    "weight, master, m, v, grad, clip, lr: number, beta1: number, beta2: number, eps: number, " +
    "weightDecay: number, step: integer",
} as const satisfies Record<keyof Ops, string>;

/** An argument of an op. */
export interface Parameter {
  /** As in the interface {@link Ops}. */
  readonly name: string;
  readonly kind: Kind;
}

/** The arguments of an op, in order. */
export function opParameters(op: keyof Ops): Parameter[] {
  return signatures[op].split(", ").map((entry) => {
    const [name = "", kind = "tensor"] = entry.split(": ");
    return { name, kind: kind as Kind };
  });
}

/**
 * What the addon takes for the arguments of a call: ids of tensors, numbers, indices of forms.
 * @throws ContractError naming method and argument when one is missing or not of its kind.
 */
export function toNative(
  op: keyof Ops,
  parameters: readonly Parameter[],
  args: readonly unknown[],
): number[] {
  if (args.length !== parameters.length) {
    const names = parameters.map(({ name }) => name).join(", ");
    throw new ContractError(
      `${op}(${names}) takes ${parameters.length} arguments, received ${args.length}`,
    );
  }
  return parameters.map(({ name, kind }, i) => {
    const value = args[i];
    if (kind === "tensor") {
      if (value instanceof Tensor) return value.id;
    } else if (kind === "form") {
      const index = MATMUL_FORMS.indexOf(value as MatmulForm);
      if (index >= 0) return index;
    } else if (typeof value === "number" && (kind === "number" || Number.isSafeInteger(value))) {
      return value;
    }
    throw new ContractError(
      `${op}: argument ${i + 1} (${name}) is ${describe(value)}, expected ${expected[kind]}`,
    );
  });
}

/** @throws ContractError when the argument of `method` is no tensor. */
export function checkTensor(method: string, tensor: unknown): asserts tensor is Tensor {
  if (tensor instanceof Tensor) return;
  throw new ContractError(
    `${method}: argument 1 (tensor) is ${describe(tensor)}, expected a tensor`,
  );
}

/** @throws ContractError when a transfer is not between a tensor and an array of its elements. */
export function checkTransfer(method: string, tensor: unknown, array: unknown): void {
  checkTensor(method, tensor);
  const wanted = arrayName(tensor.dtype);
  const name = ArrayBuffer.isView(array) ? array.constructor.name : "";
  if (name === wanted || array instanceof Uint8Array) return;
  throw new ContractError(
    `${method}: argument 2 (array) is ${describe(array)}, expected a ${wanted} for dtype ` +
      `${tensor.dtype}, or its bytes as a Uint8Array`,
  );
}

function arrayName(dtype: DType): string {
  return hostArray(dtype, 0).constructor.name;
}

const expected: Readonly<Record<Kind, string>> = {
  tensor: "a tensor",
  number: "a number",
  integer: "a whole number",
  form: '"nn", "nt" or "tn"',
};

function describe(value: unknown): string {
  if (value instanceof Tensor) return "a tensor";
  if (typeof value === "string") return JSON.stringify(value);
  if (typeof value === "number") return `the number ${value}`;
  if (typeof value === "function") return "a function";
  if (typeof value === "object" && value !== null) {
    const name = value.constructor?.name;
    return name ? `an object of class ${name}` : "an object";
  }
  return String(value);
}
