const MONTHS =
  "January February March April May June July August September October November December".split(
    " ",
  );
const DAYS = "Sunday Monday Tuesday Wednesday Thursday Friday Saturday".split(" ");

/** Python's `strftime` in the C locale, for the codes that chat templates use. */
export function strftime(date: Date, format: string): string {
  const two = (n: number): string => String(n).padStart(2, "0");
  const month = MONTHS[date.getMonth()] ?? "";
  const day = DAYS[date.getDay()] ?? "";
  const codes: Readonly<Record<string, string>> = {
    Y: String(date.getFullYear()),
    y: two(date.getFullYear() % 100),
    m: two(date.getMonth() + 1),
    d: two(date.getDate()),
    b: month.slice(0, 3),
    B: month,
    a: day.slice(0, 3),
    A: day,
    H: two(date.getHours()),
    I: two(date.getHours() % 12 || 12),
    p: date.getHours() < 12 ? "AM" : "PM",
    M: two(date.getMinutes()),
    S: two(date.getSeconds()),
    "%": "%",
  };
  return format.replace(/%(.)/g, (whole, code: string) => codes[code] ?? whole);
}
