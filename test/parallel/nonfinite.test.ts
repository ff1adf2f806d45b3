import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { makeTinyModel } from "../model/tiny.js";
import { root } from "../support/paths.js";
import { noMpi, runRanks } from "../support/ranks.js";
import { gqaPairs, readLines, temporaryFolder, writeLines } from "../train/support.js";

// Two pairs on four ranks: two ranks find what is not finite in layer 1 of 5, and two have nothing to compute. In
// stage 3 these walk on, and wait for weights that the first two have to keep sending.
for (const stage of [1, 2, 3]) {
  test(`on_nonfinite: stop in zero_stage ${stage} ends ranks that found nothing, too`, {
    skip: noMpi,
  }, async (t) => {
    const folder = temporaryFolder(t);
    const model = await makeTinyModel(path.join(folder, "model"), {
      tokenizer: false,
      config: { tie_word_embeddings: false, num_hidden_layers: 5 },
      change: (weights) => {
        weights.get("model.layers.1.mlp.up_proj.weight")![7] = Number.NaN;
      },
    });
    const pairs = writeLines(path.join(folder, "pairs.jsonl"), readLines(gqaPairs).slice(0, 2));
    const recipe = path.join(folder, "recipe.yaml");
    const keys = {
      model_name_or_path: model,
      dataset_mixer: { [pairs]: 1 },
      loss_type: "SimPER",
      per_device_train_batch_size: 1,
      max_steps: 1,
      max_length: 128,
      max_prompt_length: 64,
      do_eval: false,
      zero_stage: stage,
      ddp_timeout: 120,
      output_dir: path.join(folder, "run"),
    };
    writeFileSync(recipe, JSON.stringify(keys));
    const command = ["train", "--device", "cpu", recipe];
    const { code, stderr } = await runRanks(4, path.join(root, "dist", "cli.js"), command);
    assert.equal(code, 1, stderr);
    const found =
      /step 1: loss NaN.*first in rank 0, layer 1, forward: matmul wrote NaN to gateUp at \[\d+, 48\]/g;
    assert.equal(stderr.match(found)?.length, 1, stderr);
    assert.doesNotMatch(stderr, /no answer|did not answer|within \d+ s/);
  });
}
