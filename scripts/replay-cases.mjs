// Writes op cases to one file for simper_replay (native/emulator/replay.cc), which runs them under sanitizers and
// schedules. The compiled tests must be there (npm run build:ts && npm run build:test).
//   node scripts/replay-cases.mjs FILE [--small] [--op NAME ...] [--case TEXT] [--max-bytes N] [--max-flops N] [--seed N]
import path from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { parseArgs } from "node:util";

const USAGE = `Usage: node scripts/replay-cases.mjs FILE [options]

  --small        small cases only, for the race detector
  --op NAME      cases of this op (attentionForward); may be repeated
  --case TEXT    cases whose name contains TEXT
  --max-bytes N  cases that move at most N bytes
  --max-flops N  cases of at most N multiplications and additions
  --seed N       seed of the inputs (default: a random one)`;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    small: { type: "boolean", default: false },
    op: { type: "string", multiple: true, default: [] },
    case: { type: "string", default: "" },
    "max-bytes": { type: "string", default: "Infinity" },
    "max-flops": { type: "string", default: "Infinity" },
    seed: { type: "string" },
    help: { type: "boolean", short: "h", default: false },
  },
});
const [file] = positionals;
if (values.help || positionals.length !== 1) {
  console.error(USAGE);
  process.exit(values.help ? 0 : 2);
}
if (values.seed !== undefined) process.env.SIMPER_TEST_SEED = values.seed; // read when the harness loads

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const load = (name) => import(pathToFileURL(path.join(root, "dist-test/ops", name)).href);
const { testSeed } = await load("harness/random.js");
const { writeReplay } = await load("harness/replay.js");
const all = values.small
  ? (await load("cases/small.js")).smallCases()
  : (await load("cases/index.js")).allCases;

const cases = all.filter(
  ({ op, name, bytes, flops }) =>
    (values.op.length === 0 || values.op.includes(op)) &&
    name.includes(values.case) &&
    bytes <= Number(values["max-bytes"]) &&
    flops <= Number(values["max-flops"]),
);
if (cases.length === 0) {
  console.error("scripts/replay-cases.mjs: no case matches");
  process.exit(2);
}
writeReplay(file, cases);
console.error(`${file}: ${cases.length} cases, SIMPER_TEST_SEED=${testSeed}`);
