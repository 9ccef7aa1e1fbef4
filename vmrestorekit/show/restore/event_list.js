// A few rows of the table of events. To a screen reader it is a grid of which one row is chosen; Up and Down go
// from row to row, Page Up and Page Down further.
const STYLE = `
.vmrk-events table { table-layout: fixed; width: 100%; max-width: 640px; }
.vmrk-events th, .vmrk-events td, .vmrk-events thead th:first-child { text-align: left; white-space: nowrap;
  overflow: hidden; text-overflow: ellipsis; padding: 2px 8px 2px 6px; }
.vmrk-events td:first-child, .vmrk-events thead th:first-child { text-align: right; }
.vmrk-events tbody tr { cursor: pointer; }
.vmrk-events tbody tr:hover { background: var(--vmrk-panel); }
.vmrk-events tbody tr.current { background: var(--vmrk-panel); box-shadow: inset 4px 0 0 var(--vmrk-flow); }
.vmrk-events tbody tr.current td { font-weight: 600; }
.vmrk-events tr:focus-visible { outline: 2px solid var(--vmrk-flow); outline-offset: -2px; }
`;
const WIDE = { Time: "92px", Run: "70px", Blocks: "112px" };
const KEYS = { ArrowDown: 1, ArrowUp: -1 };

function render({ model, el }) {
  const box = document.createElement("div");
  box.className = "vmrk vmrk-events";
  const table = document.createElement("table");
  table.setAttribute("role", "grid");
  table.setAttribute("aria-label", "Events around the current one: choose one");
  box.append(Object.assign(document.createElement("style"), { textContent: STYLE }), table);
  el.appendChild(box);

  const cell = (tag, role, text) => {
    const made = Object.assign(document.createElement(tag), { textContent: text });
    made.setAttribute("role", role);
    return made;
  };
  const line = (...cells) => {
    const row = document.createElement("tr");
    row.setAttribute("role", "row");
    row.append(...cells);
    return row;
  };
  const choose = (row) => row && model.send({ index: row.index });
  const draw = () => {
    const held = table.contains(document.activeElement);
    const rows = model.get("rows"), current = model.get("current");
    const heads = model.get("heads").map((text) => {
      const head = cell("th", "columnheader", text);
      if (WIDE[text]) head.style.width = WIDE[text];
      return head;
    });
    const reached = Math.max(rows.findIndex((row) => row.index === current), 0); // by Tab
    const lines = rows.map((row, at) => {
      const here = row.index === current;
      const made = line(...row.cells.map((text) => cell("td", "gridcell", text)));
      made.lastChild.title = row.cells.at(-1);
      made.classList.toggle("current", here);
      made.setAttribute("aria-selected", here);
      made.tabIndex = at === reached ? 0 : -1;
      made.onclick = () => choose(row);
      return made;
    });
    const caption = Object.assign(document.createElement("caption"), { textContent: "Events around it" });
    const [head, body] = ["thead", "tbody"].map((tag) => document.createElement(tag));
    head.append(line(...heads));
    body.append(...lines);
    table.replaceChildren(caption, head, body);
    if (held) lines[reached]?.focus({ preventScroll: true });
  };
  table.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const rows = model.get("rows"), current = model.get("current");
    const at = rows.findIndex((row) => row.index === current);
    if (event.key in KEYS) choose(rows[at + KEYS[event.key]]);
    else if (event.key === "PageDown") model.send({ pages: 1 });
    else if (event.key === "PageUp") model.send({ pages: -1 });
    else if (event.key === "Enter" || event.key === " ") choose(rows[Math.max(at, 0)]);
    else return;
    event.preventDefault();
    event.stopPropagation(); // or the notebook goes to another cell
  });
  model.on("change:rows change:current", draw);
  draw();
}

export default { render };
