import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { curveRecipe, families } from "../model/families.js";
import { readTensors, runRecipe, temporaryFolder } from "../train/support.js";

function configOf(folder: string): Record<string, unknown> {
  return JSON.parse(readFileSync(path.join(folder, "config.json"), "utf8"));
}

for (const family of families) {
  for (const [saveDtype, stored] of [
    ["bfloat16", "BF16"],
    ["float32", "F32"],
  ] as const) {
    test(`${family.name}: a model saved as ${saveDtype} has the names, shapes and config it came with`, async (t) => {
      const model = family.model(t);
      const outputDir = temporaryFolder(t);
      // The only step has rate 0: what is saved is what was loaded.
      const changes = { maxSteps: 1, warmupSteps: 1, saveDtype };
      const recipe = curveRecipe(family, family.expected.curves.simper, model, changes);
      await runRecipe({ ...recipe, outputDir });
      const before = await readTensors(model);
      const after = await readTensors(outputDir);
      assert.deepEqual([...after.keys()].sort(), [...before.keys()].sort());
      for (const [name, { shape, values }] of before) {
        const saved = after.get(name)!;
        assert.equal(saved.dtype, stored, name);
        assert.deepEqual(saved.shape, shape, name);
        // Subtracting 0 makes 0 of −0.
        const zero = (value: number) => value + 0;
        assert.deepEqual(saved.values.map(zero), values.map(zero), name);
      }
      const { dtype, torch_dtype, ...fields } = configOf(outputDir);
      const { dtype: _, torch_dtype: __, ...original } = configOf(model);
      assert.deepEqual(fields, original);
      assert.equal(dtype ?? torch_dtype, saveDtype);
    });
  }
}
