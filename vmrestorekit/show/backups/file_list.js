// One page of a list of files. To a screen reader it is a grid of which a row is chosen; the arrow keys go from
// row to row, Space ticks, Enter opens a folder, Backspace leaves it, Page Up and Page Down turn the pages.
const STYLE = `
.vmrk-files nav { display: flex; flex-wrap: wrap; align-items: center; gap: 2px; margin: 2px 0 6px; }
.vmrk-files button { font: inherit; color: var(--vmrk-flow); background: none; border: 1px solid transparent;
  border-radius: 3px; padding: 0 3px; line-height: 17px; cursor: pointer; text-align: left; overflow-wrap: anywhere; }
.vmrk-files button:hover { border-color: var(--vmrk-line); text-decoration: underline; }
.vmrk-files :focus-visible { outline: 2px solid var(--vmrk-flow); outline-offset: -2px; }
.vmrk-files nav [aria-current] { font-weight: 600; padding: 1px 4px; color: var(--vmrk-ink); }
.vmrk-files table { width: 100%; margin: 0; }
.vmrk-files tbody tr { cursor: default; }
.vmrk-files tbody tr.current { background: var(--vmrk-panel); box-shadow: inset 3px 0 0 var(--vmrk-flow); }
.vmrk-files td { white-space: nowrap; height: 19px; }
.vmrk-files th { vertical-align: bottom; }
.vmrk-files td.name, .vmrk-files th.name { text-align: left; width: 100%; padding-left: 6px; white-space: normal; }
.vmrk-files td.name { overflow-wrap: anywhere; }
.vmrk-files td.tick { padding: 0 2px 0 8px; }
.vmrk-files td.tick input { margin: 2px; vertical-align: middle; }
.vmrk-files .kind { display: inline-block; width: 1.5em; color: var(--vmrk-soft); text-align: center; }
.vmrk-files .hint { color: var(--vmrk-soft); margin-left: 6px; font-size: 12px; }
`;
const ROW_KEYS = { ArrowDown: 1, ArrowUp: -1 };

function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  Object.entries(properties).forEach(([name, value]) =>
    name in element ? (element[name] = value) : element.setAttribute(name, value));
  element.append(...children);
  return element;
}

function render({ model, el }) {
  const style = make("style", { textContent: STYLE });
  const way = make("nav", { "aria-label": "The way here" });
  const list = make("div", { className: "list" });
  el.append(make("div", { className: "vmrk vmrk-files" }, style, way, list));
  const tell = (action, number = 0) => model.send({ do: action, number });
  const rows = () => [...list.querySelectorAll("tbody tr")];

  const drawWay = () => {
    const trail = model.get("trail");
    const held = way.contains(document.activeElement);
    way.replaceChildren(...trail.flatMap((name, at) => {
      const last = at === trail.length - 1;
      const here = last
        ? make("span", { "aria-current": "location", textContent: name })
        : make("button", { textContent: name, title: `Go to ${name}`, onclick: () => tell("trail", at) });
      return at ? [make("span", { textContent: "›", "aria-hidden": "true" }), here] : [here];
    }));
    if (held) focusRow(); // the button is gone; do not lose the keyboard
  };
  const focusRow = () => rows()[Math.max(model.get("current"), 0)]?.focus({ preventScroll: true });
  const mark = () => rows().forEach((row, at) => {
    const here = at === Math.max(model.get("current"), 0);
    row.tabIndex = here ? 0 : -1;
    row.classList.toggle("current", at === model.get("current"));
  });
  const point = (at) => {
    if (at < 0 || at >= model.get("rows").length) return;
    model.set("current", at);
    model.save_changes();
    mark();
    focusRow();
  };
  const box = (row, at) => {
    const input = make("input", {
      type: "checkbox", checked: row.tick === 2, tabIndex: -1, "aria-label": `Choose ${row.name}`,
      title: "Choose it, and all that is in it (Space)",
      onclick: (event) => { event.stopPropagation(); point(at); tell("tick", at); },
    });
    input.indeterminate = row.tick === 1;
    return input;
  };
  const drawRow = (row, at) => {
    const ticked = ["not chosen", "partly chosen", "chosen"][row.tick];
    const name = row.opens
      ? make("button", {
          textContent: row.name, tabIndex: -1, title: `Open ${row.name} (Enter)`,
          onclick: (event) => { event.stopPropagation(); point(at); tell("open", at); },
        })
      : make("span", { textContent: row.name });
    const kind = make("span", { className: "kind", textContent: row.kind, title: row.said, "aria-hidden": "true" });
    const hint = row.hint ? [make("span", { className: "hint", textContent: row.hint })] : [];
    const cells = row.cells.map((text) => make("td", { role: "gridcell", textContent: text }));
    const line = make("tr", { role: "row", onclick: () => point(at) },
      make("td", { role: "gridcell", className: "tick" }, ...(row.tick < 0 ? [] : [box(row, at)])),
      make("td", { role: "gridcell", className: "name" }, kind, name, ...hint), ...cells);
    const columns = row.cells.map((text, column) => `${model.get("heads")[column + 1]} ${text}`);
    line.setAttribute("aria-label", [`${row.said} ${row.name}`, row.hint, ticked, ...columns].filter(Boolean).join(", "));
    if (row.tick >= 0) line.setAttribute("aria-selected", row.tick === 2);
    return line;
  };
  const drawRows = () => {
    const held = list.contains(document.activeElement);
    const given = model.get("rows");
    const [first, ...others] = model.get("heads");
    const head = make("tr", { role: "row" }, make("th", { role: "columnheader", "aria-label": "Chosen" }),
      make("th", { role: "columnheader", className: "name", textContent: first }),
      ...others.map((text) => make("th", { role: "columnheader", textContent: text })));
    const table = make("table", { role: "grid" }, make("thead", {}, head), make("tbody", {}, ...given.map(drawRow)));
    table.setAttribute("aria-label", model.get("label"));
    table.setAttribute("aria-multiselectable", "true");
    list.replaceChildren(table);
    if (!given.length) list.append(make("p", { className: "soft", textContent: model.get("empty") }));
    mark();
    if (held) focusRow();
  };

  list.addEventListener("keydown", (event) => {
    const at = Math.max(model.get("current"), 0), row = model.get("rows")[at], last = model.get("rows").length - 1;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in ROW_KEYS) {
      const to = at + ROW_KEYS[event.key];
      if (to < 0 || to > last) tell("page", ROW_KEYS[event.key]);
      else point(to);
    } else if (event.key === "Home") point(0);
    else if (event.key === "End") point(last);
    else if (event.key === "PageDown") tell("page", 1);
    else if (event.key === "PageUp") tell("page", -1);
    else if (event.key === "Backspace") tell("up");
    else if (event.key === " " && row?.tick >= 0) tell("tick", at);
    else if ((event.key === "Enter" || event.key === "ArrowRight") && row?.opens) tell("open", at);
    else if (event.key === "ArrowLeft") tell("up");
    else if (event.key !== " " && event.key !== "Enter") return;
    event.preventDefault();
    event.stopPropagation(); // or the notebook goes to another cell
  });
  model.on("change:trail", drawWay);
  ["rows", "heads", "label", "empty"].forEach((name) => model.on(`change:${name}`, drawRows));
  model.on("change:current", mark);
  drawWay();
  drawRows();
}

export default { render };
