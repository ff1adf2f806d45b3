import { existsSync, readFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { addonInfo, type Device } from "../native/index.js";

/** Root of the package: the folder that holds package.json, whether run from a clone or an install. */
const packageRoot = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../..");

/** Versions and machine of a run, by name, for a person. */
export function describeEnvironment(
  device: Device,
  run: { readonly threads: number | undefined; readonly bf16: boolean },
): Record<string, string> {
  const { cpu, backends } = addonInfo();
  const { version, commit } = packageVersion();
  const gpu = backends.find(({ name }) => name === "CUDA")?.detail;
  const threads = `${run.threads ?? cpu.threads} threads`;
  return {
    "simper-native": commit ? `${version}, commit ${commit}` : version,
    "Node.js": process.versions.node,
    system: `${process.platform} ${process.arch}, ${os.release()}`,
    device: device.name === "cuda" && gpu ? gpu : `${device.name}, ${threads}`,
    CPU: `${os.cpus()[0]?.model ?? "unknown"}, ${cpu.isa}`,
    oneDNN: cpu.onednn,
    precision: run.bf16 ? "bf16 with f32 master weights" : "f32",
  };
}

/** Version of this package and, as far as it is known, the commit it stands at. */
export function packageVersion(root = packageRoot): { version: string; commit?: string } {
  const text = readFileSync(path.join(root, "package.json"), "utf8");
  const { version, gitHead } = JSON.parse(text) as { version: string; gitHead?: string };
  const commit = gitHead ?? headCommit(path.join(root, ".git"));
  return { version, ...(commit && { commit }) };
}

/** The commit that a clone has checked out; a package that npm installed has none. */
function headCommit(git: string): string | undefined {
  const read = (name: string) => {
    const file = path.join(git, name);
    return existsSync(file) ? readFileSync(file, "utf8") : undefined;
  };
  const head = read("HEAD")?.trim();
  const ref = head?.startsWith("ref: ") ? head.slice("ref: ".length) : undefined;
  if (ref === undefined) return sha(head);
  const packed = read("packed-refs")?.split("\n");
  return sha(read(ref)?.trim() ?? packed?.find((line) => line.endsWith(` ${ref}`))?.split(" ")[0]);
}

function sha(text: string | undefined): string | undefined {
  return text !== undefined && /^[0-9a-f]{40,64}$/.test(text) ? text : undefined;
}
