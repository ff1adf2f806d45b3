// The launcher as a program: launcher.mjs <cpu|cuda> <nproc> <program and arguments of a rank...>
// TEST_MACHINES: the machines as JSON; TEST_RECIPE: the digest of the recipe; TEST_TIMEOUT: seconds.
import { describeError } from "#src/cli/shared.js";
import { launchRun } from "#src/launch/index.js";

const { TEST_MACHINES, TEST_RECIPE = "", TEST_TIMEOUT = "30", ...env } = process.env;
const [device, nproc, ...command] = process.argv.slice(2);
try {
  process.exitCode = await launchRun({
    request: {
      nproc: Number(nproc),
      ...(TEST_MACHINES && { machines: JSON.parse(TEST_MACHINES) }),
    },
    command,
    device,
    env,
    timeoutSeconds: Number(TEST_TIMEOUT),
    recipe: TEST_RECIPE,
  });
} catch (error) {
  const { text, exitCode } = describeError(error);
  process.stderr.write(text);
  process.exitCode = exitCode;
}
