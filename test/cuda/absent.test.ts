import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, writeFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { type AddonInfo, addonInfo, openDevice, requireDevice } from "#src/native/index.js";
import { root } from "../support/paths.js";
import { runCli, temporaryFolder } from "../train/support.js";

// What a person is told where CUDA cannot be used: by a build without CUDA, which is what the tests run on,
// and by a build with it (npm run build:cuda -- --out build/cuda), where there is one.

const cudaBuild = path.join(root, "build/cuda/Release/simper_native.node");
const usable = addonInfo().backends.some(({ name, available }) => name === "CUDA" && available);
const needsBuild = existsSync(cudaBuild)
  ? false
  : "no build/cuda: npm run build:cuda -- --out build/cuda";
const withoutGpu = usable ? "this machine has a usable GPU" : false;

test("cuda: a machine where it cannot be used says why, and auto takes the CPU", {
  skip: withoutGpu,
}, () => {
  const reason = /no CUDA device: .+; use --device cpu$/;
  assert.throws(() => openDevice("cuda"), { name: "DeviceError", message: reason });
  assert.equal(requireDevice("auto"), "cpu");
  const device = openDevice("auto");
  assert.equal(device.name, "cpu");
  assert.equal(device.memory(), undefined);
  device.dispose();
});

/** The line about CUDA that `env` prints with the CUDA build in an environment of its own. */
async function cudaLine(env: NodeJS.ProcessEnv): Promise<AddonInfo["backends"][number]> {
  const { code, stdout, stderr } = await runCli(["env", "--json"], {
    SIMPER_NATIVE_BINDING: cudaBuild,
    ...env,
  });
  assert.equal(code, 0, stderr);
  const { backends } = JSON.parse(stdout) as AddonInfo;
  return backends.find(({ name }) => name === "CUDA")!;
}

/** A folder with a driver that answers as told, for LD_LIBRARY_PATH. */
function fakeDriver(folder: string, version: number, initStatus: number): string {
  const source = path.join(folder, "driver.c");
  writeFileSync(
    source,
    `int cuDriverGetVersion(int *version) { *version = ${version}; return 0; }\n` +
      `int cuInit(unsigned flags) { (void)flags; return ${initStatus}; }\n`,
  );
  const library = path.join(folder, "libcuda.so.1");
  const run = spawnSync("g++", ["-x", "c", "-shared", "-fPIC", "-o", library, source], {
    encoding: "utf8",
  });
  assert.equal(run.status, 0, run.stderr);
  return folder;
}

test("cuda: the build with CUDA loads on a machine without a driver and names the library", {
  skip: needsBuild || withoutGpu,
}, async () => {
  const { available, detail } = await cudaLine({});
  assert.equal(available, false);
  assert.match(detail, /^no NVIDIA driver \(libcuda\.so\.1 not found\)/);
  const { code, stderr } = await runCli(["train", "configs/quickstart.yaml", "--device", "cuda"], {
    SIMPER_NATIVE_BINDING: cudaBuild,
  });
  assert.equal(code, 1);
  assert.match(
    stderr,
    /no CUDA device: no NVIDIA driver \(libcuda\.so\.1 not found\).*; use --device cpu/,
  );
});

test("cuda: a driver that is too old is named with its version and the one needed", {
  skip: needsBuild,
}, async (t) => {
  const LD_LIBRARY_PATH = fakeDriver(temporaryFolder(t), 11080, 0);
  const { available, detail } = await cudaLine({ LD_LIBRARY_PATH });
  assert.equal(available, false);
  assert.match(
    detail,
    /^the NVIDIA driver is too old: it serves CUDA 11\.8, this build needs CUDA \d+\.0/,
  );
});

test("cuda: a driver without a GPU is told apart from a missing driver", {
  skip: needsBuild,
}, async (t) => {
  const LD_LIBRARY_PATH = fakeDriver(temporaryFolder(t), 99000, 100);
  const { detail } = await cudaLine({ LD_LIBRARY_PATH });
  assert.match(
    detail,
    /^no NVIDIA GPU that the driver can see \(CUDA_VISIBLE_DEVICES may hide it\)/,
  );
});

test("cuda: a driver that fails is named with its error", { skip: needsBuild }, async (t) => {
  const LD_LIBRARY_PATH = fakeDriver(temporaryFolder(t), 99000, 999);
  const { detail } = await cudaLine({ LD_LIBRARY_PATH });
  assert.match(detail, /^the NVIDIA driver does not start: error 999/);
});

test("cuda: a cuBLASLt that is not there, or is something else, is named with the file", {
  skip: needsBuild,
}, async (t) => {
  const missing = await cudaLine({ SIMPER_CUBLASLT: "/nonexistent/libcublasLt.so.13" });
  assert.match(
    missing.detail,
    /SIMPER_CUBLASLT names \/nonexistent\/libcublasLt\.so\.13, which cannot be opened/,
  );
  const other = path.join(fakeDriver(temporaryFolder(t), 99000, 100), "libcuda.so.1");
  const { detail } = await cudaLine({ SIMPER_CUBLASLT: other });
  assert.ok(
    detail.includes(`${other} cannot be used: it has no function cublasLtGetVersion`),
    detail,
  );
});

test("cuda: without cuBLASLt the folders are listed where it was looked for", {
  skip: needsBuild,
}, async (t) => {
  const folder = temporaryFolder(t);
  const { detail } = await cudaLine({ CUDA_PATH: folder, VIRTUAL_ENV: "" });
  if (!detail.includes("was not found")) return t.skip("this machine has cuBLASLt");
  assert.match(
    detail,
    /cuBLASLt \(libcublasLt\.so\.13 or \.12\) was not found in the loader's folders, /,
  );
  assert.ok(detail.includes(`${folder}/lib64`), detail);
});
