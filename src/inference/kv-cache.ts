import type { Attend, ModelShape } from "../model/index.js";
import type { Arena, Tensor, Window } from "../native/index.js";
import { kvCacheBytes } from "../train/buffers.js";
import type { Session } from "../train/session.js";

/** Attention of each layer, given the token count of the micro-batch after padding. */
export type CachedAttention = (tokens: number) => (layer: number) => Attend;

/** Keys and values of the sequences of a batch, one run of rows each, for every layer. */
export class KvCache {
  readonly #session: Session;
  readonly #shape: ModelShape;
  readonly #arena: Arena;
  readonly #layers: readonly { readonly k: Tensor; readonly v: Tensor }[];
  readonly #slots: Window;
  readonly #ranges: Window;

  /** @param rows of all sequences together; `tokens` most rows written at once. */
  constructor(session: Session, shape: ModelShape, rows: number, tokens: number) {
    this.#session = session;
    this.#shape = shape;
    const dtype = session.store.acquire(0).qkv!.dtype;
    const cache = [Math.max(1, rows), shape.numKvHeads * shape.headDim];
    const bytes = kvCacheBytes(shape, dtype, rows, tokens);
    this.#arena = session.device.arena(bytes, "key/value cache");
    this.#layers = Array.from({ length: shape.numLayers }, () => ({
      k: this.#arena.tensor(dtype, cache),
      v: this.#arena.tensor(dtype, cache),
    }));
    this.#slots = this.#arena.tensor("i32", [tokens]).window();
    this.#ranges = this.#arena.tensor("i32", [tokens, 2]).window();
  }

  /** Attention among a prompt's tokens that also keeps keys and values in rows `slots` (T). */
  prefill(slots: Int32Array): CachedAttention {
    return (tokens) => {
      this.#write(this.#slots, slots, tokens, 1, -1);
      return (layer) => (s, o, lse, qkv) => {
        this.#keep(layer, qkv);
        this.#session.pass.attend(s, o, lse, qkv);
      };
    };
  }

  /** Attention of one new token per sequence over its cached ones: `ranges` (T, 2) {begin, length}. */
  decode(slots: Int32Array, ranges: Int32Array): CachedAttention {
    return (tokens) => {
      this.#write(this.#slots, slots, tokens, 1, -1);
      this.#write(this.#ranges, ranges, tokens, 2, 0);
      return (layer) => (s, o, _lse, qkv) => {
        this.#keep(layer, qkv);
        const { k, v } = this.#layers[layer]!;
        s.attentionDecode(o, qkv, k, v, this.#ranges, this.#shape.numHeads);
      };
    };
  }

  dispose(): void {
    this.#arena.dispose();
  }

  #keep(layer: number, qkv: Tensor): void {
    const { k, v } = this.#layers[layer]!;
    this.#session.stream.kvCacheWrite(k, v, qkv, this.#slots, this.#shape.numHeads);
  }

  /** Uploads one entry per token; padding tokens get `rest`: no slot, an empty range. */
  #write(window: Window, values: Int32Array, tokens: number, columns: number, rest: number): void {
    const padded = new Int32Array(tokens * columns).fill(rest);
    padded.set(values);
    this.#session.stream.write(window.set(0, tokens), padded);
  }
}
