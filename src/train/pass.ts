import type { PackedBatch } from "../data/types.js";
import {
  type Attend,
  attentionWindow,
  type DecoderActivations,
  type DecoderBackwardScratch,
  type DecoderBlock,
  type DecoderEdge,
  type DecoderScratch,
  decoderActivations,
  decoderBackward,
  decoderBackwardScratch,
  decoderForward,
  decoderRecompute,
  decoderScratch,
  type HeadGroup,
  type HeadPlan,
  headBackward,
  headForward,
  type Layout,
  type ModelShape,
  planHead,
  ropeTable,
} from "../model/index.js";
import type { HostArray, Stream, Tensor, Window } from "../native/index.js";
import type { ParamStore } from "../parallel/store.js";
import { type BatchLimits, type Buffers, tokenBucket } from "./buffers.js";
import { type StepLoss, tokenWeights } from "./loss-groups.js";

/**
 * The walk over the layers: one micro-batch forward, and backward when training. It enqueues work and waits
 * for nothing but a loss that waits itself; one walk at a time. Gradients accumulate in the store, means and losses of the responses in `means` and `losses`.
 */
export class Pass {
  readonly #s: Stream;
  readonly #shape: ModelShape;
  readonly #store: ParamStore;
  readonly #limits: BatchLimits;
  readonly #training: boolean;
  readonly #checkpointing: boolean;
  /** Windows that follow the token count T of the micro-batch. */
  readonly #perToken: Window[] = [];
  readonly #layers: DecoderActivations[];
  /** When not training only what the forward needs. */
  readonly #scratch: DecoderScratch & DecoderBackwardScratch;
  readonly #layout: Layout;
  readonly #w: Record<string, Window> = {};
  readonly #logits: { readonly f32: Window; readonly d: Window };
  readonly #attend: Attend;
  /** Names of the ranges on a profiler's timeline. */
  readonly #layerNames: readonly string[];
  #tokens = 0;

  constructor(
    s: Stream,
    shape: ModelShape,
    store: ParamStore,
    buffers: Buffers,
    limits: BatchLimits,
    mode: { readonly training: boolean; readonly checkpointing: boolean },
  ) {
    this.#s = s;
    this.#shape = shape;
    this.#store = store;
    this.#limits = limits;
    this.#training = mode.training;
    this.#checkpointing = mode.checkpointing;
    const perToken = (name: string): Window => {
      const window = buffers.tensor(name).window();
      this.#perToken.push(window);
      return window;
    };
    const shared = mode.checkpointing || !mode.training;
    const own = Object.keys(decoderActivations(shape)) as (keyof DecoderActivations)[];
    const set = new Map<string, Window>();
    this.#layers = Array.from({ length: shape.numLayers }, (_, l) => {
      const tensors = own.map((name) => {
        const layer = (name === "x" ? !mode.training : shared) ? 0 : l;
        const key = `layer.${layer}.${name}`;
        if (!set.has(key)) set.set(key, perToken(key));
        return [name, set.get(key)!] as const;
      });
      return Object.fromEntries(tensors) as unknown as DecoderActivations;
    });
    const backward = mode.training ? Object.keys(decoderBackwardScratch(shape)) : [];
    const scratch = [...Object.keys(decoderScratch(shape)), ...backward];
    this.#scratch = Object.fromEntries(
      scratch.map((name) => [name, perToken(`scratch.${name}`)]),
    ) as unknown as DecoderScratch & DecoderBackwardScratch;
    for (const name of ["last", "lastRstd", "final", "tokens", "positions", "rowSources"]) {
      this.#w[name] = perToken(name);
    }
    if (mode.training) for (const name of ["dResidual", "dFinal"]) this.#w[name] = perToken(name);
    const others = ["segments", "uniqueTokens", "tokenOffsets", "tokenRows", "scoredRows"];
    const head = [
      "scoredLabels",
      "responses",
      "tokenWeights",
      "scored",
      "logp",
      "lse",
      "coefficient",
    ];
    const results = ["means", "losses", ...(mode.training ? ["dScored"] : [])];
    for (const name of [...others, ...head, ...results])
      this.#w[name] = buffers.tensor(name).window();
    this.#layout = {
      positions: this.#w.positions!,
      segments: this.#w.segments!,
      ropeTable: buffers.tensor("ropeTable"),
      window: attentionWindow(shape, limits.positions),
    };
    const logits = buffers.tensor("logits");
    const dtype = this.#layers[0]!.x.dtype;
    const [rows, V] = logits.shape as [number, number];
    // d logits lies over the logits: as bf16 each row keeps its place and fills the first half of it.
    const d = dtype === "f32" ? logits : logits.view([rows, V], { dtype, rowStride: 2 * V });
    this.#logits = { f32: logits.window(), d: d.window() };
    this.#layerNames = Array.from({ length: shape.numLayers }, (_, l) => `layer ${l}`);
    const { numHeads, numKvHeads } = shape;
    const { segments, window } = this.#layout;
    this.#attend = (stream, o, lse, qkv) =>
      stream.attentionForward(o, lse, qkv, segments, numHeads, numKvHeads, window);
    s.fill(buffers.tensor("tokenWeights"), 0); // what losses without an SFT term are given
    s.write(buffers.tensor("ropeTable"), ropeTable(shape, limits.positions));
  }

  /**
   * Forward and backward of one micro-batch. Means and losses of its responses go to rows
   * `[firstResponse, …)` of the step's buffers.
   * @param batch one without examples computes nothing; the store is asked for all that a walk asks for, so that
   *   the other ranks are not left alone.
   */
  async train(batch: PackedBatch, step: StepLoss, firstResponse: number): Promise<void> {
    if (batch.tokens.length === 0) {
      this.#walkUp();
      return this.#walkDown();
    }
    const plan = this.#begin(batch, step);
    this.#embed();
    this.#blocksUp();
    const edge = this.#finalNorm();
    await this.#head(plan, edge, step, firstResponse, true);
    this.#backward(edge);
  }

  /** Forward only: means and losses as in {@link train}. */
  async evaluate(batch: PackedBatch, step: StepLoss, firstResponse: number): Promise<void> {
    if (batch.tokens.length === 0) return this.#walkUp();
    const plan = this.#begin(batch, step);
    this.#embed();
    this.#blocksUp();
    await this.#head(plan, this.#finalNorm(), step, firstResponse, false);
  }

  /** Forward only: log-probabilities of the scored rows, in the order of `batch.scoredRows`. */
  async score(batch: PackedBatch): Promise<Float32Array> {
    const plan = this.#begin(batch);
    this.#embed();
    this.#blocksUp();
    const edge = this.#finalNorm();
    this.#gather(plan);
    for (const group of plan.groups) this.#forEachPart(group, () => this.#logProbs(edge));
    const padded = (await this.#s.read(this.#w.logp!.set(0, plan.rows.length))) as Float32Array;
    return padded.filter((_, n) => plan.rows[n]! >= 0);
  }

  /**
   * Forward only, for generation: logits of the scored rows, handed to `use` while they are in memory.
   * @param attendLayer attention of each layer, which may keep or read a key/value cache, given the token
   *   count after padding.
   */
  logits(
    batch: PackedBatch,
    attendLayer: (tokens: number) => (layer: number) => Attend,
    use: (logits: Tensor, group: HeadGroup) => void,
  ): void {
    const plan = this.#begin(batch);
    this.#embed();
    this.#blocksUp(attendLayer(this.#tokens));
    const edge = this.#finalNorm();
    this.#gather(plan);
    for (const group of plan.groups) {
      const logits = this.#logits.f32.set(0, group.rows);
      this.#s.matmul(
        logits,
        this.#w.scored!.set(group.begin, group.rows),
        this.#headWeight(edge),
        "nt",
      );
      use(logits, group);
    }
  }

  /** Attention among the tokens of the micro-batch, as training does it. */
  get attend(): Attend {
    return this.#attend;
  }

  // ---- the steps of the walk ---------------------------------------------------------------------------

  /** Uploads the micro-batch, its token count rounded up to the bucket, and points the windows at it. */
  #begin(batch: PackedBatch, step?: StepLoss): HeadPlan {
    const bucket = tokenBucket(this.#limits.tokens);
    const T = Math.min(Math.ceil(batch.tokens.length / bucket) * bucket, this.#limits.tokens);
    if (T !== this.#tokens) for (const window of this.#perToken) window.set(0, T);
    this.#tokens = T;
    const together = step?.loss.wholePairs ? 2 : 1;
    const plan = planHead(batch, T, this.#limits.groupRows, together);
    this.#upload("tokens", padTo(batch.tokens, T));
    this.#upload("positions", padTo(batch.positions, T));
    this.#upload("segments", batch.segments, 4);
    this.#upload("scoredRows", plan.rows);
    this.#upload("scoredLabels", plan.labels);
    this.#upload("responses", plan.responses, 3);
    if (step?.weights) {
      const { weights, loss } = step;
      this.#upload("tokenWeights", tokenWeights(batch, weights, loss.sftWeight!));
    }
    if (this.#training && step) {
      this.#upload("rowSources", plan.sources, 2);
      this.#upload("uniqueTokens", batch.uniqueTokens);
      this.#upload("tokenOffsets", batch.tokenOffsets);
      this.#upload("tokenRows", batch.tokenRows);
    }
    return plan;
  }

  #upload(name: string, values: HostArray, columns = 1): void {
    this.#s.write(this.#w[name]!.set(0, values.length / columns), values);
  }

  #edge(): DecoderEdge {
    return this.#store.acquire(this.#shape.numLayers) as DecoderEdge;
  }

  #headWeight(edge: DecoderEdge): Tensor {
    return this.#shape.tiedEmbeddings ? edge.embedding : edge.head;
  }

  #embed(): void {
    const { embedding } = this.#edge();
    this.#store.prefetch(0);
    this.#s.embeddingForward(this.#layers[0]!.x, this.#w.tokens!, embedding);
  }

  #blocksUp(attendLayer: (layer: number) => Attend = () => this.#attend): void {
    const { numLayers } = this.#shape;
    this.#s.pushRange("forward");
    for (let l = 0; l < numLayers; l++) {
      this.#s.pushRange(this.#layerNames[l]!);
      if (l + 1 < numLayers) this.#store.prefetch(l + 1);
      const w = this.#store.acquire(l) as DecoderBlock;
      const before = l === 0 ? null : this.#layers[l - 1]!.mid;
      decoderForward(
        this.#s,
        this.#shape,
        w,
        this.#layers[l]!,
        before,
        this.#scratch,
        this.#layout,
        attendLayer(l),
      );
      this.#store.release(l);
      this.#s.popRange();
    }
    this.#s.popRange();
  }

  /** What a forward pass asks of the store, and nothing else. */
  #walkUp(): void {
    const { numLayers } = this.#shape;
    const store = this.#store;
    store.acquire(numLayers);
    store.prefetch(0);
    for (let l = 0; l < numLayers; l++) {
      if (l + 1 < numLayers) store.prefetch(l + 1);
      store.acquire(l);
      store.release(l);
    }
    store.acquire(numLayers);
  }

  /** The same of a backward pass. */
  #walkDown(): void {
    const { numLayers } = this.#shape;
    const store = this.#store;
    store.gradients(numLayers);
    for (let l = numLayers - 1; l >= 0; l--) {
      if (l > 0) store.prefetch(l - 1);
      store.acquire(l);
      store.gradients(l);
      store.release(l);
      store.reduce(l);
    }
    store.reduce(numLayers);
  }

  #finalNorm(): DecoderEdge {
    const edge = this.#edge();
    const { last, lastRstd, final } = this.#w;
    const mid = this.#layers.at(-1)!.mid;
    this.#s.addRmsnormForward(
      final!,
      last!,
      lastRstd!,
      mid,
      this.#scratch.branch,
      edge.norm,
      this.#shape.rmsNormEps,
    );
    return edge;
  }

  #gather(plan: HeadPlan): void {
    const n = plan.rows.length;
    this.#s.gatherRows(this.#w.scored!.set(0, n), this.#w.final!, this.#w.scoredRows!.set(0, n));
  }

  /** LM head, log-probabilities and loss by groups of whole responses; with `backward`, d scored and dW too. */
  async #head(
    plan: HeadPlan,
    edge: DecoderEdge,
    step: StepLoss,
    firstResponse: number,
    backward: boolean,
  ): Promise<void> {
    this.#s.pushRange("head");
    this.#gather(plan);
    const n = plan.rows.length;
    this.#s.fill(this.#w.coefficient!.set(0, n), 0); // padding rows belong to no response
    for (const group of plan.groups) {
      const fits = group.rows <= this.#limits.groupRows;
      this.#forEachPart(group, () => this.#logProbs(edge));
      const waiting = step.loss.reduce(
        this.#s,
        this.#w.means!.set(firstResponse + group.firstResponse, group.responses),
        this.#w.losses!.set(firstResponse + group.firstResponse, group.responses),
        this.#w.coefficient!.set(0, n),
        this.#w.logp!.set(0, n),
        this.#w.responses!.set(group.firstResponse, group.responses),
        step.scale,
        this.#w.tokenWeights!.set(group.firstResponse, group.responses),
      );
      if (waiting) await waiting;
      if (!backward) continue;
      this.#forEachPart(group, () => {
        // A response longer than the workspace computes its logits a second time.
        if (!fits) this.#logProbs(edge);
        this.#headBackward(edge);
      });
    }
    this.#s.popRange();
  }

  /** Points the head's windows at rows of the group that fit into the workspace, part after part. */
  #forEachPart(group: HeadGroup, work: () => void): void {
    const { groupRows } = this.#limits;
    for (let done = 0; done < group.rows; done += groupRows) {
      const begin = group.begin + done;
      const rows = Math.min(groupRows, group.rows - done);
      for (const name of partWindows) this.#w[name]?.set(begin, rows);
      this.#logits.f32.set(0, rows);
      this.#logits.d.set(0, rows);
      work();
    }
  }

  #logProbs(edge: DecoderEdge): void {
    const { logp, lse, scored, scoredLabels } = this.#w;
    headForward(
      this.#s,
      logp!,
      lse!,
      this.#logits.f32,
      scored!,
      this.#headWeight(edge),
      scoredLabels!,
    );
  }

  #headBackward(edge: DecoderEdge): void {
    const { lse, scored, dScored, scoredLabels, coefficient } = this.#w;
    const dEdge = this.#store.gradients(this.#shape.numLayers) as DecoderEdge;
    const dHead = this.#shape.tiedEmbeddings ? dEdge.embedding : dEdge.head;
    const { f32, d } = this.#logits;
    headBackward(
      this.#s,
      dScored!,
      dHead,
      d,
      f32,
      lse!,
      scoredLabels!,
      coefficient!,
      scored!,
      this.#headWeight(edge),
    );
  }

  #backward(edge: DecoderEdge): void {
    const s = this.#s;
    const { numLayers } = this.#shape;
    const { dResidual, dFinal, dScored, rowSources, last, lastRstd } = this.#w;
    const dEdge = this.#store.gradients(numLayers) as DecoderEdge;
    s.pushRange("backward");
    s.scatterRows(dFinal!, dScored!.set(0, this.#w.scoredRows!.rows), rowSources!);
    s.rmsnormBackward(dResidual!, dEdge.norm, dFinal!, last!, edge.norm, lastRstd!);
    for (let l = numLayers - 1; l >= 0; l--) {
      s.pushRange(this.#layerNames[l]!);
      if (l > 0) this.#store.prefetch(l - 1);
      const w = this.#store.acquire(l) as DecoderBlock;
      const a = this.#layers[l]!;
      if (this.#checkpointing) {
        decoderRecompute(s, this.#shape, w, a, this.#scratch, this.#layout, this.#attend);
      }
      const dW = this.#store.gradients(l) as DecoderBlock;
      decoderBackward(s, this.#shape, dResidual!, dW, w, a, this.#scratch, this.#layout);
      this.#store.release(l);
      this.#store.reduce(l);
      s.popRange();
    }
    const { uniqueTokens, tokenOffsets, tokenRows } = this.#w;
    s.embeddingBackward(dEdge.embedding, dResidual!, uniqueTokens!, tokenOffsets!, tokenRows!);
    this.#store.reduce(numLayers);
    s.popRange();
  }
}

/** Windows over the gather list that move from part to part of a group. */
const partWindows = ["scored", "dScored", "scoredLabels", "logp", "lse", "coefficient"] as const;

function padTo(values: Int32Array, length: number): Int32Array {
  if (values.length === length) return values;
  const padded = new Int32Array(length);
  padded.set(values);
  return padded;
}
