import { toJson } from "./json.js";
import { capitalize, center, percentFormat, pythonStrip, replace } from "./methods.js";
import { arithmetic, member } from "./operators.js";
import { testNamed } from "./tests.js";
import {
  compare,
  equals,
  Float,
  isTrue,
  iterate,
  type Keywords,
  lengthOf,
  numeric,
  Tuple,
  text,
  typeName,
  type Value,
} from "./values.js";

/** A filter, `value | name(args)`. */
export type Filter = (value: Value, args: readonly Value[], keywords: Keywords) => Value;

/** An argument by place or by name. */
function argument(
  args: readonly Value[],
  keywords: Keywords,
  i: number,
  name: string,
  otherwise?: Value,
): Value {
  if (i < args.length) return args[i];
  return keywords.has(name) ? keywords.get(name) : otherwise;
}

function wholeNumber(value: Value, what: string): number {
  const number = numeric(value);
  if (number === undefined) throw new Error(`${what}: expected a number, found ${typeName(value)}`);
  return number;
}

/** The attribute `a.b.0` of an item, as `map(attribute=...)` and others name it. */
function attributeOf(path: Value): (item: Value) => Value {
  if (typeof path === "number") return (item) => member(item, path, false);
  const steps = text(path)
    .split(".")
    .map((step) => (/^\d+$/.test(step) ? Number(step) : step));
  return (item) => steps.reduce<Value>((value, step) => member(value, step, false), item);
}

/** What things are sorted and compared by: small letters, unless case counts. */
function keyOf(attribute: Value, caseSensitive: boolean): (item: Value) => Value {
  const pick =
    attribute === undefined || attribute === null ? (item: Value) => item : attributeOf(attribute);
  return (item) => {
    const key = pick(item);
    return typeof key === "string" && !caseSensitive ? key.toLowerCase() : key;
  };
}

function sorted(items: readonly Value[], key: (item: Value) => Value, reverse = false): Value[] {
  const order = [...items].sort((a, b) => (reverse ? -1 : 1) * compare(key(a), key(b)));
  return order;
}

const select =
  (wanted: boolean, byAttribute: boolean): Filter =>
  (value, args) => {
    const pick = byAttribute ? attributeOf(args[0]) : (item: Value) => item;
    const [name, ...rest] = args.slice(byAttribute ? 1 : 0);
    const test =
      name === undefined
        ? isTrue
        : (
            (t) => (item: Value) =>
              t(item, rest)
          )(testNamed(text(name)));
    return iterate(value).filter((item) => test(pick(item)) === wanted);
  };

const map: Filter = (value, args, keywords) => {
  const items = iterate(value);
  if (args.length === 0) {
    if (!keywords.has("attribute")) throw new Error("map: expected a filter or attribute=");
    const pick = attributeOf(keywords.get("attribute"));
    const otherwise = keywords.get("default");
    return items.map((item) => pick(item) ?? otherwise);
  }
  const filter = filterNamed(text(args[0]));
  return items.map((item) => filter(item, args.slice(1), keywords));
};

const length: Filter = (value) => lengthOf(value);

const otherwise: Filter = (value, args, keywords) => {
  const alsoFalse = isTrue(argument(args, keywords, 1, "boolean", false));
  const missing = value === undefined || (alsoFalse && !isTrue(value));
  return missing ? argument(args, keywords, 0, "default_value", "") : value;
};

const escapeHtml: Filter = (value) => {
  const names: Readonly<Record<string, string>> = {
    "&": "&amp;",
    "<": "&lt;",
    ">": "&gt;",
    '"': "&#34;",
    "'": "&#39;",
  };
  return text(value).replace(/[&<>"']/g, (c) => names[c] ?? c);
};

const extreme =
  (sign: 1 | -1): Filter =>
  (value, args, keywords) => {
    const key = keyOf(
      keywords.get("attribute"),
      argument(args, keywords, 0, "case_sensitive", false) === true,
    );
    const items = iterate(value);
    return items
      .slice(1)
      .reduce((best, item) => (sign * compare(key(item), key(best)) > 0 ? item : best), items[0]);
  };

/** Python's `round`: halves go to the even neighbour. */
function round(value: number, digits: number): number {
  const scale = 10 ** digits;
  const scaled = value * scale;
  const below = Math.floor(scaled);
  if (scaled - below !== 0.5) return Number(value.toFixed(Math.max(0, digits)));
  return (below % 2 === 0 ? below : below + 1) / scale;
}

const toInt: Filter = (value, args, keywords) => {
  const fallback = argument(args, keywords, 0, "default", 0);
  const number =
    typeof value === "string" ? Number(pythonStrip("strip", value) || Number.NaN) : numeric(value);
  return number === undefined || !Number.isFinite(number) ? fallback : Math.trunc(number);
};

const toFloat: Filter = (value, args, keywords) => {
  const fallback = argument(args, keywords, 0, "default", new Float(0));
  const number =
    typeof value === "string" ? Number(pythonStrip("strip", value) || Number.NaN) : numeric(value);
  return number === undefined || Number.isNaN(number) ? fallback : new Float(number);
};

const indent: Filter = (value, args, keywords) => {
  const width = argument(args, keywords, 0, "width", 4);
  const margin = typeof width === "string" ? width : " ".repeat(wholeNumber(width, "indent"));
  const blank = isTrue(argument(args, keywords, 2, "blank", false));
  const [first = "", ...rest] = text(value).split(/\r\n|[\n\r]/);
  const lines = rest.map((line) => (line !== "" || blank ? margin + line : line));
  const start = isTrue(argument(args, keywords, 1, "first", false)) ? margin : "";
  return start + [first, ...lines].join("\n");
};

const truncate: Filter = (value, args, keywords) => {
  const points = Array.from(text(value));
  const limit = wholeNumber(argument(args, keywords, 0, "length", 255), "truncate");
  const end = text(argument(args, keywords, 2, "end", "..."));
  const leeway = wholeNumber(argument(args, keywords, 3, "leeway", 5) ?? 5, "truncate");
  if (points.length <= limit + leeway) return points.join("");
  const kept = points.slice(0, limit - Array.from(end).length).join("");
  if (isTrue(argument(args, keywords, 1, "killwords", false))) return kept + end;
  const space = kept.lastIndexOf(" ");
  return (space < 0 ? kept : kept.slice(0, space)) + end;
};

const batch: Filter = (value, args, keywords) => {
  const size = wholeNumber(argument(args, keywords, 0, "linecount"), "batch");
  const fill = argument(args, keywords, 1, "fill_with", null);
  const items = iterate(value);
  const rows: Value[] = [];
  for (let i = 0; i < items.length; i += size) {
    const row = items.slice(i, i + size);
    while (fill !== null && row.length < size) row.push(fill);
    rows.push(row);
  }
  return rows;
};

const slices: Filter = (value, args, keywords) => {
  const count = wholeNumber(argument(args, keywords, 0, "slices"), "slice");
  const fill = argument(args, keywords, 1, "fill_with", null);
  const items = iterate(value);
  const [size, more] = [Math.floor(items.length / count), items.length % count];
  let at = 0;
  return Array.from({ length: count }, (_, i) => {
    const row = items.slice(at, at + size + (i < more ? 1 : 0));
    at += row.length;
    if (fill !== null && i >= more && more > 0) row.push(fill);
    return row;
  });
};

const groupby: Filter = (value, args, keywords) => {
  const path = argument(args, keywords, 0, "attribute");
  const key = keyOf(path, isTrue(argument(args, keywords, 2, "case_sensitive", false)));
  const groups: Tuple[] = [];
  let last: Value;
  for (const item of sorted(iterate(value), key)) {
    const group = groups.at(-1);
    if (group !== undefined && equals(last, key(item))) (group[1] as Value[]).push(item);
    else groups.push(Tuple.of1(attributeOf(path)(item), [item]));
    last = key(item);
  }
  return groups;
};

const items: Filter = (value) => {
  if (value === undefined) return [];
  if (!(value instanceof Map)) throw new Error(`items: expected a dict, found ${typeName(value)}`);
  return [...value].map(([key, item]) => Tuple.of1(key, item));
};

/** Jinja's own `title`, which knows more than Python's where words begin. */
const title: Filter = (value) =>
  text(value)
    .split(/([-\s({[<]+)/u)
    .map(capitalize)
    .join("");

const filters: Readonly<Record<string, Filter>> = {
  abs: (value) => {
    const number = Math.abs(wholeNumber(value, "abs"));
    return value instanceof Float ? new Float(number) : number;
  },
  attr: (value, [name]) => member(value, name, true),
  batch,
  capitalize: (value) => capitalize(text(value)),
  center: (value, args, keywords) =>
    center(text(value), wholeNumber(argument(args, keywords, 0, "width", 80), "center")),
  count: length,
  d: otherwise,
  default: otherwise,
  dictsort: (value, args, keywords) => {
    const caseSensitive = isTrue(argument(args, keywords, 0, "case_sensitive", false));
    const place = argument(args, keywords, 1, "by", "key") === "value" ? 1 : 0;
    const reverse = isTrue(argument(args, keywords, 2, "reverse", false));
    return sorted(iterate(items(value, [], keywords)), keyOf(place, caseSensitive), reverse);
  },
  e: escapeHtml,
  escape: escapeHtml,
  first: (value) => iterate(value)[0],
  float: toFloat,
  format: (value, args) => percentFormat(text(value), args),
  groupby,
  indent,
  int: toInt,
  items,
  join: (value, args, keywords) => {
    const attribute = argument(args, keywords, 1, "attribute", null);
    const pick = attribute === null ? (item: Value) => item : attributeOf(attribute);
    const by = text(argument(args, keywords, 0, "d", ""));
    return iterate(value)
      .map((item) => text(pick(item)))
      .join(by);
  },
  last: (value) => iterate(value).at(-1),
  length,
  list: (value) => iterate(value),
  lower: (value) => text(value).toLowerCase(),
  map,
  max: extreme(1),
  min: extreme(-1),
  reject: select(false, false),
  rejectattr: select(false, true),
  replace: (value, args, keywords) =>
    replace(
      text(value),
      text(argument(args, keywords, 0, "old")),
      text(argument(args, keywords, 1, "new")),
      numeric(argument(args, keywords, 2, "count", null)) ?? -1,
    ),
  reverse: (value) => {
    const reversed = iterate(value).reverse();
    return typeof value === "string" ? reversed.join("") : reversed;
  },
  round: (value, args, keywords) => {
    const digits = wholeNumber(argument(args, keywords, 0, "precision", 0), "round");
    const method = argument(args, keywords, 1, "method", "common");
    const number = wholeNumber(value, "round");
    if (method === "common")
      return value instanceof Float ? new Float(round(number, digits)) : value;
    const scale = 10 ** digits;
    return new Float((method === "ceil" ? Math.ceil : Math.floor)(number * scale) / scale);
  },
  safe: (value) => text(value),
  select: select(true, false),
  selectattr: select(true, true),
  slice: slices,
  sort: (value, args, keywords) => {
    const reverse = isTrue(argument(args, keywords, 0, "reverse", false));
    const caseSensitive = isTrue(argument(args, keywords, 1, "case_sensitive", false));
    return sorted(
      iterate(value),
      keyOf(argument(args, keywords, 2, "attribute"), caseSensitive),
      reverse,
    );
  },
  string: (value) => text(value),
  sum: (value, args, keywords) => {
    const attribute = argument(args, keywords, 0, "attribute", null);
    const pick = attribute === null ? (item: Value) => item : attributeOf(attribute);
    const start = argument(args, keywords, 1, "start", 0);
    return iterate(value).reduce<Value>((sum, item) => arithmetic("+", sum, pick(item)), start);
  },
  title,
  tojson: toJson,
  trim: (value, args, keywords) => {
    const chars = argument(args, keywords, 0, "chars", null);
    return pythonStrip("strip", text(value), chars === null ? null : text(chars));
  },
  truncate,
  unique: (value, args, keywords) => {
    const key = keyOf(
      argument(args, keywords, 1, "attribute"),
      isTrue(argument(args, keywords, 0, "case_sensitive", false)),
    );
    const seen: Value[] = [];
    return iterate(value).filter((item) => {
      const isNew = !seen.some((other) => equals(other, key(item)));
      if (isNew) seen.push(key(item));
      return isNew;
    });
  },
  upper: (value) => text(value).toUpperCase(),
  urlencode: (value) =>
    encodeURIComponent(text(value))
      .replace(/[!'()*]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`)
      .replaceAll("%2F", "/"),
  wordcount: (value) => text(value).match(/[\p{L}\p{N}_]+/gu)?.length ?? 0,
};

/** The filter of that name. Throws where there is none. */
export function filterNamed(name: string): Filter {
  const filter = Object.hasOwn(filters, name) ? filters[name] : undefined;
  if (filter === undefined) throw new SyntaxError(`no filter named "${name}"`);
  return filter;
}
