// Builds the addon with the CUDA device and shows what nvcc made of every kernel: registers, spills, stack and
// shared memory, for each architecture. Ends with 1 where a kernel of attention or of the log-probabilities
// spills registers, and with 0 and "skipped: no nvcc" where there is no nvcc.
//
//   npm run build:cuda -- [--out DIR] [--clean]      DIR: build folder (default: build)
//
// Later builds into the same folder keep CUDA; `simper-native build --clean` goes back to a build without.
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { mergeReports, parseReport, reportTable, spilling } from "./ptxas-report.mjs";
import { findNvcc } from "./toolchain.mjs";

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const { values } = parseArgs({
  options: {
    out: { type: "string", default: "build" },
    clean: { type: "boolean", default: false },
  },
});
const out = path.resolve(root, values.out);
// What nvcc said of kernels that a later build does not compile again.
const kept = path.join(out, "kernels.json");

if (findNvcc(process.env) === undefined) {
  console.log("build:cuda: skipped: no nvcc");
  process.exit(0);
}

if (values.clean) rmSync(out, { recursive: true, force: true });
const known = existsSync(kept) ? JSON.parse(readFileSync(kept, "utf8")) : [];
forgetUnreported(new Set(known.map(({ source }) => source)));

const started = performance.now();
const { code, text } = await build();
if (code !== 0) process.exit(code);
const kernels = mergeReports(known, parseReport(text, demangle)).filter(({ source }) =>
  existsSync(path.join(root, "native/cuda", `${source}.cu`)),
);
mkdirSync(out, { recursive: true });
writeFileSync(kept, `${JSON.stringify(kernels, null, 1)}\n`);
console.log(reportTable(kernels));
console.log(`${kernels.length} kernels, ${((performance.now() - started) / 1e3).toFixed(0)} s`);

const spilled = spilling(kernels).filter(({ source }) => /attention|logprob/.test(source));
for (const { kernel, arch, spillStores, spillLoads } of spilled) {
  console.error(
    `build:cuda: ${kernel} (${arch}) spills: ${spillStores} bytes stored, ${spillLoads} loaded; expected none`,
  );
}
if (spilled.length > 0) process.exit(1);

/** Runs scripts/build.mjs; its lines are shown without nvcc's reports, and kept with them. */
function build() {
  const script = path.join(root, "scripts/build.mjs");
  const args = [script, "--cuda", "--out", out, "--verbose"];
  const child = spawn(process.execPath, args, { cwd: root });
  return new Promise((resolve, reject) => {
    let text = "";
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding("utf8");
      stream.on("data", (chunk) => {
        text += chunk;
      });
    }
    child.on("error", reject);
    child.on("close", (code) => {
      const told = text.split("\n").filter((line) => line.startsWith("simper-native: "));
      // A build that failed shows everything but the reports.
      const lines =
        code === 0 ? told : text.split("\n").filter((line) => !/^ptxas info/.test(line));
      console.error(lines.join("\n").trim());
      resolve({ code: code ?? 1, text });
    });
  });
}

/** Objects whose report was not kept are compiled again. @param {Set<string>} reported sources */
function forgetUnreported(reported) {
  const objects = path.join(out, "CMakeFiles/simper_native.dir/native/cuda");
  if (!existsSync(objects)) return;
  for (const file of readdirSync(objects)) {
    const source = /^(.+)\.cu\.o$/.exec(file)?.[1];
    if (source !== undefined && !reported.has(source)) rmSync(path.join(objects, file));
  }
}

/** Names as C++ spells them, where binutils is there. @param {string[]} names */
function demangle(names) {
  const run = spawnSync("c++filt", { input: names.join("\n"), encoding: "utf8" });
  return run.status === 0 ? run.stdout.trimEnd().split("\n") : names;
}
