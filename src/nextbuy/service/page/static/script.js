// What the page does beyond reading: suggestions, rows, audiences, counters. Text goes into the
// document as text only; addresses are ours, with ids encoded.
"use strict";

const find = (selector, within = document) => within.querySelector(selector);
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
  if (!response.ok) throw new Error(body?.detail || `The service answered ${response.status}.`);
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
  const shown = new Intl.NumberFormat("en");
  const look = async () => {
    if (document.hidden) return;
    try {
      const found = await ask(counters.dataset.counters);
      counters.querySelectorAll("[data-counter]").forEach((field) => {
        const value = found[field.dataset.counter];
        field.textContent = value === null || value === undefined ? "–" : shown.format(value);
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

  const preview = async (address) => {
    const found = await ask(`${address}?format=json`);
    const rows = (found.audience || found.rows || found.users || []).slice(0, 10).map((each) => {
      const row = document.createElement("tr");
      const cell = (text, kind) => {
        const made = document.createElement("td");
        if (kind) made.className = kind;
        made.textContent = text;
        row.append(made);
      };
      cell(each.rank);
      cell(each.user_id, "text");
      cell(`${(100 * each.probability).toFixed(1)} %`);
      cell(each.expected_value === null ? "–" : Number(each.expected_value).toFixed(2));
      return row;
    });
    find("tbody", part("preview")).replaceChildren(...rows);
    part("preview").hidden = rows.length === 0;
  };

  const follow = async (address, mine) => {
    for (let wait = 150; mine === running; wait = Math.min(wait * 1.5, 2000)) {
      const found = await ask(address);
      if (mine !== running) return;
      const share = found.progress ?? 0;
      if (found.status === "done") {
        show("The audience is ready", "Best first, with the chance that each buys.", 1);
        part("csv").href = `${address}/result?format=csv`;
        part("csv").hidden = false;
        await preview(`${address}/result`);
        return;
      }
      if (found.status === "failed" || found.status === "cancelled") {
        throw new Error(found.error?.detail || found.error || found.detail || "The work was stopped.");
      }
      show("Working", found.status === "queued" ? "Waiting for a free worker." :
        `${Math.round(100 * share)} % of the customers are done.`, share);
      await pause(wait);
    }
  };

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const mine = ++running;
    const button = find("button[type=submit]", form);
    button.disabled = true;
    job.hidden = false;
    part("csv").hidden = true;
    part("preview").hidden = true;
    part("progress").hidden = false;
    show("Working", "Waiting for a free worker.", 0);
    try {
      const made = await ask(form.dataset.audience, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify(asked()),
      });
      await follow(form.dataset.jobs + encodeURIComponent(made.id), mine);
    } catch (error) {
      if (mine === running) {
        part("progress").hidden = true;
        show("There is no audience", error.message);
      }
    } finally {
      button.disabled = false;
    }
  });
}
