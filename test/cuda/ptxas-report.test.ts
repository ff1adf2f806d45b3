import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, symlinkSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { test } from "node:test";
import { pathToFileURL } from "node:url";
import { root } from "../support/paths.js";

interface Kernel {
  source: string;
  kernel: string;
  arch: string;
  registers: number;
  stack: number;
  spillStores: number;
  spillLoads: number;
  shared: number;
}
interface Report {
  parseReport(text: string, demangle: (names: string[]) => string[]): Kernel[];
  mergeReports(before: Kernel[], now: Kernel[]): Kernel[];
  spilling(kernels: Kernel[]): Kernel[];
  reportTable(kernels: Kernel[]): string;
}
const report = (await import(
  pathToFileURL(path.join(root, "scripts/ptxas-report.mjs")).href
)) as Report;

// Lines as nvcc 13.0 prints them.
const name = "_ZN6simper4cuda42_GLOBAL__N__1a2b3c4d_10_logprob_cu_d33b515014logprob_kernelEv";
const text = `[3/9] Building CUDA object logprob.cu.o
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '${name}' for 'sm_80'
ptxas info    : Function properties for ${name}
    40 bytes stack frame, 12 bytes spill stores, 16 bytes spill loads
ptxas info    : Used 255 registers, used 1 barriers, 1024 bytes smem, 384 bytes cmem[0]
ptxas info    : Compiling entry function '${name}' for 'sm_90a'
ptxas info    : Function properties for ${name}
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 64 registers, used 0 barriers
`;
const demangled =
  "void simper::cuda::(anonymous namespace)::logprob_kernel<simper::bf16, 8>(float*)";
const kernels = () => report.parseReport(text, (names) => names.map(() => demangled));

test("ptxas report: registers, spills, stack and shared memory of each kernel and architecture", () => {
  const common = { source: "logprob", kernel: "logprob_kernel<bf16, 8>" };
  const spills = { stack: 40, spillStores: 12, spillLoads: 16 };
  const none = { stack: 0, spillStores: 0, spillLoads: 0 };
  assert.deepEqual(kernels(), [
    { ...common, arch: "sm_80", registers: 255, ...spills, shared: 1024 },
    { ...common, arch: "sm_90a", registers: 64, ...none, shared: 0 },
  ]);
  assert.deepEqual(
    report.spilling(kernels()).map(({ arch }) => arch),
    ["sm_80"],
  );
  assert.match(
    report.reportTable(kernels()),
    /^logprob +logprob_kernel<bf16, 8> +sm_80 +255 +28 /m,
  );
});

test("ptxas report: a source that was compiled again replaces its own records alone", () => {
  const [first] = kernels();
  const before = [first!, { ...first!, source: "adamw", kernel: "adamw_kernel" }];
  const now = [{ ...first!, kernel: "logprob_forward_kernel" }];
  const merged = report.mergeReports(before, now).map(({ kernel }) => kernel);
  assert.deepEqual(merged, ["adamw_kernel", "logprob_forward_kernel"]);
});

test("build:cuda: says that it skips where there is no nvcc, and is no failure", (t) => {
  const bin = mkdtempSync(path.join(os.tmpdir(), "simper-path-"));
  t.after(() => rmSync(bin, { recursive: true, force: true }));
  symlinkSync(process.execPath, path.join(bin, "node"));
  const run = spawnSync("node", [path.join(root, "scripts/build-cuda.mjs")], {
    encoding: "utf8",
    env: { PATH: bin, CUDACXX: path.join(bin, "nvcc") },
  });
  assert.equal(run.status, 0, run.stderr);
  assert.equal(run.stdout, "build:cuda: skipped: no nvcc\n");
});
