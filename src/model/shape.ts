import { CheckpointError } from "../errors.js";
import type { Rope } from "./rope.js";

/** The sizes and constants of a decoder model that decide its arithmetic. */
export interface ModelShape {
  /** The config's model_type. */
  readonly family: string;
  /** C. */
  readonly hiddenSize: number;
  /** L. */
  readonly numLayers: number;
  /** H, query heads. */
  readonly numHeads: number;
  /** K, key/value heads. */
  readonly numKvHeads: number;
  /** D. */
  readonly headDim: number;
  /** F. */
  readonly intermediateSize: number;
  /** V. */
  readonly vocabSize: number;
  /** Added to the mean square in RMSNorm. */
  readonly rmsNormEps: number;
  /** Base of the rotary frequencies. */
  readonly ropeTheta: number;
  /** How the rotary frequencies are changed for long contexts. */
  readonly rope: Rope;
  /** The projections of queries, keys and values have biases. */
  readonly qkvBias: boolean;
  /** Query and key heads are normalized, each head on its own, before they are rotated. */
  readonly qkNorm: boolean;
  /** A token sees itself and the `slidingWindow − 1` before it; null: all before it. */
  readonly slidingWindow: number | null;
  /** The LM head is the embedding matrix. */
  readonly tiedEmbeddings: boolean;
}

/** A `config.json` as read, with the path for messages. */
export interface RawConfig {
  readonly path: string;
  readonly fields: Readonly<Record<string, unknown>>;
}

/** Reads fields of a `config.json`, naming file and field where one is missing or of the wrong kind. */
export class ConfigReader {
  readonly #raw: RawConfig;
  readonly #prefix: string;

  /** @param defaults what transformers takes for a field that is absent; null in the file is not absent. */
  constructor(raw: RawConfig, defaults: Readonly<Record<string, unknown>> = {}, prefix = "") {
    this.#raw = { path: raw.path, fields: { ...defaults, ...raw.fields } };
    this.#prefix = prefix;
  }

  /** The field, or `undefined` where it is absent or null. */
  get(name: string): unknown {
    return this.#raw.fields[name] ?? undefined;
  }

  /** A reader of a field that is a mapping; of an empty one where the field is absent. */
  mapping(name: string): ConfigReader {
    const value = this.get(name) ?? {};
    if (typeof value !== "object" || Array.isArray(value)) {
      throw this.error(name, "a mapping with rope_type and rope_theta", value);
    }
    const fields = value as Readonly<Record<string, unknown>>;
    return new ConfigReader({ path: this.#raw.path, fields }, {}, `${this.#prefix}${name}.`);
  }

  /** Names of the fields that are there. */
  names(): string[] {
    return Object.keys(this.#raw.fields);
  }

  /** A whole number above 0; `fallback` where the field is absent. */
  count(name: string, fallback?: number): number {
    const value = this.get(name) ?? fallback;
    if (typeof value === "number" && Number.isSafeInteger(value) && value > 0) return value;
    throw this.error(name, "a whole number above 0", value);
  }

  /** A finite number above 0; `fallback` where the field is absent. */
  positive(name: string, fallback?: number): number {
    const value = this.get(name) ?? fallback;
    if (typeof value === "number" && Number.isFinite(value) && value > 0) return value;
    throw this.error(name, "a number above 0", value);
  }

  /** True or false; `fallback` where the field is absent. */
  flag(name: string, fallback: boolean): boolean {
    const value = this.get(name) ?? fallback;
    if (typeof value === "boolean") return value;
    throw this.error(name, "true or false", value);
  }

  /** Insists that a field which would change the arithmetic is absent or has a value we compute. */
  neutral(name: string, supported: readonly unknown[]): void {
    const value = this.get(name);
    if (value === undefined || supported.includes(value)) return;
    const list = supported.map((one) => JSON.stringify(one)).join(" or ");
    throw this.error(name, list || "this field to be absent", value);
  }

  error(name: string, expected: string, received: unknown): CheckpointError {
    const what = received === undefined ? "nothing" : JSON.stringify(received);
    return new CheckpointError(
      `${this.#raw.path}: ${this.#prefix}${name}: expected ${expected}, received ${what}`,
      {
        hint: "a model that needs it would be computed wrongly, so it is refused",
      },
    );
  }
}
