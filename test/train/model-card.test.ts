import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { cpSync, existsSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import * as yaml from "js-yaml";
import { defineConfig, loadRecipe } from "#src/config/load.js";
import type { RecipeInput } from "#src/config/schema.js";
import type { Loss } from "#src/loss/index.js";
import { isOwnCard } from "#src/report/model-card.js";
import { packageVersion } from "#src/train/environment.js";
import { root } from "../support/paths.js";
import { gqaModel, runRecipe, splitFolder, temporaryFolder, trajectory } from "./support.js";

function cardOf(file: string) {
  const text = readFileSync(file, "utf8");
  const [, about] = /^---\n([\s\S]*?)\n---\n/.exec(text)!;
  const recipe = /\n(`{3,})yaml\n([\s\S]*?)\n\1\n/.exec(text)![2]!;
  /** Cells of the line of a table that begins with `first`, the n-th of them. */
  const row = (first: string, n = 0) => {
    const lines = text.split("\n").filter((line) => line.startsWith(`| ${first} |`));
    return lines[n]?.slice(2, -2).split(" | ");
  };
  return { text, about: yaml.load(about!) as Record<string, unknown>, recipe, row };
}

async function recipe(
  folder: string,
  changes: Partial<RecipeInput> = {},
): Promise<RecipeInput & { outputDir: string }> {
  const data = await splitFolder(folder, 5);
  const evaluation = { doEval: true, evalOnStart: true, evalSteps: 5, loggingSteps: 4 } as const;
  return {
    ...trajectory({ datasetMixer: { [data]: 0.75 }, ...evaluation, ...changes }),
    outputDir: path.join(folder, "my-run"),
  };
}

test("README.md says what was trained on what, how, and with which results", async (t) => {
  const folder = temporaryFolder(t);
  const modelNameOrPath = path.join(folder, "base-model");
  cpSync(gqaModel, modelNameOrPath, { recursive: true });
  writeFileSync(
    path.join(modelNameOrPath, "README.md"),
    "---\nlicense: other\nlicense_name: tiny\ntags: [a]\n---\n# Base\n",
  );
  const input = await recipe(folder, { modelNameOrPath, learningRate: 5e-7 });
  const { outputDir, evals, steps } = await runRecipe(input);
  const { text, about, recipe: written, row } = cardOf(path.join(outputDir, "README.md"));
  assert.deepEqual(about, {
    base_model: "base-model",
    license: "other",
    license_name: "tiny",
    library_name: "transformers",
    pipeline_tag: "text-generation",
    datasets: ["data"],
    tags: ["simper-native", "preference-optimization", "simper"],
    model_name: "my-run",
  });
  assert.match(text, /\n# my-run\n/);
  assert.match(
    text,
    /`base-model`, fine-tuned with SimPER .*those after the last of 10 optimizer steps\.\n/,
  );

  // The first 10 of 14 rows, and all 5 of the test split.
  assert.deepEqual(row("train"), ["train", "10", "10", "0", "0"]);
  assert.deepEqual(row("test"), ["test", "5", "5", "0", "0"]);
  assert.deepEqual(row("`data`"), ["`data`", "0.75"]);

  const shown = (value: number) => String(Number(value.toPrecision(5)));
  const last = evals.at(-1)!;
  const mean = (values: number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const losses = steps.map(({ loss }) => loss!);
  assert.deepEqual(row("train_loss"), ["train_loss", shown(mean(losses)), "–"]);
  assert.deepEqual(row("loss"), ["loss", shown(mean(losses.slice(8))), shown(last.eval_loss!)]);
  const margins = steps.slice(8).map((record) => record["rewards/margins"]!);
  assert.deepEqual(row("rewards/margins"), [
    "rewards/margins",
    shown(mean(margins)),
    shown(last["eval_rewards/margins"]!),
  ]);
  // Evaluations, each with the loss logged before it: none, that of step 4, that of steps 9 and 10.
  for (const [i, logged] of [undefined, losses.slice(0, 4), losses.slice(8)].entries()) {
    const { step, epoch, eval_loss } = evals[i]!;
    const cells = [
      String(step),
      shown(epoch!),
      logged ? shown(mean(logged)) : "–",
      shown(eval_loss!),
    ];
    assert.deepEqual(row(String(step))!.slice(0, 4), cells);
  }

  // The recipe trains the same again.
  const file = path.join(folder, "again.yaml");
  writeFileSync(file, written);
  assert.deepEqual(loadRecipe(file).config, defineConfig(input).config);

  assert.equal(row("Node.js")![1], process.versions.node);
  const { version } = JSON.parse(readFileSync(path.join(root, "package.json"), "utf8"));
  assert.ok(row("simper-native")![1]!.startsWith(version));
  assert.match(row("device")![1]!, /^cpu, \d+ threads$/);
  assert.equal(row("precision")![1], "f32");
});

test("the best weights, a loss of one's own and a chat template with code in it are in the card as they are", async (t) => {
  const folder = temporaryFolder(t);
  const loss: Loss = {
    name: "half | simper",
    examples: "pairs",
    scale: ({ examples }) => 0.5 / examples,
    reduce: (s, mean, terms, coefficient, logp, responses, scale) =>
      s.simperLoss(mean, terms, coefficient, logp, responses, scale),
  };
  const input = await recipe(folder, {
    chatTemplate: "{# ```` #}\n{% for m in messages %}{{ m.content }}\n{% endfor %}",
    loadBestModelAtEnd: true,
    saveSteps: 5,
    saveStrategy: "steps",
    metricForBestModel: "rewards/rejected",
    greaterIsBetter: true,
  });
  const { outputDir, evals } = await runRecipe(input, { loss });
  const { text, recipe: written, row } = cardOf(path.join(outputDir, "README.md"));
  const best = evals.find(({ step }) => step === 5)!;
  assert.match(
    text,
    /with a loss of its own, `half \| simper`\. The weights are those after step 5 of 10, the best by eval_rewards\/rejected, higher is better\./,
  );
  assert.equal(row("loss")![2], String(Number(best.eval_loss!.toPrecision(5))));
  assert.equal((yaml.load(written) as { chat_template: string }).chat_template, input.chatTemplate);
});

test("a card of ours is replaced; a README.md that is not ours stays, and the card goes beside it", async (t) => {
  const folder = temporaryFolder(t);
  const input = await recipe(folder, { maxSteps: 1 });
  const readme = path.join(input.outputDir, "README.md");
  const other = path.join(input.outputDir, "MODEL_CARD.md");
  await runRecipe(input);
  await runRecipe({ ...input, maxSteps: 2 });
  assert.match(readFileSync(readme, "utf8"), /the last of 2 optimizer steps/);
  assert.ok(!existsSync(other));

  const mine = readFileSync(readme, "utf8").replace(/# Written by simper-native.*\n/, "");
  assert.ok(!isOwnCard(mine));
  writeFileSync(readme, mine);
  const { notices } = await runRecipe({ ...input, maxSteps: 1 });
  assert.equal(readFileSync(readme, "utf8"), mine);
  assert.match(readFileSync(other, "utf8"), /the last of 1 optimizer steps/);
  assert.ok(
    notices.some((text) =>
      /README\.md was there and is not ours; the model card is in .*MODEL_CARD\.md$/.test(text),
    ),
    notices.join("\n"),
  );

  writeFileSync(other, "theirs, too");
  const again = await runRecipe(input);
  assert.equal(readFileSync(other, "utf8"), "theirs, too");
  assert.ok(again.notices.some((text) => /are not ours, so no model card is written$/.test(text)));
});

test("a README.md of the base model that is damaged says no licence, and is no error", async (t) => {
  const folder = temporaryFolder(t);
  const modelNameOrPath = path.join(folder, "base");
  cpSync(gqaModel, modelNameOrPath, { recursive: true });
  writeFileSync(path.join(modelNameOrPath, "README.md"), "---\nlicense: [mit\n---\n");
  const { outputDir } = await runRecipe(await recipe(folder, { modelNameOrPath, maxSteps: 1 }));
  assert.ok(!("license" in cardOf(path.join(outputDir, "README.md")).about));
});

test("the commit is that of the clone, by a branch, packed or not, or by itself; a package has its gitHead", (t) => {
  if (spawnSync("git", ["--version"]).status !== 0) return t.skip("skipped: there is no git");
  const folder = temporaryFolder(t);
  const git = (...words: string[]) =>
    execFileSync("git", ["-c", "user.name=t", "-c", "user.email=t@t", ...words], {
      cwd: folder,
      encoding: "utf8",
      stdio: ["ignore", "pipe", "ignore"],
    }).trim();
  const write = (fields: object) =>
    writeFileSync(
      path.join(folder, "package.json"),
      JSON.stringify({ version: "1.2.3", ...fields }),
    );
  write({});
  assert.deepEqual(packageVersion(folder), { version: "1.2.3" });
  git("init", "-q");
  assert.deepEqual(packageVersion(folder), { version: "1.2.3" }, "nothing is committed yet");
  git("add", "package.json");
  git("commit", "-qm", "one");
  const commit = git("rev-parse", "HEAD");
  assert.deepEqual(packageVersion(folder), { version: "1.2.3", commit });
  git("pack-refs", "--all");
  assert.deepEqual(packageVersion(folder), { version: "1.2.3", commit });
  git("checkout", "-q", "--detach");
  assert.deepEqual(packageVersion(folder), { version: "1.2.3", commit });
  write({ gitHead: "a".repeat(40) });
  assert.deepEqual(packageVersion(folder), { version: "1.2.3", commit: "a".repeat(40) });
});
