// Curves: points from the server, thinned to what can be seen; drawn by uPlot; zoomed by asking for the part that is seen.
(() => {
  "use strict";
  const { $, $$, t } = window.mlcli;
  const box = $("#charts");
  if (!box) return;
  const runs = JSON.parse(box.dataset.runs);
  const state = new URLSearchParams(location.hash.slice(1));
  const hidden = new Set();
  const syncKey = "mlcli";

  // Colours that stay apart for most eyes; more runs than colours get dashes too.
  const COLOURS = ["#3357d6", "#d9480f", "#0f8a6d", "#b5179e", "#8a6d00", "#0b83a5", "#c02b3a", "#6741d9", "#5c7a1f", "#9c5a2b"];
  const DARK = ["#7f9dff", "#ff9a5c", "#4fd1ad", "#f07ae0", "#e3c341", "#5cc8ea", "#ff7b84", "#b197fc", "#a9cf5c", "#d9a077"];
  const isDark = () => getComputedStyle(document.documentElement).colorScheme.includes("dark") &&
    (document.documentElement.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const colour = (place) => (isDark() ? DARK : COLOURS)[place % COLOURS.length];
  // Dashes of hundreds of lines are slow to draw and tell nothing.
  const dash = (place) => (runs.length > 40 ? [] : [[], [6, 3], [2, 3], [8, 3, 2, 3]][Math.floor(place / COLOURS.length) % 4]);
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  function swatches() {
    for (const swatch of $$("[data-color]")) swatch.style.background = colour(Number(swatch.dataset.color));
  }

  const setting = { x: $("#chart-x"), smooth: $("#chart-smooth"), log: $("#chart-log"), outliers: $("#chart-outliers") };
  setting.x.value = state.get("x") || "step";
  setting.smooth.value = state.get("smooth") || 0;
  setting.log.checked = state.get("log") === "1";
  setting.outliers.checked = state.get("outliers") === "1";
  function keep() {
    const kept = new URLSearchParams();
    if (setting.x.value !== "step") kept.set("x", setting.x.value);
    if (Number(setting.smooth.value)) kept.set("smooth", setting.smooth.value);
    if (setting.log.checked) kept.set("log", "1");
    if (setting.outliers.checked) kept.set("outliers", "1");
    if (range) { kept.set("low", range[0]); kept.set("high", range[1]); }
    history.replaceState(null, "", location.pathname + location.search + (kept.size ? `#${kept}` : ""));
    $("#chart-smooth-value").textContent = Number(setting.smooth.value) ? Number(setting.smooth.value).toFixed(2) : "0";
  }
  let range = state.has("low") ? [Number(state.get("low")), Number(state.get("high"))] : null;

  const number = (value) => value == null ? "" : typeof value !== "number" ? value : Math.abs(value) >= 1e6 || (value && Math.abs(value) < 1e-3) ? value.toExponential(3) : String(+value.toPrecision(5));
  function along(value) {
    if (setting.x.value === "time") return new Date(value * 1000).toLocaleString();
    if (setting.x.value === "relative") return value < 120 ? `${+value.toPrecision(4)} s` : value < 7200 ? `${(value / 60).toFixed(1)} min` : `${(value / 3600).toFixed(2)} h`;
    return number(value);
  }

  // A moving mean that weighs by distance along the axis, so that thinning and uneven steps do not change it.
  function smoothed(xs, ys, amount) {
    if (!amount) return ys;
    const span = xs.length > 1 ? (xs[xs.length - 1] - xs[0]) / 1000 || 1 : 1;
    const result = ys.slice();
    let mean = 0, weight = 0, last = null;
    for (let place = 0; place < ys.length; place++) {
      if (ys[place] == null) continue;
      const fade = last === null ? 0 : amount ** Math.min(Math.max((xs[place] - last) / span, 0.05), 1000);
      mean = mean * fade + (1 - (last === null ? 0 : fade)) * ys[place];
      weight = weight * fade + (1 - (last === null ? 0 : fade));
      result[place] = mean / weight;
      last = xs[place];
    }
    return result;
  }

  class Chart {
    constructor(figure) {
      this.figure = figure;
      this.metric = figure.dataset.metric;
      this.place = $(".plot", figure);
      this.tip = Object.assign(document.createElement("div"), { className: "tip", hidden: true });
      this.place.append(this.tip);
      this.told = Object.assign(document.createElement("p"), { className: "muted" });
      figure.append(this.told);
      for (const button of $$("[data-save]", figure)) button.addEventListener("click", () => this.save(button.dataset.save));
    }
    async load() {
      const mine = (this.asked = (this.asked || 0) + 1);
      const query = new URLSearchParams({ metric: this.metric, x: setting.x.value, stretches: Math.max(100, Math.min(1000, Math.round(this.place.clientWidth / 2))) });
      for (const run of runs) query.append("run", run);
      if (range) { query.set("low", range[0]); query.set("high", range[1]); }
      let found, answer;
      try {
        answer = await fetch(`${box.dataset.points}?${query}`);
        found = await answer.json();
        if (!answer.ok) throw new Error(found.message);
      } catch (error) {
        this.told.textContent = answer ? String(error.message || error) : t("The server cannot be reached.");
        return !answer || answer.status >= 500; // it may be back the next time
      }
      if (mine !== this.asked) return found.live;
      // A curve has no point where another one has: undefined, and its line goes on. NaN breaks it: null.
      for (const one of found.series) one.y = one.y.map((y) => (typeof y === "number" ? y : y === null ? undefined : null));
      this.found = found;
      this.draw();
      return found.live;
    }
    limits(series) {
      let values = [];
      for (const ys of series) for (const y of ys) if (y != null) values.push(y);
      if (setting.log.checked) values = values.filter((value) => value > 0);
      if (!values.length) return setting.log.checked ? [0.1, 1] : [0, 1];
      values = Float64Array.from(values).sort();
      const cut = setting.outliers.checked && values.length > 20 ? 0.02 : 0;
      let low = values[Math.floor(cut * (values.length - 1))], high = values[Math.ceil((1 - cut) * (values.length - 1))];
      if (setting.log.checked) return [low / 1.15, high * 1.15];
      const room = (high - low || Math.abs(high) || 1) * 0.06;
      return [low - room, high + room];
    }
    draw() {
      const { x, series } = this.found;
      const amount = Number(setting.smooth.value);
      const log = setting.log.checked;
      const shown = series.map((one) => smoothed(x, one.y, amount).map((y) => (log && y <= 0 ? null : y)));
      const [low, high] = this.limits(shown.filter((_, place) => !hidden.has(series[place].run_id)));
      this.shown = shown;
      const faint = amount && series.length <= 10;
      const data = [x, ...(faint ? series.map((one) => one.y.map((y) => (log && y <= 0 ? null : y))) : []), ...shown];
      const many = x.length <= 60;
      const line = (one, place, weak) => ({
        label: one.name, stroke: colour(place) + (weak ? "40" : ""), width: weak || series.length > 40 ? 1 : 1.6, dash: dash(place), spanGaps: false,
        show: !hidden.has(one.run_id), points: { show: !weak && many, size: 5 },
      });
      const axis = { stroke: css("--muted"), font: `11px ${css("--font")}`, grid: { stroke: css("--line"), width: 1 }, ticks: { show: false } };
      const time = setting.x.value === "time";
      const options = {
        width: this.place.clientWidth, height: Math.max(260, Math.min(460, this.place.clientWidth * (box.children.length === 1 ? 0.42 : 0.56))),
        legend: { show: false }, padding: [8, 14, 0, 0],
        cursor: { sync: { key: syncKey, setSeries: false }, drag: { x: true, y: false, setScale: false }, focus: { prox: 24 }, points: { size: 7 } },
        focus: { alpha: 0.3 },
        scales: { x: { time, range: (_, least, most) => (least === most ? [least - 1, most + 1] : [least, most]) }, y: { distr: log ? 3 : 1, range: () => [low, high] } },
        axes: [{ ...axis, values: time ? undefined : (_, ticks) => ticks.map(along), size: 30 }, { ...axis, size: 58, values: (_, ticks) => ticks.map((tick) => (tick === null ? "" : number(tick))) }],
        series: [{}, ...(faint ? series.map((one, place) => line(one, place, true)) : []), ...series.map((one, place) => line(one, place, false))],
        hooks: {
          setSelect: [(plot) => {
            if (plot.select.width < 5) return;
            range = [plot.posToVal(plot.select.left, "x"), plot.posToVal(plot.select.left + plot.select.width, "x")];
            loadAll();
          }],
          setCursor: [(plot) => this.hover(plot)],
        },
      };
      this.plot?.destroy();
      this.plot = new uPlot(options, data, this.place);
      this.plot.over.addEventListener("dblclick", () => { range = null; loadAll(); });
      this.plot.over.addEventListener("mouseleave", () => { this.tip.hidden = true; light(null); });
      const odd = series.filter((one) => typeof one.latest === "string").map((one) => `${one.name} ${one.latest}`);
      this.told.textContent = [x.length ? "" : t("There is nothing to draw."), odd.length ? t("Ends that cannot be drawn: {values}", { values: odd.slice(0, 5).join(", ") + (odd.length > 5 ? ", …" : "") }) : ""].join(" ").trim();
      const ends = series.filter((one) => one.latest != null).slice(0, 5).map((one) => `${one.name}: ${number(one.latest)}`);
      this.place.setAttribute("role", "img");
      this.place.setAttribute("aria-label", `${this.metric}. ${t("{n} curves", { n: series.length })}. ${ends.join(", ")}`);
      this.place.dataset.drawn = "";
    }
    hover(plot) {
      const { idx, left, top } = plot.cursor;
      const mouse = plot.over.matches(":hover");
      if (idx == null || left < 0 || !mouse) { this.tip.hidden = true; return; }
      const { x, series } = this.found;
      const at = (ys) => { // the nearest place where this curve has a point
        for (let step = 0; step < 40; step++) for (const place of [idx - step, idx + step]) if (ys[place] != null) return place;
        return null;
      };
      const rows = series.map((one, place) => ({ one, place, where: at(this.shown[place]) }))
        .filter((row) => row.where !== null && !hidden.has(row.one.run_id))
        .map((row) => ({ ...row, y: this.shown[row.place][row.where] }))
        .sort((a, b) => Math.abs(plot.valToPos(a.y, "y") - top) - Math.abs(plot.valToPos(b.y, "y") - top)).slice(0, 8).sort((a, b) => b.y - a.y);
      if (!rows.length) { this.tip.hidden = true; return; }
      const table = document.createElement("table");
      for (const row of rows) {
        const line = table.insertRow();
        const swatch = Object.assign(document.createElement("span"), { className: "swatch" });
        swatch.style.background = colour(row.place);
        swatch.style.display = "inline-block";
        line.insertCell().append(swatch);
        line.insertCell().textContent = row.one.name;
        line.insertCell().textContent = number(row.y);
      }
      this.tip.replaceChildren(`${setting.x.value === "step" ? t("step") + " " : ""}${along(x[idx])}`, table);
      this.tip.hidden = false;
      const wide = this.place.clientWidth;
      this.tip.style.left = `${Math.max(0, left + 70 + this.tip.offsetWidth > wide ? left + 40 - this.tip.offsetWidth : left + 72)}px`;
      this.tip.style.top = `${Math.max(0, top - 10)}px`;
      const nearest = [...rows].sort((a, b) => Math.abs(plot.valToPos(a.y, "y") - top) - Math.abs(plot.valToPos(b.y, "y") - top))[0];
      light(nearest.one.run_id);
    }
    save(kind) {
      const name = `${this.metric.replace(/[^\w.-]+/g, "_")}.${kind}`;
      if (kind === "svg") return keepFile(new Blob([this.svg()], { type: "image/svg+xml" }), name);
      const from = this.plot.ctx.canvas;
      const scale = devicePixelRatio || 1;
      const seen = this.found.series.filter((one) => !hidden.has(one.run_id)).slice(0, 30);
      const to = document.createElement("canvas");
      to.width = from.width;
      to.height = from.height + (24 + seen.length * 16) * scale;
      const ink = to.getContext("2d");
      ink.fillStyle = css("--surface");
      ink.fillRect(0, 0, to.width, to.height);
      ink.scale(scale, scale);
      ink.font = `600 13px ${css("--font")}`;
      ink.fillStyle = css("--text");
      ink.fillText(this.metric, 10, 16);
      ink.drawImage(from, 0, 22, from.width / scale, from.height / scale);
      ink.font = `11px ${css("--font")}`;
      seen.forEach((one, row) => {
        const place = this.found.series.indexOf(one), y = 34 + from.height / scale + row * 16;
        ink.fillStyle = colour(place);
        ink.fillRect(10, y - 6, 14, 3);
        ink.fillStyle = css("--text");
        ink.fillText(one.name, 30, y);
      });
      to.toBlob((blob) => keepFile(blob, name), "image/png");
    }
    svg() {
      const escape = (text) => String(text).replace(/[&<>"']/g, (sign) => `&#${sign.charCodeAt(0)};`);
      const plot = this.plot, [wide, high] = [plot.width, plot.height];
      const { left, top, width, height } = { left: plot.bbox.left / devicePixelRatio, top: plot.bbox.top / devicePixelRatio, width: plot.bbox.width / devicePixelRatio, height: plot.bbox.height / devicePixelRatio };
      const parts = [`<rect width="100%" height="100%" fill="${css("--surface")}"/>`, `<text x="10" y="16" font-size="13" font-weight="600" fill="${css("--text")}">${escape(this.metric)}</text>`];
      const seen = this.found.series.map((one, place) => ({ one, place })).filter(({ one }) => !hidden.has(one.run_id));
      for (const axis of [0, 1]) {
        const scale = axis ? "y" : "x";
        for (const tick of plot.axes[axis]._values ? plot.axes[axis]._splits || [] : []) {
          if (tick == null) continue;
          const at = plot.valToPos(tick, scale);
          const words = axis ? number(tick) : along(tick);
          parts.push(axis
            ? `<line x1="${left}" x2="${left + width}" y1="${top + at + 22}" y2="${top + at + 22}" stroke="${css("--line")}"/><text x="${left - 6}" y="${top + at + 26}" text-anchor="end" font-size="11" fill="${css("--muted")}">${escape(words)}</text>`
            : `<text x="${left + at}" y="${top + height + 40}" text-anchor="middle" font-size="11" fill="${css("--muted")}">${escape(words)}</text>`);
        }
      }
      for (const { place } of seen) {
        const steps = [];
        let pen = "M";
        this.shown[place].forEach((y, n) => {
          if (y === null) pen = "M";
          if (y == null) return;
          steps.push(`${pen}${(left + plot.valToPos(this.found.x[n], "x")).toFixed(1)},${(top + 22 + plot.valToPos(y, "y")).toFixed(1)}`);
          pen = "L";
        });
        parts.push(`<path fill="none" stroke="${colour(place)}" stroke-width="1.6"${dash(place).length ? ` stroke-dasharray="${dash(place).join(" ")}"` : ""} d="${steps.join(" ")}"/>`);
      }
      seen.slice(0, 30).forEach(({ one, place }, row) => parts.push(`<rect x="10" y="${high + 28 + row * 16}" width="14" height="3" fill="${colour(place)}"/><text x="30" y="${high + 34 + row * 16}" font-size="11" fill="${css("--text")}">${escape(one.name)}</text>`));
      return `<svg xmlns="http://www.w3.org/2000/svg" width="${wide}" height="${high + 44 + Math.min(seen.length, 30) * 16}" font-family="system-ui, sans-serif">${parts.join("")}</svg>`;
    }
  }
  function keepFile(blob, name) {
    const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }
  function light(run) {
    for (const item of $$("#legend li")) item.classList.toggle("lit", item.dataset.run === run);
  }

  const charts = $$(".chart", box).map((figure) => new Chart(figure));
  const seen = new Set();
  const watch = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      const chart = charts.find((one) => one.figure === entry.target);
      if (entry.isIntersecting && !seen.has(chart)) { seen.add(chart); chart.load().then(note); }
    }
  }, { rootMargin: "300px" });
  async function loadAll() {
    keep();
    const live = await Promise.all([...seen].map((chart) => chart.load()));
    note();
    return live.some(Boolean);
  }
  function note() {
    const thinned = [...seen].some((chart) => chart.found?.stretch);
    $("#chart-note").textContent = thinned ? t("thinned: the least and the greatest point of each stretch is shown; drag to zoom in") : t("drag to zoom in, double-click for the whole");
  }
  const redraw = () => { keep(); for (const chart of seen) if (chart.found) chart.draw(); };
  setting.x.addEventListener("change", () => { range = null; loadAll(); });
  setting.smooth.addEventListener("input", redraw);
  setting.log.addEventListener("change", redraw);
  setting.outliers.addEventListener("change", redraw);
  $("#chart-reset").addEventListener("click", () => { range = null; loadAll(); });
  document.addEventListener("theme", () => { swatches(); redraw(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { swatches(); redraw(); });
  let resizing;
  addEventListener("resize", () => { clearTimeout(resizing); resizing = setTimeout(redraw, 150); });
  for (const check of $$("[data-series]")) check.addEventListener("change", () => {
    check.checked ? hidden.delete(check.dataset.series) : hidden.add(check.dataset.series);
    redraw();
  });
  for (const item of $$("#legend li")) {
    item.addEventListener("mouseenter", () => { for (const chart of seen) { const place = chart.found?.series.findIndex((one) => one.run_id === item.dataset.run); if (place >= 0) chart.plot?.setSeries(chart.plot.series.length - chart.found.series.length + place, { focus: true }); } });
    item.addEventListener("mouseleave", () => { for (const chart of seen) chart.plot?.setSeries(null, { focus: true }); });
  }
  swatches();
  keep();
  for (const chart of charts) watch.observe(chart.figure);
  if (box.dataset.follow) {
    const again = () => setTimeout(async () => {
      const live = document.hidden || range || charts.some((chart) => chart.place.matches(":hover")) ? true : await loadAll();
      if (live) again();
    }, Number(box.dataset.follow) * 1000);
    again();
  }
})();
