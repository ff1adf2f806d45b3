import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import type { AddonInfo } from "#src/native/load.js";
import { root } from "../support/paths.js";

/** What `env` says of the CPU when oneDNN may use no more than an instruction set. */
function cpuWith(isa: string): AddonInfo["cpu"] {
  const run = spawnSync(process.execPath, [path.join(root, "dist/cli.js"), "env", "--json"], {
    encoding: "utf8",
    env: { ...process.env, ONEDNN_MAX_CPU_ISA: isa },
  });
  assert.equal(run.status, 0, run.stderr);
  return (JSON.parse(run.stdout) as { cpu: AddonInfo["cpu"] }).cpu;
}

test("bf16: oneDNN's kernels that widen every operand are not taken for hardware", () => {
  for (const isa of ["AVX2", "AVX512_CORE"]) {
    const { bf16, bf16Kernel } = cpuWith(isa);
    assert.deepEqual([isa, bf16], [isa, false], bf16Kernel);
    assert.match(bf16Kernel, /^f32/);
  }
});

test("bf16: a CPU with bf16 arithmetic uses it, whatever oneDNN's version calls the kernel", () => {
  const { isa, bf16, bf16Kernel } = cpuWith("DEFAULT");
  const flags = readFileSync("/proc/cpuinfo", "utf8");
  assert.equal(bf16, /\bavx512_bf16\b/.test(flags), `${isa}: ${bf16Kernel}`);
});
