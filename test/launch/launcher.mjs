// The launcher as a program: launcher.mjs <cpu|cuda> <nproc> <program and arguments of a rank...>
import { launchRun } from "#src/launch/index.js";

const [device, nproc, ...command] = process.argv.slice(2);
process.exitCode = await launchRun({
  request: { nproc: Number(nproc) },
  command,
  device,
  timeoutSeconds: 30,
  recipe: "",
});
