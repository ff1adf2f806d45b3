// npm's install hook: builds the native addon when it can and never fails the install when it cannot.
// SIMPER_SKIP_BUILD=1 leaves it out. `npx simper-native build` does the same job later.
import { spawnSync } from "node:child_process";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { linkCommand } from "./link-command.mjs";

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const script = path.join(root, "scripts/build.mjs");
linkCommand(root);
const skip = process.env.SIMPER_SKIP_BUILD;
if (skip === undefined || skip === "" || skip === "0") {
  const run = spawnSync(process.execPath, [script], { encoding: "utf8" });
  if (run.status !== 0) {
    const lines = (run.stderr || String(run.error ?? "")).trim().split("\n");
    for (const line of lines.filter((line) => line.startsWith("simper-native: ")))
      console.error(line);
    console.error(
      "simper-native: the native addon is not built yet. Then run: npx simper-native build",
    );
  }
}
