import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { CheckpointError, ConfigError } from "#src/errors.js";
import {
  checkPositions,
  type ModelShape,
  parameterCount,
  readModelShape,
  ropeFrequencies,
  ropeTable,
} from "#src/model/index.js";
import { elementCount } from "#src/native/index.js";
import { modelBlocks } from "#src/train/plan.js";
import { fixture } from "../support/paths.js";

type Fields = Record<string, unknown>;

interface ConfigCase {
  readonly name: string;
  readonly config: Fields;
  readonly expected: {
    readonly rope: string;
    readonly inv_freq: number[];
    readonly attention_factor: number;
    readonly num_key_value_heads: number;
    readonly head_dim: number;
    readonly rms_norm_eps: number;
    readonly tie_word_embeddings: boolean;
    readonly windows: (number | null)[];
    readonly parameters: number;
  };
}

const { cases } = JSON.parse(readFileSync(fixture("model", "configs", "configs.json"), "utf8")) as {
  cases: ConfigCase[];
};

const read = (fields: Fields): ModelShape => readModelShape({ path: "config.json", fields });
const base = cases[0]!.config;
const config = (change: Fields): Fields => ({ ...base, ...change });

for (const { name, config, expected } of cases) {
  test(`config: ${name}: sizes, window and frequencies are those of transformers`, () => {
    const shape = read(config);
    assert.equal(shape.family, config.model_type);
    assert.equal(shape.numKvHeads, expected.num_key_value_heads);
    assert.equal(shape.headDim, expected.head_dim);
    assert.equal(shape.rmsNormEps, expected.rms_norm_eps);
    assert.equal(shape.tiedEmbeddings, expected.tie_word_embeddings);
    for (const window of expected.windows) assert.equal(shape.slidingWindow, window);
    assert.equal(shape.qkvBias, config.model_type === "qwen2");
    assert.equal(shape.qkNorm, config.model_type === "qwen3");
    assert.equal(shape.rope.kind, expected.rope);
    assert.equal(parameterCount(shape), expected.parameters);
    const { frequencies, scale } = ropeFrequencies(shape);
    assert.ok(Math.abs(scale - expected.attention_factor) < 1e-12, `scale ${scale}`);
    assert.equal(frequencies.length, expected.inv_freq.length);
    for (const [i, want] of expected.inv_freq.entries()) {
      const error = Math.abs(frequencies[i]! / want - 1);
      // transformers computes powers, and YaRN's ramp, in f32.
      assert.ok(error < 2e-6, `frequency ${i}: ${frequencies[i]}, expected ${want}`);
    }
  });
}

test("the cases have every kind of rope scaling, and every kind changes the frequencies", () => {
  const seen = new Map<string, string>();
  for (const { config } of cases) {
    const shape = read({ ...config, head_dim: 32, rope_theta: 1e4 });
    if (shape.ropeTheta !== 1e4) continue;
    seen.set(shape.rope.kind, ropeFrequencies(shape).frequencies.join());
  }
  assert.deepEqual([...seen.keys()].sort(), ["default", "dynamic", "linear", "llama3", "yarn"]);
  assert.equal(seen.get("dynamic"), seen.get("default")); // up to max_position_embeddings
  assert.equal(new Set(seen.values()).size, 4);
});

test("the table holds cosines and sines of position times frequency, scaled by YaRN's factor", () => {
  const yarn = cases.find(({ name }) => name === "yarn, attention_factor")!;
  const shape = read(yarn.config);
  const table = ropeTable(shape, 300);
  const half = shape.headDim / 2;
  for (const p of [0, 1, 299]) {
    for (const i of [0, 7, half - 1]) {
      const angle = p * yarn.expected.inv_freq[i]!;
      // 299 radians times the f32 error of the frequency.
      const near = (got: number, want: number) => assert.ok(Math.abs(got - want) < 1e-3);
      near(table[p * shape.headDim + i]!, 1.25 * Math.cos(angle));
      near(table[p * shape.headDim + half + i]!, 1.25 * Math.sin(angle));
    }
  }
});

test("every family's parameters are counted, vectors last and without weight decay", () => {
  const D = 32;
  const rows = (8 + 2 * 4) * D;
  for (const [family, vectors, names] of [
    ["llama", 2 * 256, []],
    ["mistral", 2 * 256, []],
    ["qwen2", 2 * 256 + rows, ["q_proj.bias", "k_proj.bias", "v_proj.bias"]],
    ["qwen3", 2 * 256 + 2 * D, ["q_norm.weight", "k_norm.weight"]],
  ] as const) {
    const shape = read(config({ model_type: family, head_dim: D }));
    const blocks = modelBlocks(shape);
    const parameters = blocks.flatMap((block) => block.parameters);
    const counted = parameters.reduce((sum, p) => sum + elementCount(p.shape), 0);
    assert.equal(parameterCount(shape), counted, family);
    const layer = blocks[1]!.parameters;
    const undecayed = layer.filter(({ decay }) => !decay);
    assert.equal(
      undecayed.reduce((sum, p) => sum + elementCount(p.shape), 0),
      vectors,
      family,
    );
    assert.deepEqual(layer.slice(-undecayed.length), undecayed, family);
    assert.ok(undecayed.every(({ shape }) => shape.length === 1));
    const parts = layer.flatMap((p) => p.parts.map((part) => part.name));
    const norms = ["input_layernorm.weight", "post_attention_layernorm.weight"];
    const matrices = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
    const expected = [...matrices.map((name) => `${name}.weight`), ...norms, ...names];
    assert.deepEqual(
      parts.map((name) => name.replace(/^model\.layers\.1\.(self_attn\.|mlp\.)?/, "")),
      expected,
    );
  }
});

const yarn = { rope_type: "yarn", factor: 4, original_max_position_embeddings: 1024 };
const llama3 = { rope_type: "llama3", factor: 8, low_freq_factor: 1, high_freq_factor: 4 };
const qwenWindow = { model_type: "qwen2", use_sliding_window: true, sliding_window: 64 };
const refused: readonly [Fields, RegExp][] = [
  [
    { model_type: "gpt2" },
    /^config\.json: model_type: expected one of llama, mistral, qwen2, qwen3, received "gpt2"$/,
  ],
  [{ model_type: undefined }, /model_type: expected one of llama, .* received undefined/],
  [
    { rope_scaling: { type: "longrope", factor: 2 } },
    /rope_scaling\.rope_type: expected one of default, linear, dynamic, llama3, yarn, received "longrope"/,
  ],
  [{ rope_scaling: "linear" }, /rope_scaling: expected a mapping .*, received "linear"/],
  [
    { rope_scaling: { type: "linear" } },
    /rope_scaling\.factor: expected a number above 0, .*nothing/,
  ],
  [{ rope_scaling: { type: "dynamic", factor: "2" } }, /rope_scaling\.factor: .* received "2"/],
  [
    { rope_parameters: { rope_type: "linear", factor: -1 } },
    /rope_parameters\.factor: expected a number above 0, received -1/,
  ],
  [
    { rope_parameters: { full_attention: { rope_type: "default", rope_theta: 1e4 } } },
    /rope_parameters\.full_attention: expected one setting for all layers/,
  ],
  [{ rope_parameters: { partial_rotary_factor: 0.5 } }, /partial_rotary_factor: expected 1/],
  [{ partial_rotary_factor: 0.5 }, /partial_rotary_factor: expected 1, received 0\.5/],
  [
    { rope_parameters: { rope_theta: 0 } },
    /rope_parameters\.rope_theta: expected a number above 0/,
  ],
  [{ rope_scaling: { ...llama3, low_freq_factor: undefined } }, /low_freq_factor: .* nothing/],
  [
    { rope_scaling: { ...llama3, high_freq_factor: 1 } },
    /high_freq_factor: expected more than low_freq_factor \(1\), received 1/,
  ],
  [{ rope_scaling: { ...yarn, truncate: 1 } }, /truncate: expected true or false, received 1/],
  [
    { rope_scaling: { ...yarn, attention_factor: -1 } },
    /attention_factor: expected a number above 0/,
  ],
  [
    { rope_scaling: { ...yarn, original_max_position_embeddings: 0.5 } },
    /original_max_position_embeddings: expected a whole number above 0/,
  ],
  [{ layer_types: ["full_attention", "sliding_attention"] }, /layer_types: expected all "full/],
  [
    { model_type: "mistral", sliding_window: -1 },
    /sliding_window: expected a whole number above 0/,
  ],
  [
    { model_type: "mistral", layer_types: Array(3).fill("full_attention") },
    /layer_types: expected all "sliding_attention", received \["full_attention"/,
  ],
  [{ model_type: "mistral", attention_bias: true }, /attention_bias: expected false/],
  [
    { ...qwenWindow, max_window_layers: 2 },
    /max_window_layers: expected 0 or at least 3 \(num_hidden_layers\): a window in some layers only is not/,
  ],
  [
    {
      ...qwenWindow,
      layer_types: ["full_attention", "sliding_attention", "sliding_attention"],
    },
    /layer_types: expected all "full_attention", or all "sliding_attention" with .*sliding_window/,
  ],
  [
    { model_type: "qwen2", layer_types: Array(3).fill("sliding_attention") },
    /layer_types: expected all "full_attention"/,
  ],
  [{ layer_types: 5 }, /layer_types: expected all "full_attention", .*, received 5/],
  [{ layer_types: [] }, /layer_types: expected all "full_attention", .*, received \[\]/],
  [{ ...qwenWindow, max_window_layers: "0" }, /max_window_layers: .*, received "0"/],
  [{ attention_dropout: 0.1 }, /attention_dropout: expected 0, received 0\.1/],
  [{ tie_word_embeddings: "yes" }, /tie_word_embeddings: expected true or false, received "yes"/],
  [{ model_type: "qwen2", use_sliding_window: "no" }, /use_sliding_window: expected true or false/],
  [{ model_type: "qwen3", attention_bias: true }, /attention_bias: expected false, received true/],
  [{ model_type: "qwen3", head_dim: 31 }, /head_dim: expected an even number, received 31/],
];
for (const [change, message] of refused) {
  test(`config: ${JSON.stringify(change)} is refused, not computed wrongly`, () => {
    assert.throws(
      () => read(config(change)),
      (error: unknown) => {
        assert.ok(error instanceof CheckpointError);
        assert.match(error.message, message);
        return true;
      },
    );
  });
}

test("an unsupported model_type says what the supported ones stand for", () => {
  assert.throws(
    () => read(config({ model_type: "gemma2" })),
    (error: unknown) => error instanceof CheckpointError && /Qwen 2\.5 is qwen2/.test(error.hint!),
  );
});

test("dynamic scaling is the default up to max_position_embeddings, and refused beyond", () => {
  const dynamic = read(config({ rope_scaling: { type: "dynamic", factor: 2 } }));
  checkPositions(dynamic, 4096, "the longest sequence of the run");
  assert.throws(
    () => checkPositions(dynamic, 4097, "the longest sequence of the run"),
    (error: unknown) => {
      assert.ok(error instanceof ConfigError);
      assert.match(
        error.message,
        /^the longest sequence of the run: expected at most 4096 tokens \(max_position_embeddings\), received 4097: .*"dynamic" depends on the longest sequence of a padded batch/,
      );
      assert.match(error.hint!, /max_length/);
      return true;
    },
  );
  checkPositions(read(base), 1e6, "the longest sequence of the run");
});
