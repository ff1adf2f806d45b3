import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { gunzipSync } from "node:zlib";
import { readJsonl } from "#src/data/formats/jsonl.js";
import { createPreparer } from "#src/data/prepare.js";
import { readPreferenceRow, readSftRow } from "#src/data/rows.js";
import type { TokenizedPair } from "#src/data/types.js";
import { DataError } from "#src/errors.js";
import { fixture } from "../support/paths.js";
import { collect, dataConfig } from "./support.js";

/**
 * `expected/<model>.json` was written by test/fixtures/data/make_fixtures.py: Python's tokenizers and
 * Jinja2, and a second implementation of the reference's rules.
 */
interface Refused {
  readonly error: string;
}
interface Setting {
  readonly max_length: number;
  readonly max_prompt_length: number;
  readonly truncation_mode: "keep_end" | "keep_start";
  readonly auto_insert_empty_system_msg: boolean;
}
interface CorrectedSetting extends Omit<Setting, "max_prompt_length"> {
  readonly pairs: ((Pair & { readonly texts?: Texts }) | Refused)[];
}
type Texts = Record<"prompt" | "chosen" | "rejected", string>;
interface Pair {
  readonly chosen_ids: number[];
  readonly chosen_unscored: number;
  readonly rejected_ids: number[];
  readonly rejected_unscored: number;
}
interface Expected {
  readonly settings: Setting[];
  readonly texts: Record<"true" | "false", (Texts | Refused)[]>;
  readonly pairs: (Pair | Refused)[][];
  readonly corrected: readonly CorrectedSetting[];
  readonly sft: ({ text: string; ids: number[] } | Refused)[];
}

const rows = await collect(readJsonl(fixture("data", "rows.jsonl")));

function labels(ids: readonly number[], unscored: number): number[] {
  return ids.map((id, i) => (i < unscored ? -100 : id));
}

/** Tokenizers and templates built like those of the model families. */
const models = [
  "llama2",
  "llama3",
  "llama31",
  "mistral",
  "qwen2",
  "qwen3",
  "smollm2",
  "zephyr",
] as const;

function assertPair(got: TokenizedPair, want: Pair, what: string): void {
  for (const side of ["chosen", "rejected"] as const) {
    const ids: number[] = want[`${side}_ids`];
    assert.deepEqual(Array.from(got[side].ids), ids, `${what} ${side}`);
    const unscored = want[`${side}_unscored`];
    assert.deepEqual(Array.from(got[side].labels), labels(ids, unscored), `${what} ${side} labels`);
  }
}

/** The row is refused with its file and line. */
async function assertRefused(preparing: Promise<unknown>, i: number): Promise<void> {
  const error: unknown = await preparing.then(
    () => assert.fail(`row ${i} should be refused`),
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof DataError);
  assert.match(error.message, new RegExp(`rows\\.jsonl:${i + 1}: `));
}

for (const model of models) {
  const expected = JSON.parse(
    gunzipSync(readFileSync(fixture("data", "expected", `${model}.json.gz`))).toString("utf8"),
  ) as Expected;

  for (const [s, setting] of expected.settings.entries()) {
    const name = `${setting.max_length}/${setting.max_prompt_length} ${setting.truncation_mode}`;
    test(`reference: ${model} ${name}: strings, ids and labels are Python's, row for row`, async () => {
      const config = dataConfig({
        maxLength: setting.max_length,
        maxPromptLength: setting.max_prompt_length,
        truncationMode: setting.truncation_mode,
        autoInsertEmptySystemMsg: setting.auto_insert_empty_system_msg,
      });
      const preparer = createPreparer(config, fixture("data", model));
      const wantedPairs = expected.pairs[s] ?? [];
      const wantedTexts = expected.texts[setting.auto_insert_empty_system_msg ? "true" : "false"];
      assert.equal(wantedPairs.length, rows.length);
      for (const [i, raw] of rows.entries()) {
        const want = wantedPairs[i];
        const texts = wantedTexts[i];
        assert.ok(want !== undefined && texts !== undefined);
        if ("error" in want) {
          await assertRefused(preparer.pair(readPreferenceRow(raw)), i);
          continue;
        }
        const got = await preparer.pair(readPreferenceRow(raw));
        assert.deepEqual(got.texts, texts, `row ${i}`);
        assertPair(got.pair, want, `row ${i}`);
      }
    });
  }

  for (const setting of expected.corrected) {
    const insert = setting.auto_insert_empty_system_msg ? ", empty system message" : "";
    const name = `${setting.max_length} ${setting.truncation_mode}${insert}`;
    test(`corrected: ${model} ${name}: strings, ids and labels are Python's, row for row`, async () => {
      const config = dataConfig({
        dataSemantics: "corrected",
        maxLength: setting.max_length,
        truncationMode: setting.truncation_mode,
        autoInsertEmptySystemMsg: setting.auto_insert_empty_system_msg,
      });
      const preparer = createPreparer(config, fixture("data", model));
      assert.equal(setting.pairs.length, rows.length);
      for (const [i, raw] of rows.entries()) {
        const want = setting.pairs[i];
        assert.ok(want !== undefined);
        if ("error" in want) {
          await assertRefused(preparer.pair(readPreferenceRow(raw)), i);
          continue;
        }
        const got = await preparer.pair(readPreferenceRow(raw));
        if (want.texts !== undefined) assert.deepEqual(got.texts, want.texts, `row ${i}`);
        assertPair(got.pair, want, `row ${i}`);
      }
    });
  }

  test(`reference: ${model}: conversations and plain text for sft have TRL's ids`, async () => {
    const preparer = createPreparer(dataConfig({ maxLength: 96 }), fixture("data", model));
    for (const [i, raw] of rows.entries()) {
      const want = expected.sft[i];
      assert.ok(want !== undefined);
      const { chosen } = raw.value;
      const column = typeof chosen === "string" ? "text" : "messages";
      const row = readSftRow({ ...raw, value: { [column]: chosen } }, "text");
      if ("error" in want) {
        await assert.rejects(preparer.sequence(row), DataError);
        continue;
      }
      const got = await preparer.sequence(row);
      assert.equal(got.text, want.text, `row ${i}`);
      assert.deepEqual(Array.from(got.sequence.ids), want.ids, `row ${i}`);
      assert.deepEqual(got.sequence.labels, got.sequence.ids);
    }
  });
}
