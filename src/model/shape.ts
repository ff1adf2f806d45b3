import { CheckpointError } from "../errors.js";

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

  constructor(raw: RawConfig) {
    this.#raw = raw;
  }

  /** The field, or `undefined` where it is absent or null. */
  get(name: string): unknown {
    return this.#raw.fields[name] ?? undefined;
  }

  /** A whole number above 0; `fallback` where the field is absent. */
  count(name: string, fallback?: number): number {
    const value = this.get(name) ?? fallback;
    if (typeof value === "number" && Number.isSafeInteger(value) && value > 0) return value;
    throw this.error(name, "a whole number above 0", value);
  }

  /** A finite number above 0; `fallback` where the field is absent. */
  positive(name: string, fallback: number, value: unknown = this.get(name)): number {
    const found = value ?? fallback;
    if (typeof found === "number" && Number.isFinite(found) && found > 0) return found;
    throw this.error(name, "a number above 0", found);
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
      `${this.#raw.path}: ${name}: expected ${expected}, received ${what}`,
      {
        hint: "a model that needs it would be computed wrongly, so it is refused",
      },
    );
  }
}
