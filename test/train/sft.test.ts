import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import type { RecipeInput } from "#src/config/schema.js";
import { makeTinyModel } from "../model/tiny.js";
import { fixture } from "../support/paths.js";
import {
  gqaPairs,
  type PairRow,
  readLines,
  runRecipe,
  temporaryFolder,
  trajectory,
  writeLines,
} from "./support.js";

interface Expected {
  readonly sft: { readonly loss: number; readonly grad_norm: number; readonly tokens: number };
}
const { sft } = JSON.parse(
  readFileSync(fixture("model", "llama-gqa", "expected.json"), "utf8"),
) as Expected;

/** The chosen sequences of the fixture, every token a label. */
function sequences(folder: string): string {
  const rows = readLines<PairRow>(gqaPairs);
  const file = path.join(folder, "sequences.jsonl");
  return writeLines(
    file,
    rows.map((row) => ({ id: row.id, input_ids: row.chosen_input_ids })),
  );
}

for (const [way, changes] of Object.entries({
  "packed together": {},
  "a few per micro-batch": { maxTokensPerMicroBatch: 128 },
  "gradient checkpointing": { gradientCheckpointing: true },
} satisfies Record<string, Partial<RecipeInput>>)) {
  test(`sft: the loss is the mean over all tokens of a step, as transformers has it (${way})`, async (t) => {
    const folder = temporaryFolder(t);
    const input = trajectory({
      lossType: "sft",
      datasetMixer: { [sequences(folder)]: 1 },
      perDeviceTrainBatchSize: 14,
      gradientAccumulationSteps: 1,
      maxSteps: 1,
      ...changes,
    });
    const { steps } = await runRecipe({ ...input, outputDir: path.join(folder, "run") });
    const { loss, grad_norm, ...rest } = steps[0]!;
    assert.ok(Math.abs(loss! - sft.loss) < 1e-6 * sft.loss, `${loss}, expected ${sft.loss}`);
    assert.ok(Math.abs(grad_norm! - sft.grad_norm) < 1e-5 * sft.grad_norm, `norm ${grad_norm}`);
    // No pairs, no pair metrics.
    assert.deepEqual(
      Object.keys(rest).filter((name) => name.includes("/")),
      [],
    );
  });
}

test("sft: labels of -100 are not scored", async (t) => {
  const folder = temporaryFolder(t);
  const rows = readLines<PairRow>(gqaPairs);
  const expected = JSON.parse(
    readFileSync(fixture("model", "llama-gqa", "expected.json"), "utf8"),
  ) as { pairs: { chosen: { logps: number[] } }[] };
  const file = writeLines(
    path.join(folder, "rows.jsonl"),
    rows.map((row) => ({ input_ids: row.chosen_input_ids, labels: row.chosen_labels })),
  );
  const input = trajectory({
    lossType: "sft",
    datasetMixer: { [file]: 1 },
    perDeviceTrainBatchSize: 14,
    gradientAccumulationSteps: 1,
    maxSteps: 1,
  });
  const { steps } = await runRecipe({ ...input, outputDir: path.join(folder, "run") });
  const logps = expected.pairs.flatMap(({ chosen }) => chosen.logps);
  const want = -logps.reduce((a, b) => a + b, 0) / logps.length;
  assert.ok(Math.abs(steps[0]!.loss! - want) < 1e-6 * want, `${steps[0]!.loss}, expected ${want}`);
});

const textRows = [
  "two and three are five",
  "four and one are five",
  "the sum of two and two is four",
  "one and one are two",
].map((text) => ({ text }));
const chats = textRows.map(({ text }) => ({
  messages: [
    { role: "user", content: "say something true" },
    { role: "assistant", content: text },
  ],
}));

for (const [kind, rows] of Object.entries({ text: textRows, messages: chats })) {
  for (const bf16 of [false, true]) {
    test(`sft: training on ${kind} rows lowers the loss (bf16: ${bf16})`, async (t) => {
      const folder = temporaryFolder(t);
      const model = await makeTinyModel(path.join(folder, "model"));
      const data = path.join(folder, "data.jsonl");
      const input: RecipeInput & { outputDir: string } = {
        modelNameOrPath: model,
        datasetMixer: { [writeLines(data, rows)]: 1 },
        lossType: "sft",
        bf16,
        perDeviceTrainBatchSize: 4,
        maxSteps: 20,
        learningRate: 0.01,
        lrSchedulerType: "constant",
        maxLength: 64,
        saveStrategy: "no",
        doEval: false,
        outputDir: path.join(folder, "run"),
      };
      const { steps } = await runRecipe(input);
      const [first, last] = [steps[0]!.loss!, steps.at(-1)!.loss!];
      // Random weights know nothing: the loss starts at ln 645.
      assert.ok(Math.abs(first - Math.log(645)) < 0.2, `starts at ${first}`);
      assert.ok(last < 0.5 * first, `from ${first} to ${last}`);
      // The tokenizer files come along, so that the result is a model of its own.
      for (const name of ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]) {
        const copy = readFileSync(path.join(folder, "run", name));
        assert.ok(copy.equals(readFileSync(path.join(model, name))), name);
      }
    });
  }
}
