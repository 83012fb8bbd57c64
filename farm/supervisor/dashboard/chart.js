// A chart of lines over the last hour. With the pointer over it, or the arrow keys on it, it shows one moment.

const HEIGHT = 132;
const PAD = { left: 46, right: 10, top: 8, bottom: 20 };
const MOST_LINES = 8;

class Chart {
  /** text: of a value. */
  constructor(title, text, { least = 1, note = "" } = {}) {
    this.text = text;
    this.tick = (value) => (value >= 10_000 && (text === count || text === rate) ? compact(value) : text(value));
    this.step = text === bytes ? 1024 : 1000;
    this.least = least;
    this.lines = [];
    this.at = null;
    this.svg = s("svg", { role: "img", tabindex: "0", height: HEIGHT });
    this.legend = h("ul", { class: "legend" });
    this.when = h("span", { class: "when" });
    this.title = title;
    this.element = h("figure", { class: "card chart" },
      h("figcaption", {}, h("h2", {}, title), note && h("small", {}, note), this.when), this.svg, this.legend);
    this.svg.addEventListener("pointermove", (event) => this.look(this.indexOf(event.offsetX)));
    this.svg.addEventListener("pointerleave", () => this.look(null));
    this.svg.addEventListener("blur", () => this.look(null));
    this.svg.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.draw()).observe(this.svg);
  }

  /** lines: {label, values}; end: when the last value was taken, in ms; interval: between two, in s. */
  show(lines, end, interval) {
    this.lines = lines.slice(0, MOST_LINES);
    this.left = lines.length - this.lines.length;
    this.end = end;
    this.interval = interval;
    this.size = Math.max(2, ...this.lines.map((line) => line.values.length));
    this.draw();
  }

  get width() {
    return Math.max(120, this.svg.clientWidth || 300);
  }

  x(index) {
    return PAD.left + (index / (this.size - 1)) * (this.width - PAD.left - PAD.right);
  }

  y(value) {
    return HEIGHT - PAD.bottom - (value / this.top) * (HEIGHT - PAD.top - PAD.bottom);
  }

  indexOf(x) {
    const share = (x - PAD.left) / (this.width - PAD.left - PAD.right);
    return Math.min(this.size - 1, Math.max(0, Math.round(share * (this.size - 1))));
  }

  timeOf(index) {
    return this.end - (this.size - 1 - index) * this.interval * 1000;
  }

  key(event) {
    const last = this.size - 1;
    const at = this.at === null ? last : this.at;
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: last }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.look(Math.min(last, Math.max(0, to)));
    announce(`${clock(this.timeOf(this.at))}: ${this.values(this.at)}`);
  }

  look(at) {
    if (at !== this.at) {
      this.at = at;
      this.mark();
    }
  }

  value(line, at) {
    return line.values[line.values.length - this.size + at];
  }

  values(at) {
    return this.lines.map((line) => `${line.label} ${this.text(this.value(line, at))}`).join(", ");
  }

  draw() {
    if (!this.lines.length) return;
    const known = this.lines.flatMap((line) => line.values).filter((value) => value !== null);
    this.top = niceTop(Math.max(this.least, ...known), this.step);
    const { svg, width } = this;
    svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    svg.setAttribute("aria-label", `${this.title}, now: ${this.values(this.size - 1)}`);
    svg.replaceChildren();
    for (const share of [0, 0.5, 1]) {
      const y = this.y(this.top * share);
      svg.append(s("line", { class: share ? "grid" : "axis", x1: PAD.left, x2: width - PAD.right, y1: y, y2: y }));
      svg.append(s("text", { class: "tick", x: PAD.left - 6, y: y + 3.5, "text-anchor": "end" }, this.tick(this.top * share)));
    }
    for (const [share, anchor] of [[0, "start"], [0.5, "middle"], [1, "end"]]) {
      const index = (this.size - 1) * share;
      const label = clock(this.timeOf(index), this.size * this.interval < 300);
      svg.append(s("text", { class: "tick", x: this.x(index), y: HEIGHT - 5, "text-anchor": anchor }, label));
    }
    this.lines.forEach((line, number) => {
      const path = this.path(line);
      if (this.lines.length === 1 && path.area) svg.append(s("path", { class: "area c0", d: path.area }));
      svg.append(s("path", { class: `line c${number}`, d: path.line }));
    });
    this.marks = s("g", { class: "marks" });
    svg.append(this.marks);
    this.mark();
  }

  path(line) {
    let drawn = "";
    let area = "";
    let start = null;
    let last = null;
    for (let at = 0; at <= this.size; at += 1) {
      const value = at < this.size ? this.value(line, at) : undefined;
      if (value === undefined || value === null) {
        if (start !== null) area += `L${last},${this.y(0)}L${start},${this.y(0)}Z`;
        if (start !== null && start === last) drawn += "h0.01"; // a single sample is a dot
        start = null;
        continue;
      }
      const point = `${this.x(at).toFixed(1)},${this.y(value).toFixed(1)}`;
      drawn += (start === null ? "M" : "L") + point;
      area += (start === null ? "M" : "L") + point;
      last = this.x(at).toFixed(1);
      if (start === null) start = last;
    }
    return { line: drawn, area };
  }

  mark() {
    if (!this.marks) return;
    const at = this.at === null ? this.size - 1 : this.at;
    this.marks.replaceChildren();
    this.when.textContent = this.at === null ? "" : clock(this.timeOf(at));
    if (this.at !== null) {
      const x = this.x(at);
      this.marks.append(s("line", { class: "cross", x1: x, x2: x, y1: PAD.top, y2: HEIGHT - PAD.bottom }));
      this.lines.forEach((line, number) => {
        const value = this.value(line, at);
        if (value !== undefined && value !== null) {
          this.marks.append(s("circle", { class: `dot c${number}`, cx: x, cy: this.y(value), r: 3 }));
        }
      });
    }
    fill(this.legend, this.lines.map((line, number) =>
      h("li", {}, h("i", { class: `c${number}` }), h("span", {}, line.label), h("b", {}, this.text(this.value(line, at)))),
    ), this.left > 0 && h("li", {}, `and ${this.left} more`));
  }
}

/** A round number at or above this one, so that its half is round, too. step: between two units, such as KiB and MiB. */
function niceTop(value, step) {
  const unit = value >= 1 ? step ** Math.floor(Math.log(value) / Math.log(step)) : 1;
  const size = 10 ** Math.floor(Math.log10(value / unit));
  return unit * size * [1, 2, 4, 6, 8, 10].find((times) => times * size >= (value / unit) * 0.9999);
}
