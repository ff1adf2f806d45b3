// Seeded randomness and the mutations that every target shares.

/** xorshift32: the same seed gives the same inputs. */
export function createRandom(seed) {
  let state = seed >>> 0 || 1;
  const next = () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
  const below = (n) => Math.floor(next() * n);
  const pick = (list) => list[below(list.length)];
  return { next, below, pick, chance: (p) => next() < p };
}

/** Numbers at which programs err. */
export const NUMBERS = [
  0,
  -0,
  1,
  -1,
  2,
  7,
  255,
  256,
  65535,
  2 ** 31 - 1,
  2 ** 31,
  -(2 ** 31),
  2 ** 32,
  2 ** 40,
  2 ** 53 - 1,
  2 ** 53,
  2 ** 60,
  2 ** 63,
  2 ** 64,
  1e300,
  -1e300,
  1e-300,
  0.5,
  1.5,
];

/** Values of every kind, for a place that expects another. */
export function anyValue(random) {
  return random.pick([
    null,
    true,
    false,
    "",
    "F32",
    "user",
    "\u0000",
    "\ud800",
    "é🙂",
    "x".repeat(1000),
    [],
    {},
    [[]],
    [null],
    { role: "user", content: "x" },
    [{ role: "user" }],
    ...NUMBERS,
    "__proto__",
    ["a", 1],
    { data: [] },
  ]);
}

/** A copy of a JSON value with a few changes somewhere inside it. */
export function mutateValue(random, value) {
  const copy = structuredClone(value);
  for (let n = 1 + random.below(3); n > 0; n--) mutateOnce(random, copy);
  return copy;
}

function mutateOnce(random, value) {
  if (typeof value !== "object" || value === null) return;
  const keys = Object.keys(value);
  if (keys.length === 0) return;
  const key = random.pick(keys);
  const inner = value[key];
  if (typeof inner === "object" && inner !== null && random.chance(0.7))
    return mutateOnce(random, inner);
  const kind = random.below(6);
  if (kind === 0) {
    if (Array.isArray(value)) value.splice(Number(key), 1);
    else delete value[key];
  } else if (kind === 1) value[key] = anyValue(random);
  else if (kind === 2) value[key] = random.pick(NUMBERS);
  else if (kind === 3) value[key] = value[random.pick(keys)];
  else if (kind === 4 && Array.isArray(value)) value.push(anyValue(random));
  else if (kind === 4) value[random.pick(["__proto__x", "id", "", "content", key + key])] = inner;
  else if (typeof inner === "number") value[key] = inner + random.pick([-8, -4, -1, 1, 2, 4, 8]);
  else if (typeof inner === "string")
    value[key] = mutateBytes(random, Buffer.from(inner)).toString();
}

/** A copy of some bytes with a few cuts, copies and flips. */
export function mutateBytes(random, bytes, dictionary = []) {
  let out = Buffer.from(bytes);
  for (let n = 1 + random.below(4); n > 0; n--) {
    const at = random.below(out.length + 1);
    const length = Math.min(random.below(random.chance(0.1) ? 400 : 12), out.length - at);
    const kind = random.below(6);
    const before = out.subarray(0, at);
    if (kind === 0) out = Buffer.concat([before, out.subarray(at + length)]);
    else if (kind === 1)
      out = Buffer.concat([before, out.subarray(at, at + length), out.subarray(at)]);
    else if (kind === 2 && at < out.length) out[at] ^= 1 << random.below(8);
    else if (kind === 3 && at < out.length) out[at] = random.below(256);
    else if (kind === 4 && dictionary.length > 0)
      out = Buffer.concat([before, Buffer.from(random.pick(dictionary)), out.subarray(at)]);
    else if (kind === 5 && random.chance(0.2)) out = Buffer.from(before);
  }
  return out;
}
