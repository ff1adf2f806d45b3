import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { Command } from "commander";
import { isVerbose } from "./shared.js";

/** `simper-native build`: runs the package's own build script, which checks for its tools first. */
export function buildCommand(): Command {
  return new Command("build")
    .description("Build the native addon into build/Release; only what has changed is compiled.")
    .option("--cuda", "with the CUDA device, for NVIDIA GPUs; needs nvcc")
    .option("--debug", "with debug information, into build/Debug")
    .option("--clean", "remove the build folder first")
    .option("--out <dir>", "build folder, below the package")
    .addHelpText(
      "after",
      `
SIMPER_CMAKE_OPTION_<NAME>=<value> passes -D<NAME>=<value> to CMake.

Example:
  SIMPER_CMAKE_OPTION_SIMPER_MARCH=x86-64-v3 simper-native build --clean`,
    )
    .action((options: { cuda?: true; debug?: true; clean?: true; out?: string }) => {
      const args = [fileURLToPath(new URL("../../scripts/build.mjs", import.meta.url))];
      if (options.cuda) args.push("--cuda");
      if (options.debug) args.push("--debug");
      if (options.clean) args.push("--clean");
      if (options.out !== undefined) args.push("--out", options.out);
      if (isVerbose()) args.push("--verbose");
      const run = spawnSync(process.execPath, args, { stdio: "inherit" });
      if (run.error) throw run.error;
      process.exitCode = run.status ?? 1;
    });
}
