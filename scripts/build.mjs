// Builds the native addon: checks for the tools first, then lets cmake-js run CMake (CMakeLists.txt is the
// only source list). `npm run build:native`, `simper-native build`, npm's install hook and binding.gyp all
// come here. Result: <out>/Release/simper_native.node, or <out>/Debug with --debug.
import { spawn } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { linkCommand } from "./link-command.mjs";
import { findNvcc, missingTools, nvccOffPath } from "./toolchain.mjs";

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));

const USAGE = `Usage: node scripts/build.mjs [--cuda] [--debug] [--clean] [--out DIR] [--verbose]

  --cuda     with the CUDA device; later builds into the same folder keep it
  --debug    build with debug information and without optimisation
  --clean    remove the build folder first
  --out DIR  build folder (default: build)
  --verbose  show everything the build prints

SIMPER_CMAKE_OPTION_<NAME>=<value> passes -D<NAME>=<value> to CMake, CXX chooses the compiler.`;

const { values } = parseArgs({
  options: {
    cuda: { type: "boolean", default: false },
    debug: { type: "boolean", default: false },
    clean: { type: "boolean", default: false },
    verbose: { type: "boolean", default: false },
    out: { type: "string", default: "build" },
    help: { type: "boolean", short: "h", default: false },
    // For binding.gyp: print the files a build depends on and stop.
    "list-sources": { type: "boolean", default: false },
  },
});
if (values.help) {
  console.log(USAGE);
  process.exit(0);
}
if (values["list-sources"]) {
  const files = readdirSync(path.join(root, "native"), { recursive: true, encoding: "utf8" });
  for (const file of files.sort()) if (/\.(cc|cu|h|def)$/.test(file)) console.log(`native/${file}`);
  process.exit(0);
}

const out = path.resolve(root, values.out);
const binary = path.join(out, values.debug ? "Debug" : "Release", "simper_native.node");

linkCommand(root);
const missing = missingTools(process.env);
if (values.cuda && findNvcc(process.env) === undefined) {
  missing.push(
    "nvcc is missing on PATH, in CUDA_PATH, CUDA_HOME and /usr/local/cuda. Install the CUDA toolkit: https://developer.nvidia.com/cuda-downloads",
  );
}
for (const line of missing) console.error(`simper-native: ${line}`);
if (missing.length > 0) process.exit(1);

if (values.clean || isForeign(out)) rmSync(out, { recursive: true, force: true });
let result = await compile();
// CMake keeps the generator of its first run: Ninja may have come or gone since.
if (result.code !== 0 && /Does not match the generator used previously/.test(result.text)) {
  rmSync(out, { recursive: true, force: true });
  result = await compile();
}
if (result.code !== 0) {
  mkdirSync(out, { recursive: true });
  const log = path.join(out, "build.log");
  writeFileSync(log, result.text);
  const lines = result.text.split("\n");
  const first = lines.findIndex((line) => /\berror\b[ :]|CMake Error/.test(line));
  const shown = first < 0 ? lines.slice(-20) : lines.slice(first, first + 20);
  if (!values.verbose) console.error(shown.join("\n").trimEnd());
  console.error(
    `simper-native: the build failed. Everything it printed: ${path.relative(root, log)}`,
  );
  process.exit(1);
}
if (!existsSync(binary)) {
  console.error(`simper-native: the build ended without ${path.relative(root, binary)}`);
  process.exit(1);
}
console.error(`simper-native: built ${path.relative(root, binary)}`);

/** Runs cmake-js; its output is kept, and shown as it comes with --verbose. */
function compile() {
  const require = createRequire(import.meta.url);
  let cmakeJs;
  try {
    cmakeJs = path.join(path.dirname(require.resolve("cmake-js/package.json")), "bin/cmake-js");
  } catch {
    console.error("simper-native: cmake-js is missing. Install it: npm ci");
    process.exit(1);
  }
  const args = [
    cmakeJs,
    "build",
    "-d",
    root,
    "--out",
    out,
    "-p",
    String(os.availableParallelism()),
  ];
  if (values.debug) args.push("-D");
  if (values.cuda) args.push("--CDSIMPER_CUDA=ON");
  for (const [name, value] of Object.entries(process.env)) {
    const option = /^SIMPER_CMAKE_OPTION_(.+)$/.exec(name)?.[1];
    if (option !== undefined) args.push(`--CD${option}=${value}`);
  }
  const env = { ...process.env };
  const nvcc = nvccOffPath(env);
  if (nvcc !== undefined) env.CUDACXX = nvcc;
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, args, {
      cwd: root,
      env,
      stdio: ["ignore", "pipe", "pipe"],
    });
    let text = "";
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding("utf8");
      stream.on("data", (chunk) => {
        text += chunk;
        if (values.verbose) process.stderr.write(chunk);
      });
    }
    child.on("error", reject);
    child.on("close", (code) => resolve({ code, text }));
  });
}

/** True for a CMake folder configured from another place: a clone that was moved or copied. */
function isForeign(folder) {
  const cache = path.join(folder, "CMakeCache.txt");
  if (!existsSync(cache)) return false;
  const home = /^CMAKE_HOME_DIRECTORY:INTERNAL=(.*)$/m.exec(readFileSync(cache, "utf8"))?.[1];
  return home !== root;
}
