// Asks whether the checks of the CUDA kernels would notice a mistake: takes out each barrier and each wait and commit
// of a copy in the attention and log-prob kernels, one at a time, makes each array in shared memory one element too
// short, and replays the op cases until something notices. Who survives has to stand in test/cuda/survivors.json, with
// its reason; a survivor that does not, and one that is listed and noticed, end the script with an error.
//   node scripts/mutate.mjs [--sample N] [--seed N] [--only TEXT] [--list] [--build DIR]
import { spawnSync } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const USAGE = `Usage: node scripts/mutate.mjs [options]

  --sample N   N mutations chosen by the seed, instead of all
  --seed N     (default: 1)
  --only TEXT  mutations whose description contains TEXT
  --list       says what would be mutated and stops
  --build DIR  build folder with the emulated device (default: build/emulated)`;

const { values } = parseArgs({
  options: {
    sample: { type: "string" },
    seed: { type: "string", default: "1" },
    only: { type: "string", default: "" },
    list: { type: "boolean", default: false },
    build: { type: "string", default: "build/emulated" },
    help: { type: "boolean", short: "h", default: false },
  },
});
if (values.help) {
  console.log(USAGE);
  process.exit(0);
}

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const build = path.resolve(root, values.build);

/** Which ops a kernel file computes, first match. */
const FILES = [
  [/^attention_forward/, ["attentionForward"]],
  [/^attention_(dq|dkdv)/, ["attentionBackward"]],
  [/^attention/, ["attentionForward", "attentionBackward"]],
  [/^logprob/, ["logprobForward", "logprobBackward"]],
  [/^qk_norm/, ["qkNormForward", "qkNormBackward"]],
  [/^partial_sums/, ["biasBackward", "qkNormBackward", "rmsnormBackward"]],
];

/** What a mutation changes: a statement that goes, or an array that gets shorter. */
const PATTERNS = [
  {
    pattern:
      /\b(?:simt::)?(?:barrier|sync_warp|copy_async_commit|copy_async_wait<[^>]*>)\([^;]*\);/g,
    replace: () => ";",
  },
  {
    pattern: /\btake<(\w+)>\(([^;]*)\);/g,
    replace: (_, type, count) => `take<${type}>((${count}) - 1);`,
  },
];

/**
 * Where a mutation may be noticed, cheapest first. The last one is for what the small cases miss: all of the op's
 * cases, and for a race the schedule it needs.
 */
const STAGES = [
  { name: "results", runner: "simper_replay", cases: "small", options: ["--seeds", "5"] },
  {
    name: "memory checks",
    runner: "simper_replay_memory",
    cases: "small",
    options: ["--policies", "sequential,random"],
  },
  {
    name: "race detector",
    runner: "simper_replay_races",
    cases: "small",
    options: ["--policies", "sequential,random"],
  },
  {
    name: "results of all cases",
    runner: "simper_replay",
    cases: "all",
    options: ["--seeds", "5"],
  },
];

const RUN_MINUTES = 10; // a kernel that does not end is noticed, too

const environment = {
  ...process.env,
  ASAN_OPTIONS: "detect_leaks=0:detect_stack_use_after_return=0",
  TSAN_OPTIONS: "halt_on_error=1:report_signal_unsafe=0",
};

const survivorsFile = path.join(root, "test/cuda/survivors.json");
const listed = JSON.parse(readFileSync(survivorsFile, "utf8"));
const all = findMutations(path.join(root, "native/cuda"));
checkList();
const chosen = choose(all);
if (values.list) {
  for (const mutation of chosen) console.log(describe(mutation));
  process.exit(0);
}

const scratch = mkdtempSync(path.join(os.tmpdir(), "simper-mutate-"));
process.on("exit", () => rmSync(scratch, { recursive: true, force: true }));
prepare();
const commands = JSON.parse(readFileSync(path.join(build, "compile_commands.json"), "utf8")).map(
  (entry) => ({ ...entry, output: / -o (\S+)/.exec(entry.command)[1] }),
);
/** The tree that was compiled: its `native` folder. */
const native = commands
  .find(({ file }) => file.endsWith("/native/ops/contracts.cc"))
  .file.replace(/\/ops\/contracts\.cc$/, "");
cpSync(native, path.join(scratch, "native"), { recursive: true });

const began = Date.now();
const wrong = [];
let survived = 0;
for (const [i, mutation] of chosen.entries()) {
  const start = Date.now();
  const notice = check(mutation);
  const known = reasonOf(mutation);
  if (notice === undefined) survived++;
  if (notice === undefined && known === undefined) wrong.push(`survived: ${describe(mutation)}`);
  if (notice !== undefined && known !== undefined) {
    wrong.push(`is listed as a survivor and was noticed: ${describe(mutation)}`);
  }
  const by = notice === undefined ? `SURVIVED${known ? ` (listed: ${known})` : ""}` : notice;
  const seconds = ((Date.now() - start) / 1e3).toFixed(0);
  console.log(`${String(i + 1).padStart(3)}/${chosen.length} ${describe(mutation)}`);
  console.log(`        ${by}  [${seconds} s]`);
}
const minutes = ((Date.now() - began) / 6e4).toFixed(1);
console.log(
  `scripts/mutate.mjs: ${chosen.length} of ${all.length} mutations, ${chosen.length - survived} noticed, ` +
    `${survived} survived, ${minutes} min`,
);
for (const line of wrong) console.error(`scripts/mutate.mjs: ${line}`);
process.exitCode = wrong.length > 0 ? 1 : 0;

// ---- what there is to mutate ----

/** Every mutation: where it is, and the text of the file with it. */
function findMutations(folder) {
  const found = [];
  for (const file of readdirSync(folder).sort()) {
    const ops = FILES.find(([name]) => name.test(file))?.[1];
    if (ops === undefined || !/\.(cu|h)$/.test(file)) continue;
    const text = readFileSync(path.join(folder, file), "utf8");
    const code = withoutComments(text);
    const counts = new Map();
    for (const match of PATTERNS.flatMap(({ pattern, replace }) =>
      [...code.matchAll(pattern)].map((m) => ({ at: m.index, from: m[0], to: replace(...m) })),
    ).sort((a, b) => a.at - b.at)) {
      const line = code.slice(0, match.at).split("\n").length;
      const where = functionAt(code, match.at);
      const what = code.split("\n")[line - 1].trim();
      const key = `${where} ${what}`;
      counts.set(key, (counts.get(key) ?? 0) + 1);
      found.push({ file, line, ops, in: where, code: what, nth: counts.get(key), ...match });
    }
  }
  return found;
}

/** The same text with spaces for the letters of comments: what is left is where it was. */
function withoutComments(text) {
  return text.replace(/\/\/.*|\/\*[\s\S]*?\*\//g, (comment) => comment.replace(/[^\n]/g, " "));
}

/** The function around a place: the last name before a parenthesis at the start of a line. */
function functionAt(code, at) {
  let name = "";
  for (const line of code.slice(0, at).split("\n")) {
    if (!/^[A-Za-z_]/.test(line)) continue;
    const names = [...line.matchAll(/(\w+)\s*\(/g)].map((match) => match[1]);
    name = names.findLast((other) => !/^(SIMT_KERNEL\w*|requires|decltype)$/.test(other)) ?? name;
  }
  return name;
}

function describe({ file, line, in: where, code, nth }) {
  return `${file}:${line} ${where}: ${code}${nth > 1 ? ` (${nth})` : ""}`;
}

function isAt(mutation, entry) {
  return ["file", "in", "code", "nth"].every((key) => (entry[key] ?? 1) === mutation[key]);
}

function reasonOf(mutation) {
  return listed.find((entry) => isAt(mutation, entry))?.reason;
}

/** A line of the list that names nothing any more would hide the next survivor that looks like it. */
function checkList() {
  const stale = listed.filter((entry) => !all.some((mutation) => isAt(mutation, entry)));
  for (const { file, in: where, code } of stale) {
    console.error(`test/cuda/survivors.json: ${file}, ${where}: there is no ${code}`);
  }
  if (stale.length > 0) process.exit(1);
}

function choose(mutations) {
  const matching = mutations.filter((mutation) => describe(mutation).includes(values.only));
  if (matching.length === 0) fail("nothing to mutate");
  if (values.sample === undefined) return matching;
  let state = Number(values.seed);
  const order = matching.map((mutation) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0; // [Knuth 1997, sec. 3.3.4]
    return { mutation, key: (state >>> 8) % 65536 };
  });
  return order
    .sort((a, b) => a.key - b.key)
    .slice(0, Number(values.sample))
    .map(({ mutation }) => mutation);
}

// ---- building and running ----

/** The runners as they are, and proof that nothing is wrong before something is made wrong. */
function prepare() {
  if (values.build === "build/emulated") {
    const options = { ...process.env, SIMPER_CMAKE_OPTION_SIMPER_EMULATOR: "ON" };
    run(process.execPath, [path.join(root, "scripts/build.mjs"), "--out", build], options);
  }
  const runners = [...new Set(STAGES.map(({ runner }) => runner))];
  run("cmake", ["--build", build, "--target", ...runners], process.env);
  for (const op of new Set(chosen.flatMap(({ ops }) => ops))) {
    const whole = STAGES.filter(({ cases }) => cases === "small")
      .map((stage) => replay(stage, path.join(build, stage.runner), op))
      .find(Boolean);
    if (whole !== undefined) fail(`the kernels fail without a mutation: ${whole}`);
  }
}

/** Who notices the mutation, or undefined. */
function check(mutation) {
  const file = path.join(scratch, "native/cuda", mutation.file);
  const text = readFileSync(path.join(root, "native/cuda", mutation.file), "utf8");
  const end = mutation.at + mutation.from.length;
  writeFileSync(file, text.slice(0, mutation.at) + mutation.to + text.slice(end));
  try {
    const built = new Map();
    for (const stage of STAGES) {
      if (!built.has(stage.runner)) built.set(stage.runner, compile(stage.runner, mutation.file));
      for (const op of mutation.ops) {
        const notice = replay(stage, built.get(stage.runner), op);
        if (notice !== undefined) return `${stage.name}: ${notice}`;
      }
    }
    return undefined;
  } finally {
    writeFileSync(file, text);
  }
}

/** The runner with the changed file in it; everything else comes from the build. */
function compile(runner, changed) {
  const folder = path.join(scratch, runner);
  mkdirSync(folder, { recursive: true });
  const objects = commands
    .map((entry) => ({ ...entry, object: path.resolve(entry.directory, entry.output) }))
    .filter(
      ({ output }) =>
        output.includes(`${runner}.dir/`) ||
        output.includes(`${runner}_runtime.dir/`) ||
        output.includes("simper_native.dir/native/cpu/"),
    )
    .map(({ command, file, output, object }) => {
      if (!output.includes(`${runner}.dir/`) || !includes(file, changed)) return object;
      const mutant = path.join(folder, `${path.basename(file)}.o`);
      const line = command
        .replaceAll(native, path.join(scratch, "native"))
        .replace(/ -o \S+/, ` -o ${mutant}`);
      // Fast to compile: each is run once.
      run("sh", ["-c", `${line} -O1 -g0 -w`], process.env);
      return mutant;
    });
  const cache = readFileSync(path.join(build, "CMakeCache.txt"), "utf8");
  const cached = (name) => new RegExp(`^${name}:\\w+=(.*)$`, "m").exec(cache)[1];
  const binary = path.join(folder, runner);
  const flags = { simper_replay_memory: "address,undefined", simper_replay_races: "thread" }[
    runner
  ];
  run(
    cached("CMAKE_CXX_COMPILER"),
    [
      ...(flags ? [`-fsanitize=${flags}`] : []),
      ...objects,
      "-o",
      binary,
      cached("DNNL_LIBRARY"),
      "-fopenmp",
      "-ldl",
    ],
    process.env,
  );
  return binary;
}

/** Whether a source is the changed file, or includes it. */
function includes(source, changed, seen = new Set()) {
  const target = path.join(native, "cuda", changed);
  if (source === target) return true;
  if (seen.has(source) || !existsSync(source)) return false;
  seen.add(source);
  return [...readFileSync(source, "utf8").matchAll(/^#include "(.*)"/gm)].some(([, name]) =>
    includes(path.join(native, name), changed, seen),
  );
}

/** What a run of the op's cases notices, in one line, or undefined. */
function replay({ cases, options }, binary, op) {
  const { status, signal, stdout, stderr } = spawnSync(
    binary,
    ["--stop", ...options, casesOf(cases, op)],
    { encoding: "utf8", env: environment, timeout: RUN_MINUTES * 6e4, maxBuffer: 2 ** 28 },
  );
  if (status === 0) return undefined;
  const lines = `${stdout}\n${stderr}`.split("\n");
  const line =
    lines.find((text) => text.includes("SUMMARY: ")) ??
    lines.find((text) => text.startsWith("FAILED ")) ??
    (signal ? `ended by ${signal}` : `ended with code ${status}`);
  if (status === 2) fail(`${binary}: ${stderr}`);
  return line.trim().replace(/^(.{160}).+$/, "$1 …");
}

/** A file with cases of the op, written when it is first asked for. */
function casesOf(kind, op) {
  const file = path.join(scratch, `${kind}-${op}.bin`);
  if (!existsSync(file)) {
    const words = [path.join(root, "scripts/replay-cases.mjs"), file, "--op", op];
    run(process.execPath, kind === "small" ? [...words, "--small"] : words, process.env);
  }
  return file;
}

function run(program, words, env) {
  const { status, stdout, stderr } = spawnSync(program, words, { encoding: "utf8", env });
  if (status !== 0) fail(`${program} ${words.join(" ")}\n${stdout}${stderr}`);
}

function fail(text) {
  console.error(`scripts/mutate.mjs: ${text}`);
  process.exit(1);
}
