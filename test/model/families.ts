import { copyFileSync, existsSync, readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import type { TestContext } from "node:test";
import type { RecipeInput } from "#src/config/schema.js";
import { fixture } from "../support/paths.js";
import { temporaryFolder } from "../train/support.js";

/** One curve of ten steps: test/fixtures/model/README.md. */
export interface Curve {
  readonly recipe: Readonly<Record<string, unknown>>;
  readonly steps: readonly Readonly<Record<string, number>>[];
  readonly change_norm: number;
  readonly change_norms: Readonly<Record<string, number>>;
  /** Where the changes are in expected.safetensors, the value of one unit of each tensor. */
  readonly scales: Readonly<Record<string, number>>;
}

/** `expected.json` of a family: test/fixtures/model/README.md. */
export interface FamilyExpected {
  readonly weights: string;
  readonly logits: { readonly ids: number[] };
  readonly pairs: readonly {
    readonly id: string;
    readonly chosen: number[];
    readonly rejected: number[];
  }[];
  readonly simper: { readonly loss: number; readonly grad_norm: number };
  readonly gradients: Readonly<
    Record<string, { readonly norm: number; readonly at: number[]; readonly values: number[] }>
  >;
  readonly generate: readonly { readonly prompt: number[]; readonly ids: number[] }[];
  readonly curves: Readonly<Record<"simper" | "sigmoid", Curve>>;
}

export interface Family {
  readonly name: string;
  readonly expected: FamilyExpected;
  /** expected.safetensors. */
  readonly tensors: string;
  /** pairs.jsonl. */
  readonly pairs: string;
  /** Model directory; one that borrows its weights is put together in a temporary folder. */
  model(t: TestContext): string;
}

/** The models of `test/fixtures/model/families`. */
export const families: readonly Family[] = readdirSync(fixture("model", "families"), {
  withFileTypes: true,
})
  .filter((entry) => entry.isDirectory())
  .map(({ name }) => {
    const file = (...parts: string[]) => fixture("model", "families", ...parts);
    const expected = JSON.parse(readFileSync(file(name, "expected.json"), "utf8"));
    const weights = (expected as FamilyExpected).weights;
    return {
      name,
      expected: expected as FamilyExpected,
      tensors: file(name, "expected.safetensors"),
      pairs: file(weights, "pairs.jsonl"),
      model(t) {
        if (existsSync(file(name, "model.safetensors"))) return file(name);
        const folder = temporaryFolder(t);
        copyFileSync(file(name, "config.json"), path.join(folder, "config.json"));
        copyFileSync(file(weights, "model.safetensors"), path.join(folder, "model.safetensors"));
        return folder;
      },
    };
  });

/** The recipe of a curve in code's spelling. */
export function curveRecipe(
  family: Family,
  curve: Curve,
  model: string,
  changes: Partial<RecipeInput> = {},
): RecipeInput {
  const camel = (name: string) =>
    name.replace(/_(.)/g, (_, letter: string) => letter.toUpperCase());
  const keys = Object.entries(curve.recipe).map(([name, value]) => [camel(name), value] as const);
  return {
    ...(Object.fromEntries(keys) as RecipeInput),
    modelNameOrPath: model,
    datasetMixer: { [family.pairs]: 1 },
    bf16: false,
    maxLength: 128,
    maxPromptLength: 64,
    doEval: false,
    loggingSteps: 1,
    saveStrategy: "no",
    ...changes,
  };
}
