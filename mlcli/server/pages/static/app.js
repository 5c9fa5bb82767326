// What every page does in the browser: times, theme, forms that stay, live lists, the filter, keys. Without it pages work too.
(() => {
  "use strict";
  const $ = (selector, inside = document) => inside.querySelector(selector);
  const $$ = (selector, inside = document) => [...inside.querySelectorAll(selector)];
  const texts = JSON.parse($("#texts")?.textContent || "{}");
  const t = (text, values = {}) =>
    (texts[text] ?? text).replace(/\{(\w+)\}/g, (whole, name) => (name in values ? values[name] : whole));
  window.mlcli = { $, $$, t };

  // -- addresses as MLflow's clients print them: /#/experiments/1/runs/ID, /#/models/NAME/versions/3
  const theirs = /^#\/(?:experiments\/(\d+)(?:\/runs\/(\w+))?|models\/([^/?]+)(?:\/versions\/(\d+))?)/.exec(location.hash);
  if (theirs) {
    const [, experiment, run, model, version] = theirs;
    location.replace(document.body.dataset.prefix + (run ? `runs/${run}` : experiment ? `experiments/${experiment}` : `models/${model}${version ? `/${version}` : ""}`));
  }

  // -- times in the reader's own zone
  function localTimes(inside) {
    for (const time of $$("time", inside)) {
      const moment = new Date(time.dateTime);
      if (isNaN(moment)) continue;
      const shown = moment.toLocaleString(document.documentElement.lang, { dateStyle: "medium", timeStyle: "medium" });
      time.title = shown;
      if ("absolute" in time.dataset) time.textContent = shown;
    }
  }

  // -- light and dark
  const dark = () =>
    (document.documentElement.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  $("#theme")?.addEventListener("click", () => {
    const theme = dark() ? "light" : "dark";
    document.documentElement.dataset.theme = theme;
    document.cookie = `mlcli-theme=${theme}; path=/; max-age=31536000; samesite=lax`;
    document.dispatchEvent(new Event("theme"));
  });

  // -- a word that comes and goes
  let away;
  function say(text) {
    const toast = $("#toast");
    toast.textContent = text;
    toast.classList.add("on");
    clearTimeout(away);
    away = setTimeout(() => toast.classList.remove("on"), Math.max(2500, text.length * 60));
  }
  window.mlcli.say = say;

  // -- copying
  async function copy(text) {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = document.createElement("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    say(t("Copied"));
  }

  // -- dialogs
  document.addEventListener("click", (event) => {
    const from = event.target.closest("[data-copy], [data-dialog], [data-close]");
    if (!from) return;
    if (from.dataset.copy !== undefined) copy(from.dataset.copy);
    else if (from.dataset.close !== undefined) from.closest("dialog").close();
    else {
      const dialog = document.getElementById(from.dataset.dialog);
      for (const [name, value] of Object.entries(from.dataset)) {
        if (!name.startsWith("fill")) continue;
        const field = dialog.querySelector(`[name="${name.slice(4).toLowerCase()}"]`);
        if (field) field.value = value;
      }
      dialog.showModal();
      dialog.querySelector("input:not([type=hidden]), textarea")?.focus();
    }
  });

  // -- forms that stay on their page, or go where the answer says
  document.addEventListener("submit", async (event) => {
    const form = event.target;
    const button = event.submitter;
    if (form.method === "dialog" || button?.formMethod === "get" || button?.dataset.plain !== undefined) {
      if (form.id === "bulk") return plainRuns(event);
      return;
    }
    const sure = button?.dataset.sure || form.dataset.sure;
    if (sure && !confirm(sure)) return event.preventDefault();
    if (!("stay" in form.dataset) && !("go" in form.dataset)) return;
    event.preventDefault();
    const fields = new URLSearchParams(new FormData(form));
    if ("withRuns" in form.dataset) for (const run of chosen()) fields.append("run", run);
    let answer, told;
    try {
      answer = await fetch(button?.getAttribute("formaction") || form.action, {
        method: "POST", body: fields, headers: { Accept: "application/json" },
      });
      told = await answer.json();
    } catch {
      return say(t("The server cannot be reached."));
    }
    if (!answer.ok) return say(told.message || t("That did not work"));
    if ("go" in form.dataset) location.href = told.page;
    else location.reload();
  });

  // -- selects that act at once
  document.addEventListener("change", (event) => {
    if (event.target.dataset.submit !== undefined) event.target.form.requestSubmit();
  });

  // -- choosing rows
  const picked = new Set();
  const chosen = () => [...picked];
  function plainRuns(event) {
    // Runs of other pages of the list are chosen too: the address gets them all.
    event.preventDefault();
    if (picked.size > 300) return say(t("At most 300 runs can be chosen by hand; a filter finds more."));
    const to = new URL(event.submitter.formAction, location.href);
    for (const run of picked) to.searchParams.append("run", run);
    location.href = to;
  }
  function showChosen() {
    const bar = $("#bulk-bar");
    if (!bar) return;
    for (const box of $$('input[name="run"]', $("#list"))) {
      box.checked = picked.has(box.value);
      box.closest("tr").classList.toggle("chosen", box.checked);
    }
    const boxes = $$('input[name="run"]', $("#list"));
    const all = $("#all");
    if (all) {
      all.checked = boxes.length > 0 && boxes.every((box) => box.checked);
      all.indeterminate = !all.checked && boxes.some((box) => box.checked);
    }
    bar.hidden = !picked.size;
    $("#bulk-count").textContent = t("{n} selected", { n: picked.size });
    $("#bulk-compare").disabled = picked.size < 2;
  }
  let lastBox;
  document.addEventListener("click", (event) => {
    const box = event.target;
    if (box.id === "all") {
      for (const one of $$('input[name="run"]', $("#list"))) box.checked ? picked.add(one.value) : picked.delete(one.value);
      showChosen();
    } else if (box.name === "run" && box.type === "checkbox") {
      const boxes = $$('input[name="run"]', $("#list"));
      if (event.shiftKey && lastBox) {
        const [from, to] = [boxes.findIndex((one) => one.value === lastBox), boxes.indexOf(box)].sort((a, b) => a - b);
        for (const one of boxes.slice(Math.max(from, 0), to + 1)) box.checked ? picked.add(one.value) : picked.delete(one.value);
      } else box.checked ? picked.add(box.value) : picked.delete(box.value);
      lastBox = box.value;
      showChosen();
    } else if (box.id === "bulk-none") {
      picked.clear();
      showChosen();
    }
  });

  // -- lists that follow what happens
  const live = $("[data-live]");
  if (live) {
    let last; // as it was sent; what is shown differs from it by its times
    const again = () => { // how soon, says what is shown; what has ended is asked for no more
      const pace = $("[data-pace]", live)?.dataset.pace;
      if (pace) setTimeout(follow, Number(pace) * 1000);
    };
    const busy = () => document.hidden || $("dialog[open]") || live.contains(document.activeElement?.closest("input:not([type=checkbox]), select, textarea"))
      || (live.contains(getSelection()?.anchorNode) && !getSelection().isCollapsed);
    async function follow() {
      if (!busy()) {
        try {
          const answer = await fetch(live.dataset.live, { headers: { Accept: "text/html" } });
          const text = answer.ok ? await answer.text() : null;
          if (text !== null && text !== last && !busy()) {
            const row = document.activeElement?.closest("tr")?.dataset.run;
            const place = $$("a, button, input, summary, [tabindex]", live).indexOf(document.activeElement);
            const opened = $$("details", live).map((one) => one.open);
            const checked = new Set($$("input:checked:not([name=run])", live).map((box) => `${box.name} ${box.value}`));
            const scrolled = $$(".scroll", live).map((box) => box.scrollLeft);
            live.replaceChildren(document.createRange().createContextualFragment(text));
            $$(".scroll", live).forEach((box, place) => (box.scrollLeft = scrolled[place] || 0));
            localTimes(live);
            showChosen();
            for (const box of $$("input[type=checkbox]:not([name=run])", live)) if (checked.has(`${box.name} ${box.value}`)) box.checked = true;
            $$("details", live).forEach((one, n) => (one.open = opened[n] || false));
            const focus = (row && $(`tr[data-run="${CSS.escape(row)}"] a`, live)) || $$("a, button, input, summary, [tabindex]", live)[place];
            focus?.focus({ preventScroll: true });
            document.dispatchEvent(new Event("renewed"));
          }
          if (text !== null) last = text;
        } catch {
          // The server is away: the next time it may be back.
        }
      }
      again();
    }
    again();
  }

  // -- the filter: what is wrong, what could come next
  const filter = $("#filter");
  if (filter) {
    const list = $("#filter-words");
    const told = $("#filter-problem");
    let at = -1, start = 0, end = 0, asked = 0, timer;
    const close = () => { list.hidden = true; at = -1; filter.setAttribute("aria-expanded", "false"); filter.removeAttribute("aria-activedescendant"); };
    const mark = (place) => {
      at = place;
      [...list.children].forEach((item, n) => item.setAttribute("aria-selected", n === at));
      const item = list.children[at];
      if (item) { filter.setAttribute("aria-activedescendant", item.id); item.scrollIntoView({ block: "nearest" }); }
    };
    const take = (word) => {
      const before = filter.value.slice(0, start) + word;
      filter.value = before + filter.value.slice(end);
      filter.setSelectionRange(before.length, before.length);
      filter.focus();
      close();
      ask();
    };
    async function ask() {
      const mine = ++asked;
      const query = new URLSearchParams({ filter: filter.value, at: filter.selectionStart });
      let found;
      try {
        found = await (await fetch(`${filter.dataset.check}?${query}`)).json();
      } catch { return; }
      if (mine !== asked || document.activeElement !== filter) return;
      const wrong = found.problem;
      // While it is being typed, an end that is missing is no fault yet.
      const unfinished = wrong && wrong.position !== null && wrong.position >= filter.value.trimEnd().length && filter.selectionStart >= filter.value.length;
      filter.setAttribute("aria-invalid", Boolean(wrong && !unfinished));
      told.textContent = wrong && !unfinished ? wrong.message + (wrong.hint ? ` ${wrong.hint}` : "") : "";
      ({ start, end } = found);
      list.replaceChildren(...found.words.map((word, n) => {
        const item = document.createElement("li");
        item.id = `filter-word-${n}`;
        item.setAttribute("role", "option");
        item.textContent = word;
        item.addEventListener("mousedown", (event) => { event.preventDefault(); take(word); });
        return item;
      }));
      list.hidden = !found.words.length;
      filter.setAttribute("aria-expanded", !list.hidden);
      at = -1;
    }
    filter.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(ask, 120); });
    filter.addEventListener("focus", ask);
    filter.addEventListener("blur", close);
    filter.addEventListener("keydown", (event) => {
      if (list.hidden) return;
      const count = list.children.length;
      if (event.key === "ArrowDown") { event.preventDefault(); mark((at + 1) % count); }
      else if (event.key === "ArrowUp") { event.preventDefault(); mark((at - 1 + count) % count); }
      else if ((event.key === "Enter" && at >= 0) || (event.key === "Tab" && !event.shiftKey && filter.value)) {
        event.preventDefault();
        take(list.children[Math.max(at, 0)].textContent);
      } else if (event.key === "Escape") { event.preventDefault(); close(); }
    });
  }
  const here = (changes) => {
    const to = new URL(location.href);
    for (const [name, value] of Object.entries(changes)) {
      to.searchParams.delete(name);
      for (const one of [value].flat()) if (one !== null) to.searchParams.append(name, one);
    }
    location.href = to;
  };
  // Columns and groups are typed with the completions of the filter.
  for (const [id, apply] of [
    ["add-column", (name) => here({ c: [...$$("#column-chips .chip > span:first-child").map((chip) => chip.textContent), name] })],
    ["group-by", (name) => here({ group: name, page: null })],
  ]) {
    const field = document.getElementById(id);
    if (!field) continue;
    const words = document.createElement("datalist");
    words.id = `${id}-words`;
    field.after(words);
    field.setAttribute("list", words.id);
    field.addEventListener("input", async () => {
      const query = new URLSearchParams({ filter: field.value, at: field.value.length });
      try {
        const found = await (await fetch(`${filter.dataset.check}?${query}`)).json();
        const before = field.value.slice(0, found.start);
        words.replaceChildren(...found.words.filter((word) => before.includes(".")).map((word) => {
          const option = document.createElement("option");
          option.value = before + word.replace(/^`|`$/g, "");
          return option;
        }));
      } catch { /* no completions, then */ }
    });
    field.addEventListener("keydown", (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault();
      if (field.value.trim()) apply(field.value.trim());
    });
  }
  document.addEventListener("click", (event) => {
    for (const menu of $$("details.menu[open]")) if (!menu.contains(event.target)) menu.open = false;
  });

  // -- a log that follows
  const log = $("#log");
  if (log) {
    let from = Number(log.dataset.from || 0);
    const follows = $("#log-follow");
    const toEnd = () => { if (follows?.checked) log.scrollTop = log.scrollHeight; };
    toEnd();
    follows?.addEventListener("change", toEnd);
    $("#log-wrap")?.addEventListener("change", (event) => log.classList.toggle("unwrapped", !event.target.checked));
    async function more() {
      if (log.hidden) { // nothing was there yet
        const answer = await (await fetch(`${location.pathname}?format=json`)).json();
        if (answer.exists) return location.reload();
        if (answer.live) setTimeout(more, 1500);
        return;
      }
      let live = true;
      try {
        const to = new URL(log.dataset.next, location.href);
        to.searchParams.set("from", from);
        const found = await (await fetch(to)).json();
        if (found.text) {
          log.append(found.text);
          toEnd();
        }
        live = found.live || found.to > from;
        from = found.to;
      } catch { /* the server is away for a moment */ }
      if (live) setTimeout(more, 1000);
      else $("#log-state").textContent = t("the run has ended");
    }
    if ("going" in log.dataset) setTimeout(more, 500);
    let places = [], place = -1;
    $("#log-find")?.addEventListener("input", (event) => {
      const words = event.target.value.toLowerCase();
      const text = log.textContent;
      log.textContent = text;
      if (!words) return;
      const lower = text.toLowerCase();
      const pieces = [];
      let done = 0;
      for (let found = lower.indexOf(words); found >= 0 && pieces.length < 4000; found = lower.indexOf(words, found + words.length)) {
        const mark = document.createElement("mark");
        mark.textContent = text.slice(found, found + words.length);
        pieces.push(text.slice(done, found), mark);
        done = found + words.length;
      }
      pieces.push(text.slice(done));
      log.replaceChildren(...pieces);
      places = $$("mark", log);
      place = 0;
      places[0]?.scrollIntoView({ block: "center" });
      if (follows) follows.checked = false;
    });
    $("#log-find")?.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || !places.length) return;
      place = (place + (event.shiftKey ? -1 : 1) + places.length) % places.length;
      places[place].scrollIntoView({ block: "center" });
    });
  }

  // -- keys
  let row = -1, before = "";
  const rows = () => $$("table.rows tbody tr", $("#list") || document);
  function go(step) {
    const all = rows();
    if (!all.length) return;
    row = Math.min(Math.max(row + step, 0), all.length - 1);
    all.forEach((one, place) => one.classList.toggle("at", place === row));
    all[row].scrollIntoView({ block: "nearest" });
  }
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (event.target.closest?.("input:not([type=checkbox]), textarea, select, dialog[open]")) return;
    const key = event.key;
    if (before === "g" && "ermo".includes(key) && key.length === 1) {
      const prefix = document.body.dataset.prefix;
      location.href = prefix + { e: "", r: "runs", m: "models", o: "rollouts" }[key];
    } else if (key === "/") { event.preventDefault(); $("[data-search]")?.focus(); }
    else if (key === "?") $("#key-help").showModal();
    else if (key === "j") go(1);
    else if (key === "k") go(-1);
    else if (key === "x") $('input[name="run"], input[name="version"], input[name="e"]', rows()[row] || document.createElement("p"))?.click();
    else if (key === "Enter" && row >= 0 && event.target === document.body) $("a", rows()[row])?.click();
    else if (key === "c" && picked.size > 1) $("#bulk-compare")?.click();
    before = key;
  });
  $("#keys")?.addEventListener("click", () => $("#key-help").showModal());
  document.addEventListener("keydown", (event) => { // of parts that are renewed too
    const button = event.target.closest?.('[role="button"]');
    if (button && (event.key === "Enter" || event.key === " ")) { event.preventDefault(); button.click(); }
  });

  localTimes(document);
  showChosen();
})();
