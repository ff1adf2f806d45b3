// What `nvcc -Xptxas -v` says of kernels, as records and as a table.

/**
 * @typedef {object} Kernel
 * @property {string} source file of native/cuda, without .cu
 * @property {string} kernel name with template arguments
 * @property {string} arch `sm_80`
 * @property {number} registers per thread
 * @property {number} stack bytes per thread
 * @property {number} spillStores bytes
 * @property {number} spillLoads bytes
 * @property {number} shared bytes per block that the kernel declares; what a launch adds is not among them
 */

/**
 * @param {string} text output of a build
 * @param {(names: string[]) => string[]} demangle
 * @returns {Kernel[]}
 */
export function parseReport(text, demangle) {
  /** @type {(Kernel & { mangled: string })[]} */
  const kernels = [];
  for (const line of text.split("\n")) {
    const entry = /Compiling entry function '(\w+)' for '(\w+)'/.exec(line);
    if (entry) {
      const [, mangled = "", arch = ""] = entry;
      // nvcc writes the file's name into the name of its anonymous namespace.
      const source = /_GLOBAL__N__[0-9a-f]+_\d+_(\w+?)_cu_[0-9a-f]/.exec(mangled)?.[1] ?? "";
      const numbers = { registers: 0, stack: 0, spillStores: 0, spillLoads: 0, shared: 0 };
      kernels.push({ source, kernel: mangled, mangled, arch, ...numbers });
    }
    const kernel = kernels.at(-1);
    if (!kernel) continue;
    const memory =
      /(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads/.exec(line);
    if (memory) {
      const [stack, spillStores, spillLoads] = memory.slice(1).map(Number);
      Object.assign(kernel, { stack, spillStores, spillLoads });
    }
    const used = /Used (\d+) registers/.exec(line);
    if (used) {
      kernel.registers = Number(used[1]);
      kernel.shared = Number(/(\d+) bytes smem/.exec(line)?.[1] ?? 0);
    }
  }
  const names = demangle(kernels.map(({ mangled }) => mangled));
  return kernels.map(({ mangled: _, ...kernel }, i) => ({
    ...kernel,
    kernel: shortName(names[i] ?? ""),
  }));
}

/** `void simper::cuda::(anonymous namespace)::fill_kernel<float, 4>(…)` → `fill_kernel<float, 4>`. */
function shortName(/** @type {string} */ name) {
  return name
    .replace(/\(anonymous namespace\)::|_GLOBAL__N__\w+::/g, "")
    .replace(/simper::(cuda::|simt::)?/g, "")
    .replace(/^void /, "")
    .replace(/\(.*$/s, "");
}

/**
 * Sources that were compiled again replace their old records.
 * @param {Kernel[]} before @param {Kernel[]} now
 */
export function mergeReports(before, now) {
  const compiled = new Set(now.map(({ source }) => source));
  return [...before.filter(({ source }) => !compiled.has(source)), ...now].sort(
    (a, b) =>
      a.source.localeCompare(b.source) ||
      a.kernel.localeCompare(b.kernel) ||
      a.arch.localeCompare(b.arch),
  );
}

/** @param {Kernel[]} kernels */
export function spilling(kernels) {
  return kernels.filter(({ spillStores, spillLoads }) => spillStores + spillLoads > 0);
}

/** One line per kernel and architecture. @param {Kernel[]} kernels */
export function reportTable(kernels) {
  const rows = [
    ["file", "kernel", "arch", "registers", "spilled bytes", "stack", "static shared"],
    ...kernels.map((k) =>
      [
        ...[k.source, k.kernel, k.arch, k.registers, k.spillStores + k.spillLoads, k.stack],
        k.shared,
      ].map(String),
    ),
  ];
  const widths = rows[0]?.map((_, c) => Math.max(...rows.map((row) => row[c]?.length ?? 0))) ?? [];
  return rows
    .map((row) =>
      row
        .map((cell, c) => (c < 3 ? cell.padEnd(widths[c] ?? 0) : cell.padStart(widths[c] ?? 0)))
        .join("  "),
    )
    .join("\n");
}
