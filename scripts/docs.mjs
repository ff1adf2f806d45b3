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

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));

const { properties: own, required } = z.toJSONSchema(recipeSchema, { io: "input" });
const requiredKeys = required.map(toRecipeKey);

/** JSON Schema of a recipe file: our keys, their other spellings, and the known keys of other trainers. */
function jsonSchema() {
  const properties = {};
  for (const [name, { later: _, ...field }] of Object.entries(own)) {
    properties[toRecipeKey(name)] = field;
  }
  for (const [alias, name] of Object.entries(aliases)) {
    properties[alias] = { ...properties[toRecipeKey(name)], deprecated: true };
  }
  for (const [key, { reason, idle, refused }] of Object.entries(foreignKeys)) {
    const description = `${refused ? "Not supported" : "No effect"}: ${reason}.`;
    properties[key] = { description, deprecated: true, ...(refused ? { enum: idle } : {}) };
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
      .filter(([, { refused }]) => refused === wanted)
      .map(([key, { reason }]) => `| \`${key}\` | ${cell(reason)} |`);
  const spellings = Object.entries(aliases).map(
    ([alias, name]) => `\`${alias}\` for \`${toRecipeKey(name)}\``,
  );
  return `<!-- Written by scripts/docs.mjs from the recipe's schema; do not edit. -->
# Recipe keys

A recipe is a YAML file of these keys; each is also an option of \`train\`, \`plan\` and \`inspect\` (\`--key value\`).
For completion and checks in an editor, begin the file with

\`\`\`yaml
# yaml-language-server: $schema=<path to simper-native>/configs/schema.json
\`\`\`

| key | default | |
|---|---|---|
${rows.join("\n")}

Also understood: ${spellings.join(", ")}.

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
