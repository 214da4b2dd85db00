// What a drawing can do in a browser: hover, keyboard, a threshold, pins, a table beside it. Nothing is loaded.
// Everything is read from the SVG (data-n, data-id, data-e, data-s); without this file it is a picture with links.

const later = (edge) => Number(edge.dataset.e.split("-")[0]);
const earlier = (edge) => Number(edge.dataset.e.split("-")[1]);

class Drawing {
  constructor(root) {
    this.root = root;
    this.svg = root.querySelector("svg.fa-figure");
    this.dots = [...this.svg.querySelectorAll(".fa-dot")].sort((a, b) => a.dataset.n - b.dataset.n);
    this.edges = [...this.svg.querySelectorAll(".fa-edge[data-e]")];
    this.rows = [...root.querySelectorAll("tr[data-e]")];
    this.status = root.querySelector("[data-status]");
    this.pins = new Set();
    this.places = this.dots.map((dot) => {
      const box = dot.querySelector("[cx], rect, path").getBBox();
      return { x: box.x + box.width / 2, y: box.y + box.height / 2 };
    });
    this.seed = Math.max(0, this.dots.findIndex((dot) => dot.querySelector(".fa-seed")));
    // Its parts can be reached now, which an image's cannot.
    this.svg.setAttribute("role", "group");
    this.dots.forEach((dot, n) => this.prepare(dot, n));
    this.svg.addEventListener("keydown", (event) => this.key(event));
    for (const row of this.rows) {
      row.addEventListener("mouseenter", () => this.show(new Set(row.dataset.e.split("-").map(Number)), row.dataset.e));
      row.addEventListener("mouseleave", () => this.clear());
    }
    this.slider();
    this.centre();
  }

  // In a window that is narrower than the picture, what it is about is in sight first.
  centre() {
    const box = this.svg.parentElement;
    const seed = this.places[this.seed];
    if (seed && seed.x > 0.8 * box.clientWidth) box.scrollLeft = seed.x - box.clientWidth / 3;
  }

  prepare(dot, n) {
    if (dot.tagName.toLowerCase() !== "a") dot.setAttribute("role", "button");
    // One stop for the tab key; arrows walk along the edges.
    dot.setAttribute("tabindex", n === this.seed ? "0" : "-1");
    dot.addEventListener("mouseenter", () => this.around(n));
    dot.addEventListener("mouseleave", () => this.clear());
    dot.addEventListener("focus", () => this.around(n));
    dot.addEventListener("blur", () => this.clear());
    dot.addEventListener("click", (event) => {
      if (dot.tagName.toLowerCase() !== "a" || event.ctrlKey || event.metaKey) {
        event.preventDefault();
        this.pin(n);
      }
    });
  }

  around(n) {
    const near = new Set([n]);
    for (const edge of this.edges) {
      if (later(edge) === n) near.add(earlier(edge));
      if (earlier(edge) === n) near.add(later(edge));
    }
    this.show(near, null, n);
    this.say(`${this.dots[n].dataset.id}, ${near.size - 1} matches shown`);
  }

  show(near, only, centre) {
    this.svg.classList.add("fa-dimmed");
    this.dots.forEach((dot, n) => dot.classList.toggle("fa-near", near.has(n)));
    for (const part of [...this.edges, ...this.rows]) {
      const mine = only ? part.dataset.e === only : later(part) === centre || earlier(part) === centre;
      part.classList.toggle("fa-near", mine);
    }
  }

  clear() {
    this.svg.classList.remove("fa-dimmed");
    for (const part of [...this.dots, ...this.edges, ...this.rows]) part.classList.remove("fa-near");
  }

  key(event) {
    const n = this.dots.indexOf(event.target.closest(".fa-dot"));
    if (n < 0) return;
    const ways = { ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] };
    if (ways[event.key]) {
      event.preventDefault();
      this.go(n, this.next(n, ...ways[event.key]));
    } else if (event.key === "Home") {
      event.preventDefault();
      this.go(n, this.seed);
    } else if (event.key === "Escape") {
      this.clear();
    } else if (event.key === "p" || (this.dots[n].tagName.toLowerCase() !== "a" && [" ", "Enter"].includes(event.key))) {
      event.preventDefault();
      this.pin(n);
    }
  }

  next(n, dx, dy) {
    // Up and down along the best edge; where none leads there, and sideways, to what stands nearest.
    if (dy) {
      const on = this.edges.filter((edge) => !edge.hasAttribute("hidden") && (dy < 0 ? earlier(edge) : later(edge)) === n);
      on.sort((a, b) => b.dataset.s - a.dataset.s);
      if (on.length) return dy < 0 ? later(on[0]) : earlier(on[0]);
    }
    const { x, y } = this.places[n];
    let best = n;
    let least = Infinity;
    this.places.forEach((place, other) => {
      const [along, across] = dx ? [(place.x - x) * dx, place.y - y] : [(place.y - y) * dy, place.x - x];
      const far = along + 4 * Math.abs(across);
      if (along > 1 && far < least && !this.dots[other].hasAttribute("hidden")) [best, least] = [other, far];
    });
    return best;
  }

  go(from, to) {
    this.dots[from].setAttribute("tabindex", "-1");
    this.dots[to].setAttribute("tabindex", "0");
    this.dots[to].focus();
  }

  pin(n) {
    this.pins.has(n) ? this.pins.delete(n) : this.pins.add(n);
    this.dots[n].classList.toggle("fa-pinned", this.pins.has(n));
    this.dots[n].setAttribute("aria-pressed", String(this.pins.has(n)));
    const ids = [...this.pins].map((pin) => this.dots[pin].dataset.id);
    const box = this.root.querySelector("[data-pins]");
    if (box) {
      box.hidden = ids.length === 0;
      const list = box.querySelector("ul");
      list.replaceChildren(
        ...ids.map((id) => {
          const item = document.createElement("li");
          const field = document.createElement("input");
          Object.assign(field, { type: "hidden", name: "feature", value: id });
          item.append(id, field);
          return item;
        }),
      );
    }
    this.say(`${this.dots[n].dataset.id} ${this.pins.has(n) ? "pinned" : "let go"}`);
  }

  slider() {
    const field = this.root.querySelector("input[data-threshold]");
    if (!field || !this.edges.length) return;
    field.closest("[hidden]")?.removeAttribute("hidden");
    field.addEventListener("input", () => this.cut(Number(field.value)));
  }

  cut(threshold) {
    const kept = this.edges.filter((edge) => Number(edge.dataset.s) >= threshold);
    const joined = new Map(this.dots.map((_, n) => [n, []]));
    for (const edge of kept) {
      joined.get(later(edge)).push(earlier(edge));
      joined.get(earlier(edge)).push(later(edge));
    }
    const seen = new Set([this.seed]);
    for (const n of seen) joined.get(n).forEach((other) => seen.add(other));
    const shown = (part) => Number(part.dataset.s) >= threshold && seen.has(later(part));
    this.dots.forEach((dot, n) => dot.toggleAttribute("hidden", !seen.has(n)));
    for (const edge of this.edges) edge.toggleAttribute("hidden", !shown(edge));
    for (const row of this.rows) row.hidden = !shown(row);
    for (const text of this.svg.querySelectorAll(".fa-cosine")) {
      const edge = this.edges.find((one) => one.dataset.e === text.dataset.e);
      text.toggleAttribute("hidden", edge ? !shown(edge) : false);
    }
    const output = this.root.querySelector("output[data-threshold]");
    if (output) output.value = `${threshold.toFixed(2)}: ${seen.size} of ${this.dots.length} features`;
  }

  say(text) {
    if (this.status) this.status.textContent = text;
  }
}

export function enhance(within) {
  for (const root of within.querySelectorAll("[data-drawing]")) {
    if (root.querySelector("svg.fa-figure .fa-dot") && !root.drawing) root.drawing = new Drawing(root);
  }
}

enhance(document);
