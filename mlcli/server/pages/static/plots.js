// Runs in pictures: parallel coordinates, scatter, heat map, box plot, importance; SVG that is made from the page's data.
(() => {
  "use strict";
  const { $, $$, t } = window.mlcli;
  $("#only-changed")?.addEventListener("change", (event) => $(".side-by-side").classList.toggle("only-changed", event.target.checked));
  const source = $("#compare-data");
  if (!source) return;
  const data = JSON.parse(source.textContent);
  const prefix = document.body.dataset.prefix;
  const state = new URLSearchParams(location.hash.includes("=") ? location.hash.slice(1) : "");
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const numeric = new Set(data.numeric);
  const open = (run) => { location.href = `${prefix}runs/${encodeURIComponent(run.run_id)}`; };
  const asNumber = (value) => (typeof value === "number" ? value : value == null || value === "" ? NaN : Number(value));
  const show = (value) => value == null || Number.isNaN(value) ? "–" : typeof value !== "number" ? String(value) : Math.abs(value) >= 1e6 || (value && Math.abs(value) < 1e-3) ? value.toExponential(2) : String(+value.toPrecision(4));
  const short = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

  function make(name, attributes = {}, ...inside) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) if (value != null) made.setAttribute(key, value);
    made.append(...inside.filter((one) => one != null));
    return made;
  }
  function text(x, y, words, attributes = {}) { return make("text", { x, y, ...attributes }, String(words)); }
  function canvas(place, high, label) {
    const wide = Math.max(place.clientWidth, 260);
    const svg = make("svg", { viewBox: `0 0 ${wide} ${high}`, width: wide, height: high, role: "img", "aria-label": label });
    place.replaceChildren(svg);
    place.style.position = "relative";
    return [svg, wide];
  }
  function tip(place, mark, words) {
    mark.append(make("title", {}, words));
  }
  // Viridis by a few stops: even to the eye, and for eyes that see few colours.
  const ON_LIGHT = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [233, 205, 20]];
  const ON_DARK = [[122, 86, 190], [84, 124, 205], [44, 170, 165], [122, 209, 110], [253, 231, 37]];
  let STOPS = ON_LIGHT;
  function shade(part) {
    if (!(part >= 0)) return css("--line-strong");
    const place = Math.min(part, 1) * (STOPS.length - 1), at = Math.min(Math.floor(place), STOPS.length - 2), rest = place - at;
    return `rgb(${STOPS[at].map((one, n) => Math.round(one + (STOPS[at + 1][n] - one) * rest)).join(",")})`;
  }
  const value = (run, [kind, key]) => { const of = kind === "m" ? run.metrics : run.params; return Object.hasOwn(of, key) ? of[key] : undefined; }; // a key may be called "constructor"
  const isNumber = ([kind, key]) => kind === "m" || numeric.has(key);
  const column = (name) => [name[0], name.slice(2)];
  const columns = [...data.params.map((key) => `p:${key}`), ...data.metrics.map((key) => `m:${key}`)];

  // A scale for numbers or for words; gives a part from 0 to 1.
  function scale(name) {
    const of = column(name);
    if (isNumber(of)) {
      const values = data.runs.map((run) => asNumber(value(run, of))).filter(Number.isFinite);
      let low = Math.min(...values), high = Math.max(...values);
      const log = low > 0 && high / low > 100;
      if (low === high) { low -= Math.abs(low) * 0.1 || 1; high += Math.abs(high) * 0.1 || 1; }
      const part = (one) => { const x = asNumber(one); return !Number.isFinite(x) ? NaN : log ? Math.log(x / low) / Math.log(high / low) : (x - low) / (high - low); };
      const back = (at) => (log ? low * (high / low) ** at : low + (high - low) * at);
      const few = [...new Set(values)].sort((a, b) => a - b);
      const apart = few.every((one, n) => !n || part(one) - part(few[n - 1]) > 0.05);
      const ticks = few.length > 1 && few.length <= 6 && apart ? few.map((one) => [part(one), show(one)]) : [0, 0.25, 0.5, 0.75, 1].map((at) => [at, show(back(at))]);
      return { part, ticks, words: null, log, low, high };
    }
    const words = [...new Set(data.runs.map((run) => value(run, of)).filter((one) => one != null))].sort();
    const part = (one) => (one == null ? NaN : words.length < 2 ? 0.5 : words.indexOf(one) / (words.length - 1));
    return { part, words, ticks: words.slice(0, 40).map((word) => [part(word), short(word, 14)]) };
  }
  const label = (name) => column(name)[1];

  // -- parallel coordinates
  function parallel(place) {
    const names = [...data.params.slice(0, 9).map((key) => `p:${key}`), `m:${data.metric}`];
    place.classList.add("parallel");
    const [svg, wide] = canvas(place, 380, t("Parallel coordinates of {n} runs", { n: data.runs.length }));
    const scales = names.map(scale), [top, bottom] = [38, 352];
    const step = (wide - 110) / Math.max(names.length - 1, 1);
    const x = (place) => 50 + place * step, y = (part) => bottom - part * (bottom - top);
    const last = scales[scales.length - 1];
    const lines = data.runs.map((run) => {
      const parts = names.map((name, n) => scales[n].part(value(run, column(name))));
      const points = parts.map((part, n) => (Number.isNaN(part) ? null : `${x(n).toFixed(1)},${y(part).toFixed(1)}`));
      const d = points.reduce((path, point, n) => (point === null ? path : `${path}${path && points[n - 1] !== null ? "L" : "M"}${point}`), "");
      const line = make("path", { class: "run-line", d, stroke: shade(data.less ? 1 - last.part(value(run, column(names[names.length - 1]))) : last.part(value(run, column(names[names.length - 1])))) });
      tip(place, line, `${run.name}\n${names.map((name) => `${label(name)}: ${show(value(run, column(name)))}`).join("\n")}`);
      line.addEventListener("click", () => open(run));
      svg.append(line);
      return { line, parts };
    });
    const kept = new Map();
    const apply = () => { for (const { line, parts } of lines) line.classList.toggle("off", [...kept].some(([n, [low, high]]) => !(parts[n] >= low && parts[n] <= high))); };
    names.forEach((name, n) => {
      svg.append(make("line", { class: "axis", x1: x(n), x2: x(n), y1: top, y2: bottom }));
      svg.append(text(x(n), 18, short(label(name), Math.max(6, Math.floor(step / 7))), { class: "strong", "text-anchor": n === 0 && step < 90 ? "start" : "middle" }, ));
      for (const [at, words] of scales[n].ticks) svg.append(text(x(n) + 5, y(at) + 4, words));
      const brush = make("rect", { class: "brush", x: x(n) - 7, width: 14, y: top, height: 0 });
      const hit = make("rect", { class: "axis-hit", x: x(n) - 12, width: 24, y: top - 6, height: bottom - top + 12 });
      svg.append(brush, hit);
      let from = null;
      const at = (event) => { const frame = svg.getBoundingClientRect(); return Math.min(1, Math.max(0, (bottom - ((event.clientY - frame.top) * 380) / frame.height) / (bottom - top))); };
      hit.addEventListener("pointerdown", (event) => { from = at(event); hit.setPointerCapture(event.pointerId); });
      hit.addEventListener("pointermove", (event) => {
        if (from === null) return;
        const [low, high] = [from, at(event)].sort((a, b) => a - b);
        kept.set(n, [low - 1e-9, high + 1e-9]);
        brush.setAttribute("y", y(high));
        brush.setAttribute("height", (high - low) * (bottom - top));
        apply();
      });
      hit.addEventListener("pointerup", (event) => {
        if (from !== null && Math.abs(at(event) - from) < 0.01) { kept.delete(n); brush.setAttribute("height", 0); apply(); }
        from = null;
      });
    });
  }

  // -- axes that are chosen
  function choose(id, choices, fallback) {
    const select = $(`[data-axis="${id}"]`);
    if (!select.options.length) {
      select.append(...choices.map((name) => Object.assign(document.createElement("option"), { value: name, textContent: label(name) + (name[0] === "m" && data.params.includes(label(name)) ? " ↗" : "") })));
      const wanted = state.get(id);
      select.value = choices.includes(wanted) ? wanted : choices.includes(fallback) ? fallback : choices[0] || "";
      select.addEventListener("change", () => { state.set(id, select.value); history.replaceState(null, "", `${location.pathname}${location.search}#${state}`); drawAll(); });
    }
    return select.value;
  }
  function frame(svg, wide, high, sx, sy, names) {
    const [left, right, top, bottom] = [64, wide - 14, 14, high - 46];
    const x = (part) => left + 8 + part * (right - left - 16), y = (part) => bottom - 8 - part * (bottom - top - 16);
    svg.append(make("path", { class: "axis", d: `M${left},${top}V${bottom}H${right}` }));
    const room = Math.max(1, Math.ceil(sx.ticks.length / Math.max(2, Math.floor((right - left) / 64))));
    sx.ticks.forEach(([at, words], n) => { if (n % room === 0) svg.append(text(x(at), bottom + 16, short(words, 9), { "text-anchor": "middle" })); });
    for (const [at, words] of sy.ticks) svg.append(make("line", { class: "grid-line", x1: left, x2: right, y1: y(at), y2: y(at) }), text(left - 6, y(at) + 4, short(words, 9), { "text-anchor": "end" }));
    svg.append(text((left + right) / 2, high - 8, names[0] + (sx.log ? ` (${t("log")})` : ""), { class: "strong", "text-anchor": "middle" }));
    svg.append(text(12, 10, names[1] + (sy.log ? ` (${t("log")})` : ""), { class: "strong" }));
    return { x, y, left, right, top, bottom };
  }
  const best = `m:${data.metric}`;
  const firstParam = data.importance.length ? `p:${data.importance[0].param}` : columns[0];

  function scatter(place) {
    const [nx, ny, nc] = [choose("scatter-x", columns, firstParam), choose("scatter-y", columns, best), choose("scatter-c", columns, data.importance[1] ? `p:${data.importance[1].param}` : best)];
    const [svg, wide] = canvas(place, 340, t("{y} over {x}", { x: label(nx), y: label(ny) }));
    svg.setAttribute("role", "group"); // its dots can be reached by themselves
    const [sx, sy, sc] = [scale(nx), scale(ny), scale(nc)];
    const { x, y, right, top } = frame(svg, wide, 340, sx, sy, [label(nx), label(ny)]);
    let seed = 7;
    const jitter = () => ((seed = (seed * 16807) % 2147483647) / 2147483647 - 0.5) * 14;
    for (const run of data.runs) {
      const [a, b] = [sx.part(value(run, column(nx))), sy.part(value(run, column(ny)))];
      if (Number.isNaN(a) || Number.isNaN(b)) continue;
      const dot = make("circle", { class: "dot", cx: x(a) + (sx.words ? jitter() : 0), cy: y(b) + (sy.words ? jitter() : 0), r: 4.5, fill: shade(sc.part(value(run, column(nc)))), tabindex: data.runs.length <= 100 ? 0 : null, role: "link" });
      tip(place, dot, `${run.name}\n${[nx, ny, nc].map((name) => `${label(name)}: ${show(value(run, column(name)))}`).join("\n")}`);
      dot.addEventListener("click", () => open(run));
      dot.addEventListener("keydown", (event) => { if (event.key === "Enter") open(run); });
      svg.append(dot);
    }
    key(svg, right, top, sc, label(nc));
  }
  function key(svg, right, top, of, name) {
    if (of.words && of.words.length <= 6) { // words have a colour each
      let x = right - 8;
      for (const word of [...of.words].reverse()) {
        const shown = short(word, 12);
        x -= shown.length * 6.4 + 6;
        svg.append(text(x, top - 2, shown), make("circle", { cx: x - 8, cy: top - 6, r: 4, fill: shade(of.part(word)) }));
        x -= 18;
      }
      return;
    }
    const most = of.ticks.at(-1)?.[1] ?? "", end = right + 8 - most.length * 6.4;
    for (let n = 0; n < 40; n++) svg.append(make("rect", { x: end - 82 + n * 2, y: top - 8, width: 2.2, height: 6, fill: shade(n / 39) }));
    svg.append(text(end - 86, top - 2, `${short(name, 16)}  ${of.ticks[0]?.[1] ?? ""}`, { "text-anchor": "end" }), text(end + 2, top - 2, most, {}));
  }

  function cells(name) {
    const of = column(name);
    const made = scale(name);
    const distinct = [...new Set(data.runs.map((run) => value(run, of)).filter((one) => one != null))];
    if (!isNumber(of) || distinct.length <= 8) {
      const words = isNumber(of) ? distinct.sort((a, b) => a - b) : made.words;
      return { count: words.length, of: (run) => words.indexOf(value(run, of)), ticks: words.map((word) => short(show(isNumber(of) ? asNumber(word) : word), 9)) };
    }
    const count = Math.min(12, Math.max(4, Math.round(Math.sqrt(data.runs.length))));
    const back = (at) => (made.log ? made.low * (made.high / made.low) ** at : made.low + (made.high - made.low) * at);
    return { count, of: (run) => { const part = made.part(value(run, of)); return Number.isNaN(part) ? -1 : Math.min(count - 1, Math.floor(part * count)); }, ticks: Array.from({ length: count }, (_, n) => show(back((n + 0.5) / count))) };
  }
  function heat(place) {
    const params = data.params.map((key) => `p:${key}`);
    const second = data.importance[1] ? `p:${data.importance[1].param}` : params[1] || params[0];
    const choices = columns.filter((name) => name !== best);
    const [nx, ny] = [choose("heat-x", choices, firstParam), choose("heat-y", choices, second)];
    if (!nx) return place.replaceChildren(t("There is nothing to draw."));
    const [svg, wide] = canvas(place, 340, t("{metric} by {x} and {y}", { metric: data.metric, x: label(nx), y: label(ny) }));
    const lines = $("#contour").checked, numbers = isNumber(column(nx)) && isNumber(column(ny));
    $("#heat-note").textContent = lines && !numbers ? t("Contour lines need numbers on both axes.") : t("The mean of the metric in each cell, and how many runs it is of.");
    if (lines && numbers) return contour(svg, wide, nx, ny);
    const [cx, cy] = [cells(nx), cells(ny)];
    const sums = new Map();
    for (const run of data.runs) {
      const [a, b, z] = [cx.of(run), cy.of(run), asNumber(value(run, column(best)))];
      if (a < 0 || b < 0 || !Number.isFinite(z)) continue;
      const cell = sums.get(`${a},${b}`) || { sum: 0, count: 0, a, b };
      cell.sum += z; cell.count += 1;
      sums.set(`${a},${b}`, cell);
    }
    const means = [...sums.values()].map((cell) => cell.sum / cell.count);
    const [low, high] = [Math.min(...means), Math.max(...means)];
    const [left, right, top, bottom] = [74, wide - 14, 26, 290];
    const [w, h] = [(right - left) / cx.count, (bottom - top) / cy.count];
    for (const cell of sums.values()) {
      const mean = cell.sum / cell.count, part = high > low ? (mean - low) / (high - low) : 0.5;
      const mark = make("rect", { x: left + cell.a * w + 1, y: bottom - (cell.b + 1) * h + 1, width: Math.max(w - 2, 1), height: Math.max(h - 2, 1), rx: 2, fill: shade(part) });
      tip(place, mark, `${label(nx)}: ${cx.ticks[cell.a]}\n${label(ny)}: ${cy.ticks[cell.b]}\n${data.metric}: ${show(mean)} (${t("{n} runs", { n: cell.count })})`);
      svg.append(mark);
      if (w > 46 && h > 18) svg.append(make("text", { x: left + (cell.a + 0.5) * w, y: bottom - (cell.b + 0.5) * h + 4, "text-anchor": "middle", class: part > 0.6 ? "on-light" : "on-dark" }, `${show(mean)}${h > 34 || w > 90 ? ` (${cell.count})` : ""}`));
    }
    const room = Math.max(1, Math.ceil(54 / w)), tall = Math.max(1, Math.ceil(14 / h));
    cx.ticks.forEach((words, n) => { if (n % room === 0) svg.append(text(left + (n + 0.5) * w, bottom + 16, words, { "text-anchor": "middle" })); });
    cy.ticks.forEach((words, n) => { if (n % tall === 0) svg.append(text(left - 6, bottom - (n + 0.5) * h + 4, words, { "text-anchor": "end" })); });
    svg.append(text((left + right) / 2, 332, label(nx), { class: "strong", "text-anchor": "middle" }), text(4, 14, label(ny), { class: "strong" }));
    key(svg, right, top - 8, { ticks: [[0, show(low)], [1, show(high)]] }, data.metric);
  }

  // -- contour lines: of a mean that weighs runs by their distance, as wide as foretells runs that are left out best
  const WIDTHS = [0.04, 0.06, 0.09, 0.13, 0.19, 0.28];
  const near = (points, h, x, y, without) => {
    let sum = 0, weight = 0;
    points.forEach(([a, b, z], n) => { if (n !== without) { const w = Math.exp(((a - x) ** 2 + (b - y) ** 2) / (-2 * h * h)); sum += w * z; weight += w; } });
    return [sum / weight, weight];
  };
  function foretold(points) { // the width, and the part of the variance of runs that are left out which it tells
    const every = Math.ceil(points.length / 300), some = points.filter((_, n) => n % every === 0), all = some.reduce((sum, [, , z]) => sum + z, 0);
    const blind = some.reduce((sum, [, , z]) => sum + (z - (all - z) / (some.length - 1)) ** 2, 0);
    return WIDTHS.map((h) => [h, 1 - some.reduce((sum, [x, y, z], n) => {
      const [mean, weight] = near(some, h, x, y, n);
      return sum + (z - (weight > 1e-6 ? mean : (all - z) / (some.length - 1))) ** 2;
    }, 0) / blind]).sort((a, b) => b[1] - a[1])[0];
  }
  function contour(svg, wide, nx, ny) {
    const [sx, sy] = [scale(nx), scale(ny)];
    const { x, y, right, top } = frame(svg, wide, 340, sx, sy, [label(nx), label(ny)]);
    const points = data.runs.map((run) => [sx.part(value(run, column(nx))), sy.part(value(run, column(ny))), asNumber(value(run, column(best))), run]).filter((one) => one.slice(0, 3).every(Number.isFinite));
    const [h, told] = points.length > 4 ? foretold(points) : [0, NaN];
    const zs = points.map(([, , z]) => z), [low, high] = [Math.min(...zs), Math.max(...zs)];
    const levels = [];
    if (told > 0.05) {
      const GRID = 44, at = (n) => n / GRID, raw = (high - low) / 8, ten = 10 ** Math.floor(Math.log10(raw)), step = ten * [1, 2, 5, 10].find((one) => one * ten >= raw);
      const grid = Array.from({ length: GRID + 1 }, (_, r) => Array.from({ length: GRID + 1 }, (_, c) => { const [mean, weight] = near(points, h, at(c), at(r)); return weight > 0.3 ? mean : null; }));
      for (let r = 0; r < GRID; r++) for (let c = 0; c < GRID; c++) {
        const four = [grid[r][c], grid[r][c + 1], grid[r + 1][c + 1], grid[r + 1][c]];
        if (four.includes(null)) continue;
        svg.append(make("rect", { class: "field", x: x(at(c)), y: y(at(r + 1)), width: x(at(c + 1)) - x(at(c)), height: y(at(r)) - y(at(r + 1)), fill: shade((four.reduce((a, b) => a + b) / 4 - low) / (high - low)) }));
      }
      for (let n = Math.ceil(low / step); n * step <= high; n++) {
        const level = n * step, pieces = [];
        for (let r = 0; r < GRID; r++) for (let c = 0; c < GRID; c++) {
          const corners = [[c, r], [c + 1, r], [c + 1, r + 1], [c, r + 1]], four = corners.map(([a, b]) => grid[b][a]);
          if (four.includes(null)) continue;
          const cut = four.flatMap((z, k) => { // where the line goes through the sides
            const next = (k + 1) % 4;
            if (z > level === four[next] > level) return [];
            const part = (level - z) / (four[next] - z), [[a, b], [d, e]] = [corners[k], corners[next]];
            return [`${x(at(a + (d - a) * part)).toFixed(1)},${y(at(b + (e - b) * part)).toFixed(1)}`];
          });
          if (cut.length === 4 && four.reduce((a, b) => a + b) / 4 > level !== four[0] > level) cut.push(cut.shift()); // a saddle: the middle tells which corners belong together
          for (let k = 0; k < cut.length; k += 2) pieces.push([cut[k], cut[k + 1]]);
        }
        if (!pieces.length) continue;
        svg.append(make("path", { class: "contour", d: pieces.map(([a, b]) => `M${a}L${b}`).join("") }, make("title", {}, `${data.metric}: ${show(+level.toPrecision(12))}`)));
        const [a, b] = pieces[Math.floor(pieces.length / 2)][0].split(",").map(Number);
        levels.push(text(a, b + 4, show(+level.toPrecision(12)), { class: "level", "text-anchor": "middle" }));
      }
    }
    $("#heat-note").textContent = told > 0.05
      ? t("Lines of a mean that weighs runs by their distance (Gaussian, {h} % of each axis). Of runs that are left out it foretells {part} % of the variance. Where no run is near nothing is drawn; dots are the runs.", { h: Math.round(h * 100), part: Math.round(told * 100) })
      : t("No lines: what is near a run does not foretell its metric here. Dots are the runs.");
    for (const [a, b, z, run] of points) {
      const dot = make("circle", { class: "dot", cx: x(a), cy: y(b), r: 3.5, fill: shade((z - low) / (high - low)) });
      tip(null, dot, `${run.name}\n${data.metric}: ${show(z)}`);
      dot.addEventListener("click", () => open(run));
      svg.append(dot);
    }
    svg.append(...levels);
    key(svg, right, top, { ticks: [[0, show(low)], [1, show(high)]] }, data.metric);
  }
  const contours = $("#contour");
  if (contours) {
    contours.checked = state.get("contour") === "1";
    contours.addEventListener("change", () => { contours.checked ? state.set("contour", "1") : state.delete("contour"); history.replaceState(null, "", `${location.pathname}${location.search}#${state}`); drawAll(); });
  }

  const quantile = (sorted, part) => { const at = (sorted.length - 1) * part, low = Math.floor(at); return sorted[low] + (sorted[Math.min(low + 1, sorted.length - 1)] - sorted[low]) * (at - low); };
  function boxes(place) {
    const choices = data.params.map((key) => `p:${key}`);
    const nx = choose("box-x", choices, firstParam);
    if (!nx) return place.replaceChildren(t("There is nothing to draw."));
    const by = cells(nx), sy = scale(best);
    const groups = Array.from({ length: by.count }, () => []);
    for (const run of data.runs) { const n = by.of(run), y = asNumber(value(run, column(best))); if (n >= 0 && Number.isFinite(y)) groups[n].push([y, run]); }
    const [svg, wide] = canvas(place, 340, t("{metric} by {x}", { metric: data.metric, x: label(nx) }));
    const { x, y, left, right } = frame(svg, wide, 340, { ticks: [] }, sy, [label(nx), data.metric]);
    const step = (right - left) / by.count, broad = Math.min(46, step * 0.6), room = Math.max(1, Math.ceil(54 / step));
    groups.forEach((group, n) => {
      const middle = left + (n + 0.5) * step;
      if (n % room === 0) svg.append(text(middle, 310, `${by.ticks[n]}`, { "text-anchor": "middle" }));
      if (!group.length) return;
      const sorted = group.map(([one]) => one).sort((a, b) => a - b);
      const [first, median, third] = [0.25, 0.5, 0.75].map((part) => quantile(sorted, part));
      const least = sorted.find((one) => one >= first - 1.5 * (third - first)), most = sorted.findLast((one) => one <= third + 1.5 * (third - first));
      const at = (one) => y(sy.part(one));
      if (group.length >= 4) {
        svg.append(make("line", { class: "whisker", x1: middle, x2: middle, y1: at(least), y2: at(most) }));
        const mark = make("rect", { class: "box-mark", x: middle - broad / 2, width: broad, y: at(third), height: Math.max(at(first) - at(third), 1), rx: 3 });
        tip(place, mark, `${by.ticks[n]}\n${t("{n} runs", { n: group.length })}\n${t("median")}: ${show(median)}\n${show(first)} – ${show(third)}`);
        svg.append(mark, make("line", { class: "whisker", x1: middle - broad / 2, x2: middle + broad / 2, y1: at(median), y2: at(median) }));
      }
      let seed = 11;
      for (const [one, run] of group.slice(0, 300)) {
        seed = (seed * 16807) % 2147483647;
        const dot = make("circle", { class: "dot", cx: middle + (seed / 2147483647 - 0.5) * broad * 0.8, cy: at(one), r: 3, fill: css("--accent"), "fill-opacity": 0.7 });
        tip(place, dot, `${run.name}\n${data.metric}: ${show(one)}`);
        dot.addEventListener("click", () => open(run));
        svg.append(dot);
      }
    });
  }

  function importance(place) {
    const shown = data.importance.slice(0, 12);
    const high = 26 + shown.length * 26;
    const [svg, wide] = canvas(place, high, t("Importance of params for {metric}", { metric: data.metric }));
    const left = Math.min(150, wide * 0.34), x = (part) => left + part * (wide - left - 20);
    for (const part of [0, 0.25, 0.5, 0.75, 1]) svg.append(make("line", { class: "grid-line", x1: x(part), x2: x(part), y1: 16, y2: high }), text(x(part), 11, part, { "text-anchor": "middle" }));
    shown.forEach((item, n) => {
      const y = 24 + n * 26;
      const bar = make("rect", { class: "bar-mark", x: x(0), y, width: Math.max(x(item.share) - x(0), 1), height: 12, rx: 2, opacity: item.p < 0.05 ? 1 : 0.35 });
      tip(place, bar, `${item.param}: ${item.share.toFixed(2)} (${item.low.toFixed(2)} – ${item.high.toFixed(2)}), p = ${item.p.toFixed(3)}`);
      svg.append(text(left - 8, y + 10, short(item.param, 22), { "text-anchor": "end", class: "strong" }), bar,
        make("path", { class: "whisker", fill: "none", d: `M${x(item.low)},${y + 6}H${x(item.high)}M${x(item.low)},${y + 2}v8M${x(item.high)},${y + 2}v8` }));
    });
  }

  // -- images side by side
  const pick = $("#image-path");
  function images() {
    const item = data.images[Number(pick.value)];
    const named = new Map(data.runs.map((run) => [run.run_id, run.name]));
    $("#image-grid").replaceChildren(...item.runs.map((run) => {
      const figure = document.createElement("figure"), image = document.createElement("img"), words = document.createElement("figcaption");
      image.loading = "lazy";
      image.alt = `${item.path}: ${named.get(run)}`;
      image.src = `${prefix}runs/${encodeURIComponent(run)}/file?path=${encodeURIComponent(item.path)}`;
      words.textContent = named.get(run);
      figure.append(image, words);
      return figure;
    }));
  }
  if (pick) { pick.addEventListener("change", images); images(); }

  const DRAW = { parallel, scatter, heat, box: boxes, importance };
  function drawAll() {
    STOPS = parseInt(css("--bg").slice(1, 3), 16) < 128 ? ON_DARK : ON_LIGHT;
    for (const place of $$("[data-plot]")) { DRAW[place.dataset.plot](place); place.dataset.drawn = ""; }
  }
  drawAll();
  document.addEventListener("theme", drawAll);
  let resizing;
  addEventListener("resize", () => { clearTimeout(resizing); resizing = setTimeout(drawAll, 150); });
})();
