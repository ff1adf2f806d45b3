// Writes what is derived from the recipe's schema: configs/schema.json (for editors) and docs/recipes.md.
//
//   npm run build:ts && node scripts/docs.mjs            writes them
//   node scripts/docs.mjs --check                        exits 1 where a file is not what it would be
import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import * as z from "zod";
import { foreignKeys } from "../dist/config/foreign.js";
import { recipeKeys } from "../dist/config/help.js";
import { toRecipeKey } from "../dist/config/names.js";
import { aliases, recipeSchema } from "../dist/config/schema.js";
import { translations } from "../dist/config/translate.js";

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));

const { properties: own, required } = z.toJSONSchema(recipeSchema, { io: "input" });
const requiredKeys = required.map(toRecipeKey);

const effects = { true: "Not supported", false: "No effect", some: "No effect, or not supported" };

/** JSON Schema of a recipe file: our keys, their other spellings, and the known keys of other trainers. */
function jsonSchema() {
  const properties = {};
  for (const [name, { later: _, ...field }] of Object.entries(own)) {
    properties[toRecipeKey(name)] = field;
  }
  for (const [alias, name] of Object.entries(aliases)) {
    properties[alias] = { ...properties[toRecipeKey(name)], deprecated: true };
  }
  for (const [key, { name }] of Object.entries(translations)) {
    properties[key] = {
      description: `TRL's way to say ${toRecipeKey(name)}.`,
      type: ["string", "null"],
      deprecated: true,
    };
  }
  for (const [key, { reason, idle, refused }] of Object.entries(foreignKeys)) {
    const description = `${effects[String(refused)] ?? effects.some}: ${reason}.`;
    const values = refused === true ? { enum: idle } : {};
    properties[key] = { description, deprecated: true, ...values };
  }
  return {
    $schema: "https://json-schema.org/draft/2020-12/schema",
    title: "Recipe of simper-native",
    type: "object",
    required: requiredKeys,
    properties,
    additionalProperties: false,
  };
}

/** Every key of a recipe as a table, and what becomes of the keys of other trainers. */
function recipesPage() {
  const cell = (text) => text.replace(/[|<]/g, "\\$&");
  const shown = (key, value) => {
    if (requiredKeys.includes(key)) return "required";
    return (value ?? null) === null ? "" : `\`${JSON.stringify(value)}\``;
  };
  const rows = recipeKeys().map(
    ({ key, description, defaultValue }) =>
      `| \`${key}\` | ${shown(key, defaultValue)} | ${cell(description)} |`,
  );
  const foreign = (wanted) =>
    Object.entries(foreignKeys)
      .filter(([, { refused }]) => (typeof refused === "boolean" ? refused : "some") === wanted)
      .map(([key, { reason }]) => `| \`${key}\` | ${cell(reason)} |`);
  const spellings = Object.entries(aliases).map(
    ([alias, name]) => `\`${alias}\` for \`${toRecipeKey(name)}\``,
  );
  const trl = Object.entries(translations).map(
    ([key, { name }]) => `\`${key}\` (\`${toRecipeKey(name)}\`)`,
  );
  return `<!-- Written by scripts/docs.mjs from the recipe's schema; do not edit. -->
# Recipe keys

A recipe is a YAML file of these keys; each is also an option of \`train\`, \`plan\` and \`inspect\` (\`--key value\`).
For completion and checks in an editor, begin the file with

\`\`\`yaml
# yaml-language-server: $schema=<path to simper-native>/configs/schema.json
\`\`\`

The last one wins: a value on the command line replaces the file's. Text is read as what its key expects, as Python's trainers
do: \`"5e-7"\` is a number, \`yes\` a boolean, \`train,test\` a list, one path a whole \`dataset_mixer\`.

| key | default | |
|---|---|---|
${rows.join("\n")}

Also understood: ${spellings.join(", ")}; and of TRL's scripts ${trl.join(", ")}.

## Published recipes

\`configs/\` has the four of SimPER, with the published values: \`mistral-7b-base-simper\`, \`mistral-7b-instruct-simper\`,
\`llama-3-8b-base-simper\`, \`llama-3-8b-instruct-simper\`. They, and the files of SimPER, SimPO and alignment-handbook as they
are, name models and data on the Hub; here both are local folders, so name yours:

\`\`\`bash
simper-native train mistral-7b-base-simper.yaml --model_name_or_path models/zephyr-7b-sft-full \\
  --dataset_mixer '{data/ultrafeedback: 1.0}' --accelerate_config deepspeed_zero3.yaml
\`\`\`

- SimPER's and SimPO's files have the same keys, \`beta\` and \`gamma_beta_ratio\` among them, and neither names its loss. Without
  \`loss_type\` a recipe with a \`gamma_beta_ratio\` is for the loss that its run is named after: with "simpo" in \`hub_model_id\`, else in
  \`run_name\`, else in the last folder of \`output_dir\`, it is \`sigmoid\`, and a notice says so; with "simper" there it is SimPER. Where no
  name tells, it is SimPER, and a notice says that too.
- A file with keys of next-token training only (\`max_seq_length\`, \`packing\` …) and no \`loss_type\` is \`sft\`.
- DPO with its reference model is not supported. A DPO file that names no loss trains SimPER, without its \`beta\`, and \`sigmoid\` and
  \`hinge\` are SimPO's, with a \`gamma_beta_ratio\` of 0.25 where there is none; a notice says so.
- \`dataset_mixture\` of newer files is not read: give \`--dataset_mixer\`.

## \`--accelerate_config file.yaml\`

\`train\` and \`plan\` read the file that \`accelerate launch\` would be given: \`num_processes\`, \`mixed_precision\`, and of
\`deepspeed_config\` \`zero_stage\` and \`offload_optimizer_device\`. Precision, stage and offloading there hold where the recipe does not say;
\`gradient_clipping\` and \`gradient_accumulation_steps\` of DeepSpeed, as numbers, have to agree with the recipe. Processes are started by
\`--nproc\` or another launcher ([distributed.md](distributed.md)), never by the file: where their number differs, a notice says what a
step then is, and how it becomes what it was. Other keys that ask for something are named in a notice.

## \`report_to\`

\`metrics.jsonl\` is always written. Besides it, every \`logging_steps\` and after each evaluation, under transformers' names
(\`train/loss\`, \`eval/rewards/accuracies\`):

| value | |
|---|---|
| \`tensorboard\` | event files in \`logging_dir\`, by default \`output_dir/runs/<time>_<host>\` |
| \`wandb\` | a run in \`project\`, through an installed wandb (the Python of its command on PATH, else \`python3\`), in a process of its own; event files too. Where wandb is not installed a notice says so when the run starts, and an offline run is written that \`wandb sync <folder>\` uploads from where it is; releases up to 0.29 also take the event files, with \`--sync-tensorboard\` |
| \`all\` | of what transformers' \`all\` may mean, what is written here: \`tensorboard\`, and \`wandb\` where it is installed |
| \`mlflow\`, \`comet_ml\`, \`trackio\` and the others that transformers knows | nothing; a notice says that all metrics are in \`metrics.jsonl\` |
| \`none\` | nothing more; the default |

## Keys of other trainers: accepted, no effect

Recipes for TRL and alignment-handbook have them. They change no number here; a notice names those that are set.

| key | why |
|---|---|
${foreign(false).join("\n")}

## Keys of other trainers: refused

They would change the result. Only values that switch them off are accepted.

| key | why |
|---|---|
${foreign(true).join("\n")}

## Keys of other trainers: refused for some values

| key | why |
|---|---|
${foreign("some").join("\n")}
`;
}

const files = {
  "configs/schema.json": `${JSON.stringify(jsonSchema(), null, 2)}\n`,
  "docs/recipes.md": recipesPage(),
};
for (const [name, content] of Object.entries(files)) {
  const file = path.join(root, name);
  if (!process.argv.includes("--check")) {
    writeFileSync(file, content);
  } else if (readFileSync(file, "utf8") !== content) {
    console.error(`${name} is not what the schema says. Write it anew: node scripts/docs.mjs`);
    process.exitCode = 1;
  }
}
