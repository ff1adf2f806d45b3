import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import {
  appendFileSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import os from "node:os";
import path from "node:path";
import { after, test } from "node:test";
import { root } from "../support/paths.js";

const dir = mkdtempSync(path.join(os.tmpdir(), "simper-setup-"));
after(() => rmSync(dir, { recursive: true }));

/**
 * A clone with the setup script, and a PATH on which every program that installs or builds only notes
 * how it was called.
 */
class Machine {
  readonly folder = mkdtempSync(path.join(dir, "clone-"));
  readonly bin = mkdtempSync(path.join(dir, "bin-"));
  private readonly calls = path.join(this.bin, "calls");

  constructor(programs: Record<string, string>) {
    mkdirSync(path.join(this.folder, "scripts"));
    mkdirSync(path.join(this.folder, "node_modules"));
    copyFileSync(path.join(root, "scripts/setup.sh"), path.join(this.folder, "scripts/setup.sh"));
    writeFileSync(path.join(this.folder, "package-lock.json"), "{}");
    for (const name of ["bash", "dirname", "mktemp", "rm", "cmp", "cp"]) this.system(name);
    const all = { id: "echo 0", node: `exec ${process.execPath} "$@"`, npm: "true", ...programs };
    for (const [name, body] of Object.entries(all)) this.program(name, body);
  }

  program(name: string, body: string): void {
    const script = `#!/bin/bash\necho "${name} $*" >>${this.calls}\n${body}\n`;
    writeFileSync(path.join(this.bin, name), script, { mode: 0o755 });
  }

  /** Runs the script; returns its status, its messages, and what it called of the noted programs. */
  setup(): { status: number | null; stderr: string; calls: string[] } {
    rmSync(this.calls, { force: true });
    const run = spawnSync("/bin/bash", [path.join(this.folder, "scripts/setup.sh")], {
      encoding: "utf8",
      env: { PATH: this.bin, HOME: this.folder },
    });
    const calls = existsSync(this.calls) ? readFileSync(this.calls, "utf8").split("\n") : [];
    const noted = calls.filter((line) => /^(npm|apt-get|sudo) /.test(line));
    return { status: run.status, stderr: run.stderr, calls: noted };
  }

  private system(name: string): void {
    const found = spawnSync("bash", ["-c", `command -v ${name}`], {
      encoding: "utf8",
    }).stdout.trim();
    symlinkSync(found, path.join(this.bin, name));
  }
}

const complete = { "c++": "true", make: "true", cmake: "true", mpirun: "true", mpicxx: "true" };
const certificates = existsSync("/etc/ssl/certs/ca-certificates.crt") ? "" : " ca-certificates";

test("setup installs packages once, then only builds", () => {
  const machine = new Machine({ ...complete, "apt-get": "true" });
  const npmCalls = () => machine.setup().calls.filter((line) => line.startsWith("npm"));
  const both = ["npm ci --no-progress", "npm run --silent build"];
  assert.deepEqual(npmCalls(), both);
  assert.deepEqual(npmCalls(), both.slice(1));
  appendFileSync(path.join(machine.folder, "package-lock.json"), "\n");
  assert.deepEqual(npmCalls(), both);
  assert.equal(machine.setup().status, 0);
});

test("setup installs exactly the system packages that are missing", () => {
  const machine = new Machine({
    "c++": 'case "$*" in *-E*) exit 1;; esac',
    make: "true",
    "apt-get": "true",
  });
  const run = machine.setup();
  assert.equal(run.status, 0, run.stderr);
  assert.equal(
    run.calls[0],
    `apt-get install -y -qq --no-install-recommends cmake libdnnl-dev openmpi-bin libopenmpi-dev${certificates}`,
  );
  assert.match(run.stderr, /^setup: installing system packages: cmake libdnnl-dev/m);
});

test("setup refreshes the package lists when an install fails, and shows why it fails again", () => {
  const machine = new Machine({
    ...complete,
    "apt-get": 'case "$1" in install) echo "E: no such package"; exit 100;; esac',
  });
  rmSync(path.join(machine.bin, "cmake"));
  const run = machine.setup();
  assert.equal(run.status, 1);
  assert.deepEqual(
    run.calls.map((line) => line.split(" ")[1]),
    ["install", "update", "install"],
  );
  assert.match(run.stderr, /E: no such package\n/);
  assert.match(run.stderr, /setup: could not install: cmake.*Try: apt-get install -y cmake/);
});

test("setup goes through sudo where it is not root", () => {
  const machine = new Machine({
    ...complete,
    id: "echo 1000",
    sudo: 'shift; exec "$@"',
    "apt-get": "true",
  });
  rmSync(path.join(machine.bin, "make"));
  const run = machine.setup();
  assert.equal(run.status, 0, run.stderr);
  assert.equal(
    run.calls[0],
    `sudo DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends make${certificates}`,
  );
});

test("setup says what to do where it can install nothing", () => {
  const ordinary = new Machine({ ...complete, id: "echo 1000", "apt-get": "true" });
  rmSync(path.join(ordinary.bin, "cmake"));
  const run = ordinary.setup();
  assert.equal(run.status, 1);
  assert.equal(
    run.stderr,
    `setup: missing: cmake${certificates}. Run as root: apt-get update && apt-get install -y cmake${certificates}\n`,
  );
  const foreign = new Machine(complete);
  rmSync(path.join(foreign.bin, "cmake"));
  assert.match(
    foreign.setup().stderr,
    /^setup: missing: cmake.*Install them with your package manager, then run this again\n$/,
  );
});

test("setup refuses a Node that is missing or too old", () => {
  const old = new Machine({
    ...complete,
    node: 'if [ "$1" = --version ]; then echo v18.19.0; else exit 1; fi',
  });
  assert.match(
    old.setup().stderr,
    /^setup: Node\.js v18\.19\.0 is too old: install version 20\.17 or newer/,
  );
  const none = new Machine(complete);
  rmSync(path.join(none.bin, "node"));
  assert.match(none.setup().stderr, /^setup: Node\.js is missing: install version 20\.17 or newer/);
});

test("setup shows the beginning and the end of what a failing step printed", () => {
  const machine = new Machine({
    ...complete,
    "apt-get": "true",
    npm: 'case "$1" in run) for i in {1..99}; do echo "line $i;"; done; echo "error TS1: no"; exit 1;; esac',
  });
  const run = machine.setup();
  assert.equal(run.status, 1);
  assert.match(run.stderr, /error TS1: no\nsetup: the build failed\n$/);
  assert.match(run.stderr, /line 1;/);
  assert.doesNotMatch(run.stderr, /line 40;/);
});
