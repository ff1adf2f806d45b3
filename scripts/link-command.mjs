// Makes `npx simper-native` work inside a clone. npm links the commands of dependencies into
// node_modules/.bin, but not those of the package one stands in.
import { existsSync, writeFileSync } from "node:fs";
import path from "node:path";

export function linkCommand(root) {
  const folder = path.join(root, "node_modules/.bin");
  const isClone = path.basename(path.dirname(root)) !== "node_modules";
  if (!isClone || !existsSync(folder)) return;
  const command = path.join(folder, "simper-native");
  // A script, not a symbolic link: what tsc writes is not executable.
  writeFileSync(command, '#!/usr/bin/env node\nimport("../../dist/cli.js");\n', { mode: 0o755 });
}
