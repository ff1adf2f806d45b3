// What a build of the addon needs from the system, and how to get it.
import { spawnSync } from "node:child_process";
import { existsSync, statSync } from "node:fs";
import path from "node:path";

/** Oldest CMake that CMakeLists.txt accepts (Ubuntu 22.04 has 3.22). */
const CMAKE_MINIMUM = [3, 22];

/** Package names by package manager. */
const packages = {
  "apt-get": { compiler: "g++", cmake: "cmake", make: "make", onednn: "libdnnl-dev" },
  dnf: { compiler: "gcc-c++", cmake: "cmake", make: "make", onednn: "onednn-devel" },
};

/** One line for each thing that is missing, with the command that installs it. Empty: all is there. */
export function missingTools(env) {
  const lines = [];
  const report = (what, name) => lines.push(`${what}. Install it: ${installCommand(name, env)}`);

  const compiler =
    env.CXX?.split(" ")[0] || ["c++", "g++", "clang++"].find((name) => which(name, env));
  if (!compiler || !which(compiler, env)) {
    report(
      env.CXX ? `the C++ compiler ${env.CXX} is missing` : "a C++ compiler is missing",
      "compiler",
    );
  }
  if (!which("cmake", env)) {
    report("cmake is missing", "cmake");
  } else {
    const version = /version (\d+)\.(\d+)/.exec(
      spawnSync("cmake", ["--version"], { env, encoding: "utf8" }).stdout,
    );
    const [major, minor] = version?.slice(1).map(Number) ?? [0, 0];
    if (major < CMAKE_MINIMUM[0] || (major === CMAKE_MINIMUM[0] && minor < CMAKE_MINIMUM[1])) {
      report(
        `cmake ${major}.${minor} is too old, expected ${CMAKE_MINIMUM.join(".")} or newer`,
        "cmake",
      );
    }
  }
  if (!which("ninja", env) && !which("make", env)) report("make (or ninja) is missing", "make");
  // Without a compiler there is nobody to ask where headers are; the usual places have to do.
  if (!findHeader("oneapi/dnnl/dnnl.hpp", compiler, env)) report("oneDNN is missing", "onednn");
  return lines;
}

/** Path of nvcc, or undefined. */
export function findNvcc(env) {
  return env.CUDACXX ? which(env.CUDACXX, env) : (which("nvcc", env) ?? nvccOffPath(env));
}

/** Path of nvcc where it is installed but not on PATH: CMake looks only there and at CUDACXX. */
export function nvccOffPath(env) {
  if (env.CUDACXX || which("nvcc", env)) return undefined;
  const prefixes = [env.CUDA_PATH, env.CUDA_HOME, "/usr/local/cuda"].filter(Boolean);
  return prefixes.map((prefix) => path.join(prefix, "bin/nvcc")).find((file) => existsSync(file));
}

function installCommand(name, env) {
  const manager = Object.keys(packages).find((tool) => which(tool, env)) ?? "apt-get";
  const sudo = process.getuid?.() === 0 ? "" : "sudo ";
  return `${sudo}${manager} install -y ${packages[manager][name]}`;
}

/** Full path of a program, or undefined. */
function which(program, env) {
  if (program.includes("/")) return isFile(program) ? program : undefined;
  const folders = (env.PATH ?? "").split(path.delimiter).filter(Boolean);
  return folders.map((folder) => path.join(folder, program)).find(isFile);
}

function isFile(file) {
  return statSync(file, { throwIfNoEntry: false })?.isFile() === true;
}

/** True when the header is in a folder given to CMake, or the compiler finds it. */
function findHeader(header, compiler, env) {
  const option = (name) => env[`SIMPER_CMAKE_OPTION_${name}`] ?? env[name];
  const prefixes = [
    option("CMAKE_PREFIX_PATH")?.split(/[:;]/) ?? [],
    option("DNNL_ROOT") ?? [],
  ].flat();
  const folders = [
    ...prefixes.map((prefix) => path.join(prefix, "include")),
    option("DNNL_INCLUDE_DIR"),
  ];
  if (folders.some((folder) => folder && existsSync(path.join(folder, header)))) return true;
  const program = compiler && which(compiler, env);
  if (!program)
    return ["/usr/include", "/usr/local/include"].some((folder) =>
      existsSync(path.join(folder, header)),
    );
  const args = ["-x", "c++", "-E", "-o", "/dev/null", "-"];
  // __has_include costs nothing; reading the header itself would take a second.
  const input = `#if !__has_include(<${header}>)\n#error missing\n#endif\n`;
  return spawnSync(program, args, { env, input }).status === 0;
}
