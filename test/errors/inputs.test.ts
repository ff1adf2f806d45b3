import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import path from "node:path";
import { test } from "node:test";
import {
  gqaPairs,
  type PairRow,
  readLines,
  runCli,
  temporaryFolder,
  writeLines,
} from "../train/support.js";
import {
  checkRefusal,
  type Spoilt,
  spoiltHeader,
  spoiltLine3,
  spoiltModel,
  trainCommand,
} from "./support.js";

const norm = "model.norm.weight";

// What a user may give to `train`, how it ends and what is said about it.
const cases: readonly [string, number, (folder: string) => Spoilt, RegExp][] = [
  [
    "a model directory that is a file",
    1,
    () => ({ model_name_or_path: gqaPairs }),
    /pairs\.jsonl\/config\.json: cannot be read: ENOTDIR.*\n {2}model_name_or_path must be a local folder/,
  ],
  [
    "config.json that is no JSON",
    1,
    (folder) => spoiltModel(folder, (_, dir) => writeFileSync(path.join(dir, "config.json"), "{")),
    /config\.json: not valid JSON: .*\n {2}the file is damaged/,
  ],
  [
    "weights that are a folder",
    1,
    (folder) =>
      spoiltModel(folder, (file) => {
        rmSync(file);
        mkdirSync(file);
      }),
    /model\.safetensors: expected a file, found a folder, pipe or device\n/,
  ],
  [
    "weights that are a pipe nobody writes to",
    1,
    (folder) =>
      spoiltModel(folder, (file) => {
        rmSync(file);
        assert.equal(spawnSync("mkfifo", [file]).status, 0);
      }),
    /model\.safetensors: expected a file, found a folder, pipe or device\n/,
  ],
  [
    "safetensors cut to five bytes",
    1,
    (folder) => spoiltModel(folder, (file) => truncateSync(file, 5)),
    /model\.safetensors: has 5 bytes/,
  ],
  [
    "safetensors cut at the last byte",
    1,
    (folder) => spoiltModel(folder, (file) => truncateSync(file, statSync(file).size - 1)),
    /ends at byte \d+ of \d+; the file is cut short/,
  ],
  [
    "a header of 2^60 bytes",
    1,
    (folder) =>
      spoiltModel(folder, (file) => {
        const bytes = readFileSync(file);
        bytes.writeBigUInt64LE(2n ** 60n);
        writeFileSync(file, bytes);
      }),
    /the header claims 1152921504606846976 bytes; expected at most/,
  ],
  [
    "a tensor of 2^60 elements",
    1,
    (folder) =>
      spoiltHeader(folder, (fields) => {
        fields[norm]!.shape = [2 ** 30, 2 ** 30];
        return undefined;
      }),
    /norm\.weight": \[1073741824, 1073741824\] F32 takes more than 2\^53 bytes, data_offsets hold/,
  ],
  [
    "a tensor of a hundred thousand extents",
    1,
    (folder) =>
      spoiltHeader(folder, (fields) => {
        fields[norm]!.shape = new Array(100_000).fill(2 ** 31);
        return undefined;
      }),
    /norm\.weight": \[(2147483648, ){8}… 100000 in all\] F32 takes more than 2\^53 bytes/,
  ],
  [
    "offsets that overlap",
    1,
    (folder) =>
      spoiltHeader(folder, (fields) => {
        const { data_offsets: offsets } = fields[norm]!;
        fields[norm]!.data_offsets = offsets.map((at) => at - 4);
        return undefined;
      }),
    /tensor "model\.norm\.weight" overlaps tensor "/,
  ],
  [
    "a dtype that lies about the size",
    1,
    (folder) =>
      spoiltHeader(folder, (fields) => {
        fields[norm]!.dtype = "BF16";
        return undefined;
      }),
    /tensor "model\.norm\.weight": \[48\] BF16 takes 96 bytes, data_offsets hold 192/,
  ],
  [
    "a dtype that is no float",
    1,
    (folder) =>
      spoiltHeader(folder, (fields) => {
        fields[norm]!.dtype = "I32";
        return undefined;
      }),
    /tensor "model\.norm\.weight" has dtype I32, expected F32, BF16 or F16/,
  ],
  [
    "a tensor named twice",
    1,
    (folder) =>
      spoiltHeader(folder, (fields) => {
        const entry = JSON.stringify(fields[norm]);
        return JSON.stringify(fields).replace(/}$/, `,"${norm}":${entry}}`);
      }),
    /the header names "model\.norm\.weight" twice/,
  ],
  [
    "a missing tokenizer",
    2,
    (folder) => spoiltLine3(folder, () => ({ prompt: "a", chosen: "b", rejected: "c" })),
    /expected a tokenizer, found no tokenizer\.json/,
  ],
  [
    "malformed JSON in line 3",
    2,
    (folder) => spoiltLine3(folder, () => '{"prompt": "a", "chosen": }'),
    /pairs\.jsonl:3:27: malformed JSON: expected a value/,
  ],
  [
    "a column of the wrong type",
    2,
    (folder) => spoiltLine3(folder, () => ({ prompt: "a", chosen: 4, rejected: "b" })),
    /pairs\.jsonl:3: chosen: expected a string or a list of .*, found number 4/,
  ],
  [
    "a token beyond the vocabulary",
    2,
    (folder) =>
      spoiltLine3(folder, (row) => ({
        ...row,
        rejected_input_ids: [1e6, ...row.rejected_input_ids.slice(1)],
      })),
    /pairs\.jsonl:3: rejected: token 0 has the id 1000000, expected a whole number from 0 to 210\n/,
  ],
  ["an unknown key", 2, () => ({ max_lenght: 5 }), /--max_lenght: unknown key .*"max_length"/],
  [
    "text for a number",
    2,
    () => ({ learning_rate: "banana" }),
    /--learning_rate: expected a number, received "banana"/,
  ],
  [
    "a prompt limit that leaves nothing",
    2,
    () => ({ max_length: 64, max_prompt_length: 64 }),
    /--max_prompt_length: expected less than max_length \(64\), received 64/,
  ],
  [
    "another on_nonfinite",
    2,
    () => ({ on_nonfinite: "ignore" }),
    /--on_nonfinite: expected one of "stop", "skip", received "ignore"/,
  ],
  [
    "an output_dir that cannot be made",
    1,
    () => ({ output_dir: "/proc/none/run" }),
    /output_dir \/proc\/none\/run: ENOENT.*\n {2}choose a folder/,
  ],
];
for (const [name, exitCode, spoil, message] of cases) {
  const promise = `train with ${name}: one error, exit code ${exitCode}, nothing written`;
  test(promise, { timeout: 120_000 }, async (t) => {
    const folder = temporaryFolder(t);
    const outputDir = path.join(folder, "run");
    const ended = await runCli(trainCommand(outputDir, spoil(folder)));
    checkRefusal(ended, exitCode, message);
    assert.equal(existsSync(outputDir), false);
  });
}

test("pairs whose responses are the same are warned about and counted", async (t) => {
  const folder = temporaryFolder(t);
  const rows = readLines<PairRow>(gqaPairs).map((row, i) =>
    i < 3
      ? { ...row, rejected_input_ids: row.chosen_input_ids, rejected_labels: row.chosen_labels }
      : row,
  );
  const data = writeLines(path.join(folder, "pairs.jsonl"), rows);
  const outputDir = path.join(folder, "run");
  const changes = { dataset_mixer: `{${data}: 1}`, max_steps: 1 };
  const { code, stderr } = await runCli(trainCommand(outputDir, changes));
  assert.equal(code, 0, stderr);
  assert.match(stderr, /3 of 14 train pairs have the same tokens as chosen and as rejected/);
  assert.ok(readdirSync(outputDir).includes("model.safetensors"));
});
