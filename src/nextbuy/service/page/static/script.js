// What the page does beyond reading: suggestions, rows, audiences, counters. Text goes into the
// document as text only; addresses are ours, with ids encoded.
"use strict";

const find = (selector, within = document) => within.querySelector(selector);
const counted = new Intl.NumberFormat("en");
const token = find("meta[name=csrf-token]")?.content;

function later(work, milliseconds) {
  let timer;
  return (...given) => { clearTimeout(timer); timer = setTimeout(() => work(...given), milliseconds); };
}

async function ask(address, options = {}) {
  const headers = { Accept: "application/json", ...options.headers };
  if (options.method && token) headers["X-Nextbuy-Token"] = token;
  const response = await fetch(address, { ...options, headers, credentials: "same-origin" });
  const text = await response.text();
  let body = null;
  try { body = text ? JSON.parse(text) : null; } catch { body = null; }
  if (!response.ok) {
    const fields = (body?.errors || []).map((one) => `${one.field}: ${one.message}`).join("; ");
    throw new Error(fields || body?.detail || `The service answered ${response.status}.`);
  }
  return body;
}

// Suggestions from the catalog, as one types.
let newest = 0;
const suggest = later(async (field, address) => {
  const list = document.getElementById(field.getAttribute("list"));
  const text = field.value;
  if (!list || [...list.options].some((option) => option.value === text)) return;
  const mine = ++newest;
  try {
    const found = await ask(`${address}?q=${encodeURIComponent(text)}`);
    if (mine !== newest) return;
    list.replaceChildren(...found.items.map((item) => {
      const option = document.createElement("option");
      option.value = item.item_id;
      option.textContent = item.about;
      return option;
    }));
  } catch { /* suggestions are a convenience: without them people type the whole id */ }
}, 150);

document.addEventListener("input", (event) => {
  const field = event.target;
  if (field.dataset.suggest) suggest(field, field.dataset.suggest);
  if (field.dataset.suggestItem && field.getAttribute("list") === "item-targets") {
    suggest(field, field.dataset.suggestItem);
  }
});

// One more row of a made-up history.
const add = find("[data-add-row]");
if (add) {
  const rows = find("[data-rows]");
  const most = Number(rows.dataset.rows);
  const isFull = () => rows.children.length >= most;
  add.hidden = isFull();
  add.addEventListener("click", () => {
    const row = rows.lastElementChild.cloneNode(true);
    row.querySelectorAll("input").forEach((field) => { field.value = ""; });
    find("legend", row).textContent = `Purchase ${rows.children.length + 1}`;
    rows.append(row);
    find("input", row).focus();
    add.hidden = isFull();
  });
}

// Counters, while somebody looks.
const counters = find("[data-counters]");
if (counters) {
  const look = async () => {
    if (document.hidden) return;
    try {
      const found = await ask(counters.dataset.counters);
      counters.querySelectorAll("[data-counter]").forEach((field) => {
        const value = found[field.dataset.counter];
        field.textContent = value === null || value === undefined ? "–" : counted.format(value);
      });
    } catch { /* the next look may succeed */ }
  };
  setInterval(look, 3000);
  document.addEventListener("visibilitychange", look);
}

// Audiences: a job, its progress, its result.
const form = find("form[data-audience]");
if (form) {
  const target = find("[name=target]", form);
  form.addEventListener("change", (event) => {
    if (event.target.name !== "kind") return;
    target.setAttribute("list", `${event.target.value}-targets`);
    target.value = "";
  });

  const job = find("[data-job]");
  const part = (name) => find(`[data-job-${name}]`, job);
  const pause = (milliseconds) => new Promise((resolve) => { setTimeout(resolve, milliseconds); });
  let running = 0;

  const show = (title, words, share) => {
    part("title").textContent = title;
    part("words").textContent = words;
    if (share !== undefined) part("progress").value = share;
  };

  const asked = () => {
    const told = new FormData(form);
    const body = {
      [told.get("kind")]: told.get("target"),
      within_days: Number(told.get("within_days")),
      size: Number(told.get("size")),
    };
    const held = Number(told.get("holdout"));
    return held > 0 ? { ...body, holdout_share: held / 100 } : body;
  };

  // The first lines of what may be a million: read until there are ten, then stop reading.
  const firstLines = async (address, most) => {
    const response = await fetch(address, { credentials: "same-origin" });
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    while (text.split("\n").length <= most) {
      const { done, value } = await reader.read();
      if (done) break;
      text += value;
    }
    reader.cancel();
    return text.split("\n").slice(0, most).filter(Boolean).map((line) => JSON.parse(line));
  };

  const preview = async (address) => {
    const money = new Intl.NumberFormat("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 });
    const found = await firstLines(`${address}?format=jsonl`, 10);
    const rows = found.map((each) => {
      const row = document.createElement("tr");
      const cell = (text, kind, name = "td") => {
        const made = document.createElement(name);
        if (kind) made.className = kind;
        made.textContent = text;
        row.append(made);
        return made;
      };
      cell(each.rank);
      const id = cell("", "text");
      const link = document.createElement("a");
      link.href = `/page/user?id=${encodeURIComponent(each.user_id)}`;
      link.textContent = each.user_id;
      id.append(link);
      cell(`${(100 * each.probability).toFixed(1)}\u00a0%`);
      cell(each.expected_value === null ? "–" : money.format(each.expected_value));
      return row;
    });
    find("tbody", part("preview")).replaceChildren(...rows);
    part("preview").hidden = rows.length === 0;
  };

  const ready = async (address, rows) => {
    part("csv").href = `${address}/result?format=csv`;
    part("csv").hidden = rows === 0;
    show("The audience is ready", rows === 0 ? "Nobody fits." :
      `${counted.format(rows)} customers, best first, with the chance that each buys.`, 1);
    await preview(`${address}/result`);
  };

  const follow = async (address, mine) => {
    for (let wait = 150; mine === running; wait = Math.min(wait * 1.5, 2000)) {
      const found = await ask(address);
      if (mine !== running) return;
      if (found.state === "done") return ready(address, found.rows);
      if (found.state === "cancelled") throw new Error("The work was stopped.");
      if (found.state === "failed") throw new Error(found.detail || "The work failed.");
      show("Working", found.state === "waiting" ? "Other work comes first." :
        `${Math.round(100 * found.progress)}\u00a0% is done.`, found.progress);
      await pause(wait);
    }
  };

  part("cancel").addEventListener("click", async () => {
    part("cancel").hidden = true;
    try { await ask(part("cancel").dataset.address, { method: "DELETE" }); } catch { /* it ended */ }
  });

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const mine = ++running;
    const button = find("button[type=submit]", form);
    button.disabled = true;
    job.hidden = false;
    part("csv").hidden = true;
    part("progress").hidden = false;
    show("Working", "Waiting.", 0);
    part("preview").hidden = true;
    try {
      const made = await ask(form.dataset.audience, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify(asked()),
      });
      const address = form.dataset.jobs + encodeURIComponent(made.id);
      part("cancel").dataset.address = address;
      part("cancel").hidden = false;
      await follow(address, mine);
    } catch (error) {
      if (mine === running) {
        part("progress").hidden = true;
        show("There is no audience", error.message);
      }
    } finally {
      button.disabled = false;
      part("cancel").hidden = true;
    }
  });
}
