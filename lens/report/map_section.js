const root = document.getElementById("feature-map");
const packed = atob(document.getElementById("feature-map-data").textContent);
const bytes = new Blob([Uint8Array.from(packed, (char) => char.charCodeAt(0))]).stream();
const data = await new Response(bytes.pipeThrough(new DecompressionStream("gzip"))).json();
const form = root.querySelector("form");
const field = (name) => form.elements.namedItem(name);
const dark = matchMedia("(prefers-color-scheme: dark)");
const FILTERS = ["modality", "roi", "image", "feature_class"];
const WHOLE_ON_PAPER = 500; // rows; more would fill a book

// Numbers as elsewhere on the page: fixed digits, a true minus, a dash for none.
const shown = (value, digits = 2) =>
  value === null ? "–" : (Math.round(value * 10 ** digits) / 10 ** digits + 0).toFixed(digits).replace("-", "−");
const interval = (row, name) =>
  `${shown(row[name])} [${shown(row[`${name}_low`])}, ${shown(row[`${name}_high`])}]`;

function rowsOf(task) {
  const listing = data.listings[task.listing];
  const rows = listing.column.map((column, index) => {
    const row = { index, column, feature: listing.label[index], cluster: task.cluster[index] };
    for (const name of FILTERS) row[name] = listing.words[name][listing.codes[name][index]];
    for (const name in task.values) {
      const value = task.values[name][index];
      row[name] = value === null ? null : value / data.unit;
    }
    row.rank = task.verdict[index];
    row.verdict = data.verdicts[row.rank].name;
    row.before = interval(row, "r2_ridge_pre");
    row.after = interval(row, "r2_ridge_ft");
    row.change = interval(row, "delta_r2");
    row.p = row.p_maxt !== null && row.p_maxt < 0.00005 ? "< 0.0001" : shown(row.p_maxt, 4);
    row.text = `${row.feature} ${column} ${row.verdict}`.toLowerCase();
    return row;
  });
  // Verdicts of a change first, the largest changes first in each.
  const size = (row) => (row.delta_r2 === null ? -1 : Math.abs(row.delta_r2));
  return rows.sort((a, b) => a.rank - b.rank || size(b) - size(a) || a.index - b.index);
}

const known = new Map();
const chosen = () => (field("task") ? Number(field("task").value) : 0);
function current() {
  if (!known.has(chosen())) known.set(chosen(), rowsOf(data.tasks[chosen()]));
  return known.get(chosen());
}

// Controls.
function options(select, texts) {
  select.replaceChildren(...texts.map(([value, text]) => new Option(text, value)));
}
function counts(rows, name) {
  const found = new Map();
  for (const row of rows) found.set(row[name], (found.get(row[name]) ?? 0) + 1);
  return found;
}
function choice(type, name, value, checked, ...content) {
  const label = document.createElement("label");
  const input = Object.assign(document.createElement("input"), { type, name, value });
  input.defaultChecked = checked;
  label.append(input, ...content);
  return label;
}
function controls() {
  const rows = current();
  for (const name of FILTERS) {
    const kept = field(name).value;
    const found = counts(rows, name);
    options(field(name), [["", "all"], ...[...found].map(([value, count]) => [`=${value}`, `${value} (${count})`])]);
    if (found.has(kept.slice(1))) field(name).value = kept;
  }
  const found = counts(rows, "verdict");
  for (const { name } of data.verdicts) {
    root.querySelector(`.count-${name}`).textContent = ` (${found.get(name) ?? 0})`;
  }
}
if (field("task")) options(field("task"), data.tasks.map((task, index) => [index, task.name]));
root.querySelector(".verdicts").append(
  ...data.verdicts.map(({ name }) => {
    const mark = Object.assign(document.createElement("span"), { className: `verdict ${name}`, textContent: name });
    const count = Object.assign(document.createElement("span"), { className: `soft count-${name}` });
    return choice("checkbox", "verdict", name, true, mark, count);
  }),
);
root.querySelector(".views").append(
  ...data.charts.map((chart, index) => choice("radio", "view", index, index === 0, chart.name)),
);

// Which rows pass the controls, and which of them the box on the map holds.
let chart = null;
let box = null;
let passing = [];
let selected = new Set();
const bound = (name, otherwise) => (field(name).value === "" ? otherwise : Number(field(name).value));
function passes() {
  const verdicts = new Set(new FormData(form).getAll("verdict"));
  const words = field("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const wanted = FILTERS.map((name) => [name, field(name).value]).filter(([, value]) => value !== "");
  const [least, most, cluster] = [bound("least", -Infinity), bound("most", Infinity), field("cluster").value];
  const whole = least === -Infinity && most === Infinity;
  return (row) =>
    verdicts.has(row.verdict) &&
    wanted.every(([name, value]) => `=${row[name]}` === value) &&
    (cluster === "" || row.cluster === Number(cluster)) &&
    (whole || (row.delta_r2 !== null && row.delta_r2 >= least && row.delta_r2 <= most)) &&
    words.every((word) => row.text.includes(word));
}

// Marks.
const within = (value, [low, high]) => Math.min(Math.max(value, low), high);
function markOf(row, { x, y, limits }) {
  if (row[x] === null || row[y] === null) return null;
  const look = data.verdicts[row.rank];
  const colour = look[dark.matches ? "dark" : "light"];
  const place = { x: within(row[x], limits[0]), y: within(row[y], limits[1]) };
  const [right, up] = [row[x] - place.x, row[y] - place.y];
  const beyond = right !== 0 || up !== 0;
  const { index, feature, verdict, before, after, change, cluster } = row;
  return {
    ...place, index, beyond, feature, verdict, before, after, change, cluster,
    shape: beyond ? "arrow" : look.shape,
    angle: beyond ? (Math.atan2(Math.sign(right), Math.sign(up)) * 180) / Math.PI : 0,
    size: beyond ? 130 : row.rank < 3 ? 60 : 34,
    fill: colour,
    stroke: colour,
    fillOpacity: look.hollow && !beyond ? 0 : 1,
  };
}
let marks = [];
function draw() {
  const layout = data.charts[Number(new FormData(form).get("view"))];
  // The last are on top.
  marks = passing.map((row) => markOf(row, layout)).filter(Boolean).reverse();
  if (chart) chart.data("features", marks).runAsync();
}

const holds = ([low, high], value) => value >= Math.min(low, high) && value <= Math.max(low, high);
function select() {
  const inside = box ? marks.filter((mark) => holds(box.x, mark.x) && holds(box.y, mark.y)) : null;
  selected = new Set(inside ? inside.map((mark) => mark.index) : passing.map((row) => row.index));
  table.draw();
  const beyond = marks.filter((mark) => mark.beyond).length;
  const missing = passing.length - marks.length;
  const parts = [`${passing.length} of ${current().length} features shown`];
  if (inside) parts.push(`${inside.length} in the box`);
  if (beyond) parts.push(`${beyond} beyond the axes, arrows at the edge`);
  if (missing) parts.push(`${missing} without a value, in the table only`);
  root.querySelector(".status").textContent = `${data.tasks[chosen()].name}: ${parts.join("; ")}.`;
}
function update() {
  const pass = passes();
  passing = current().filter(pass);
  draw();
  select();
}

// The chart. Its expressions are interpreted, not compiled: no script is made at run time.
let drawing = 0;
async function embed() {
  const turn = ++drawing;
  const [ink, soft, line] = ["--ink", "--soft", "--line"].map((name) =>
    getComputedStyle(document.documentElement).getPropertyValue(name).trim(),
  );
  const config = {
    background: "transparent",
    font: "system-ui, sans-serif",
    view: { stroke: line },
    axis: { labelColor: soft, titleColor: ink, gridColor: line, domainColor: soft, tickColor: soft, labelFontSize: 12, titleFontSize: 13, titleFontWeight: "normal" },
  };
  const { spec } = data.charts[Number(new FormData(form).get("view"))];
  const result = await vegaEmbed(root.querySelector(".chart"), spec, {
    ast: true, actions: false, renderer: "canvas", config, mode: "vega-lite",
    tooltip: { theme: dark.matches ? "dark" : "light" },
  });
  if (turn !== drawing) return result.finalize();
  chart?.finalize(); // it would go on listening, with a box that nobody sees
  chart = result.view;
  root.view = chart;
  box = null;
  let waiting = 0;
  chart.addSignalListener("brush", (name, value) => {
    box = value.x && value.y ? value : null;
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(select);
  });
  root.dataset.view = new FormData(form).get("view");
  update();
  await chart.runAsync();
}

// The table. Names are text and never HTML; in a CSV file they are no formulas.
const plain = (text) => text.replace(/[&<>"']/g, (char) => `&#${char.charCodeAt(0)};`);
const name = (key, title, visible = true) => ({
  title, visible, data: key, className: visible ? "" : "never",
  render: (value, type) => {
    if (type === "display") return plain(value);
    return type === "export" && /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
  },
});
const value = (key, title, text, visible = true, digits = 3) => ({
  title, visible, data: key, type: "num",
  render: (found, type, row) => {
    if (type === "display") return text ? row[text] : shown(found, digits);
    if (type === "export") return found === null ? "" : found.toFixed(digits);
    return found === null ? -Infinity : found;
  },
});
const columns = [
  name("feature", "Feature"),
  {
    title: "Verdict", data: "rank", type: "num",
    render: (rank, type) => {
      const verdict = data.verdicts[rank].name;
      if (type === "display") return `<span class="verdict ${verdict}">${verdict}</span>`;
      return type === "export" ? verdict : rank;
    },
  },
  value("r2_ridge_pre", "R2 before", "before"),
  value("r2_ridge_ft", "R2 after", "after"),
  value("delta_r2", "Change of R2", "change"),
  value("p_maxt", "p, all features", "p", true, 4),
  {
    title: "Cluster", data: "cluster", type: "num",
    render: (cluster, type) =>
      type === "display" ? `<button type="button" class="cluster" aria-label="Show cluster ${cluster}">${cluster}</button>` : cluster,
  },
  name("column", "Column", false),
  ...[["modality", "Modality"], ["roi", "Region"], ["image", "Image filter"], ["feature_class", "Class"]].map(
    ([key, title]) => name(key, title, false),
  ),
  ...["r2_ridge_pre", "r2_ridge_ft", "delta_r2"].flatMap((key) =>
    ["low", "high"].map((end) => value(`${key}_${end}`, `${{ r2_ridge_pre: "R2 before", r2_ridge_ft: "R2 after", delta_r2: "Change of R2" }[key]}, ${end}`, "", false)),
  ),
];
root.hidden = false;
const table = new DataTable(root.querySelector("table"), {
  data: [], columns, order: [], pageLength: 10, autoWidth: false, searching: true, deferRender: true,
  layout: { topStart: "info", topEnd: "buttons", bottomStart: "pageLength", bottomEnd: "paging" },
  language: { lengthMenu: "_MENU_ per page", info: "_START_ to _END_ of _TOTAL_ features", infoEmpty: "No feature", infoFiltered: "", emptyTable: "No feature", zeroRecords: "No feature matches" },
  buttons: [
    {
      extend: "csvHtml5", text: "Save as CSV", title: null,
      filename: () => `features-${data.tasks[chosen()].name}`,
      exportOptions: { columns: () => true, orthogonal: "export" },
    },
  ],
});
table.search.fixed("map", (text, row) => selected.has(row.index));

// A row points to its mark.
const body = root.querySelector("table tbody");
function point(event) {
  const line = event.target.closest("tr");
  const row = line && table.row(line).data();
  const mark = row && marks.find(({ index }) => index === row.index);
  if (chart) chart.data("pointed", mark ? [{ x: mark.x, y: mark.y }] : []).runAsync();
}
for (const kind of ["mouseover", "focusin"]) body.addEventListener(kind, point);
for (const kind of ["mouseleave", "focusout"]) {
  body.addEventListener(kind, () => chart && chart.data("pointed", []).runAsync());
}
body.addEventListener("click", (event) => {
  const button = event.target.closest("button.cluster");
  if (!button) return;
  field("cluster").value = button.textContent;
  field("cluster").focus();
  update();
});

function task() {
  controls();
  table.clear().rows.add(current());
}
function themed() {
  document.documentElement.classList.toggle("dark", dark.matches); // as DataTables knows it
  embed();
}
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("reset", () => setTimeout(() => (task(), embed())));
let typing = 0;
form.addEventListener("input", (event) => {
  if (event.target.name === "task") return void (task(), embed());
  if (event.target.name === "view") return void embed();
  clearTimeout(typing);
  typing = setTimeout(update, event.target.name === "search" ? 120 : 0);
});
dark.addEventListener("change", themed);

// On paper the table is whole where it can be, and says so where it is not.
const partly = Object.assign(document.createElement("p"), { className: "partly soft" });
root.append(partly);
let perPage = table.page.len();
addEventListener("beforeprint", () => {
  const { recordsDisplay, length } = table.page.info();
  perPage = length;
  if (recordsDisplay <= WHOLE_ON_PAPER) table.page.len(-1).draw();
  else partly.textContent = `The first ${length} of ${recordsDisplay} features; the file has them all.`;
});
addEventListener("afterprint", () => {
  partly.textContent = "";
  table.page.len(perPage).draw();
});

document.documentElement.classList.add("live");
task();
themed();
