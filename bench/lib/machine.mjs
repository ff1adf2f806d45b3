/** What a figure was measured on. Linux only: it reads /proc and asks git. */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { availableParallelism, cpus, loadavg, totalmem } from "node:os";
import { root } from "../../scripts/quickstart/paths.mjs";

/** @typedef {{ wall: number, own: number, busy: number }} CpuClock seconds */

/** Processor, cores, memory. */
export function machine() {
  const model = cpus()[0]?.model ?? "unknown processor";
  const amx = /\bamx_bf16\b/.test(readFileSync("/proc/cpuinfo", "utf8"));
  return {
    cpu: model.replace(/\s+/g, " ").trim(),
    amx,
    cores: availableParallelism(),
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    node: process.version,
  };
}

/** `intel-r-xeon-r-processor-amx-2c`, for a file name. @param {ReturnType<typeof machine>} m */
export function machineSlug(m) {
  const words = `${m.cpu} ${m.amx ? "amx " : ""}${m.cores}c`.toLowerCase();
  return words
    .replace(/\((r|tm)\)/g, "")
    .replace(/[^a-z0-9]+/g, "-")
    .replace(/^-|-$/g, "");
}

/** The GPU with its driver and libraries, as `simper-native env` names it. @param {import("../../dist/native/index.js").AddonInfo} info */
export function cudaDetail(info) {
  return info.backends.find(({ name }) => name === "CUDA")?.detail ?? "unknown GPU";
}

/** `nvidia-h100-80gb-hbm3`, for a file name. @param {string} detail of {@link cudaDetail} */
export function gpuSlug(detail) {
  return (detail.split(",", 1)[0] ?? "")
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, "-")
    .replace(/^-|-$/g, "");
}

/** The commit of the working tree; "+" when sources differ from it. */
export function commit() {
  const git = (/** @type {string[]} */ ...args) =>
    execFileSync("git", args, { cwd: root, encoding: "utf8" }).trim();
  try {
    const sources = ["src", "native", "bench", "CMakeLists.txt"];
    const changed = git("status", "--porcelain", "--untracked-files=no", "--", ...sources);
    return git("rev-parse", "--short", "HEAD") + (changed ? "+" : "");
  } catch {
    return "unknown";
  }
}

/** Processes that were ready to run, averaged over the last minute. */
export function loadAverage() {
  return loadavg()[0] ?? 0;
}

/** @returns {CpuClock} wall time, processor time of this process and of the whole machine */
export function cpuClock() {
  const { user, system } = process.cpuUsage();
  const fields = readFileSync("/proc/stat", "utf8").split("\n", 1)[0]?.split(/\s+/).slice(1) ?? [];
  const ticks = fields.slice(0, 8).map(Number);
  const idle = (ticks[3] ?? 0) + (ticks[4] ?? 0);
  const busy = (ticks.reduce((sum, n) => sum + n, 0) - idle) / 100; // USER_HZ
  return { wall: performance.now() / 1e3, own: (user + system) / 1e6, busy };
}

/**
 * Share of the machine's cores that other processes took between two readings.
 * @param {CpuClock} from @param {CpuClock} to
 */
export function takenByOthers(from, to) {
  const others = to.busy - from.busy - (to.own - from.own);
  return Math.max(0, others / ((to.wall - from.wall) * cpus().length));
}

/** Peak resident memory of this process in bytes. */
export function peakMemory() {
  const line = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync("/proc/self/status", "utf8"));
  return Number(line?.[1] ?? 0) * 1024;
}
