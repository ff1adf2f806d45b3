import { ConfigError } from "../errors.js";
import type { ModelShape } from "./shape.js";

/** Rotary frequencies f_i = theta^(−2i/D), i < D/2, as they are. */
export interface DefaultRope {
  /** transformers' rope_type. */
  readonly kind: "default";
}

/** f_i / factor: positions are compressed. Source: Chen et al. 2023. */
export interface LinearRope {
  /** transformers' rope_type. */
  readonly kind: "linear";
  /** What frequencies are divided by. */
  readonly factor: number;
}

/** The default up to `maxPositions` positions; beyond them another theta, which is refused. */
export interface DynamicRope {
  /** transformers' rope_type. */
  readonly kind: "dynamic";
  /** How much theta would grow with the length. */
  readonly factor: number;
  /** max_position_embeddings. */
  readonly maxPositions: number;
}

/** Low frequencies divided by `factor`, high ones kept, a ramp between them. Source: Llama 3.1. */
export interface Llama3Rope {
  /** transformers' rope_type. */
  readonly kind: "llama3";
  /** What low frequencies are divided by. */
  readonly factor: number;
  /** Turns within the original length below which a frequency is low. */
  readonly lowFreqFactor: number;
  /** Turns within the original length above which a frequency is high. */
  readonly highFreqFactor: number;
  /** Positions the model was pretrained with. */
  readonly originalMaxPositions: number;
}

/** As Llama3Rope with a ramp over i, and cosines and sines scaled. Source: Peng et al. 2024. */
export interface YarnRope {
  /** transformers' rope_type. */
  readonly kind: "yarn";
  /** What low frequencies are divided by. */
  readonly factor: number;
  /** Positions the model was pretrained with. */
  readonly originalMaxPositions: number;
  /** Turns within the original length at the high end of the ramp. */
  readonly betaFast: number;
  /** Turns within the original length at its low end. */
  readonly betaSlow: number;
  /** The ends of the ramp are whole indices. */
  readonly truncate: boolean;
  /** Factor of cosines and sines. */
  readonly attentionFactor: number;
}

/** How rotary frequencies are changed for long contexts, by the names of transformers. */
export type Rope = DefaultRope | LinearRope | DynamicRope | Llama3Rope | YarnRope;

/**
 * Cosines and sines of rotary position embedding [Su et al. 2021]: row p holds s·cos(p·f_i) and then
 * s·sin(p·f_i), i < D/2, with s = 1 but for YaRN.
 *
 * @returns (positions, D) f32
 */
export function ropeTable(shape: ModelShape, positions: number): Float32Array {
  const half = shape.headDim / 2;
  const { frequencies, scale } = ropeFrequencies(shape);
  const table = new Float32Array(positions * shape.headDim);
  for (let p = 0; p < positions; p++) {
    for (let i = 0; i < half; i++) {
      const angle = p * frequencies[i]!;
      table[p * shape.headDim + i] = scale * Math.cos(angle);
      table[p * shape.headDim + half + i] = scale * Math.sin(angle);
    }
  }
  return table;
}

/** The D/2 rotary frequencies and the factor of cosines and sines. */
export function ropeFrequencies(shape: ModelShape): { frequencies: Float64Array; scale: number } {
  const { rope, ropeTheta, headDim: D } = shape;
  const plain = Float64Array.from({ length: D / 2 }, (_, i) => ropeTheta ** ((-2 * i) / D));
  switch (rope.kind) {
    case "default":
    case "dynamic":
      return { frequencies: plain, scale: 1 };
    case "linear":
      return { frequencies: plain.map((f) => f / rope.factor), scale: 1 };
    case "llama3":
      return { frequencies: plain.map((f) => llama3Frequency(f, rope)), scale: 1 };
    case "yarn": {
      const [low, high] = yarnRange(ropeTheta, D, rope);
      const frequencies = plain.map((f, i) => {
        const stretched = Math.min(1, Math.max(0, (i - low) / (high - low)));
        return (f / rope.factor) * stretched + f * (1 - stretched);
      });
      return { frequencies, scale: rope.attentionFactor };
    }
  }
}

/** Kept where its wavelength fits often into the original context, divided by `factor` where it does not fit. */
function llama3Frequency(f: number, rope: Llama3Rope): number {
  const turns = (rope.originalMaxPositions * f) / (2 * Math.PI);
  if (turns > rope.highFreqFactor) return f;
  if (turns < rope.lowFreqFactor) return f / rope.factor;
  const kept = (turns - rope.lowFreqFactor) / (rope.highFreqFactor - rope.lowFreqFactor);
  return (1 - kept) * (f / rope.factor) + kept * f;
}

/** Indices between which the ramp lies: those of frequencies that turn betaFast and betaSlow times. */
function yarnRange(theta: number, D: number, rope: YarnRope): [number, number] {
  const index = (turns: number) =>
    (D * Math.log(rope.originalMaxPositions / (turns * 2 * Math.PI))) / (2 * Math.log(theta));
  const [first, last] = [index(rope.betaFast), index(rope.betaSlow)];
  const low = Math.max(rope.truncate ? Math.floor(first) : first, 0);
  const high = Math.min(rope.truncate ? Math.ceil(last) : last, D - 1);
  return [low, high === low ? high + 0.001 : high];
}

/**
 * Refuses lengths at which `dynamic` scaling would begin: beyond max_position_embeddings transformers takes
 * theta from the longest sequence of each padded batch, so that a log-probability depends on its neighbours.
 *
 * @param what the setting that asks for so many positions, for the message.
 * @throws ConfigError
 */
export function checkPositions({ rope }: ModelShape, positions: number, what: string): void {
  if (rope.kind !== "dynamic" || positions <= rope.maxPositions) return;
  throw new ConfigError(
    `${what}: expected at most ${rope.maxPositions} tokens (max_position_embeddings), received ` +
      `${positions}: beyond that the model's rope scaling "dynamic" depends on the longest sequence of a ` +
      "padded batch, and a sequence's log-probabilities on its neighbours",
    {
      hint: `lower max_length (or max_new_tokens) so that no sequence passes ${rope.maxPositions} tokens`,
    },
  );
}
